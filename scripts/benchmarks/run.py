"""Runs benchmarks and writes <out>/<name>-cpu.json and the table rendered from it, <out>/<name>-cpu.md; with
--device cuda <name>-cuda, and a summary cuda.md."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

BENCHMARKS = (
    "transport",
    "gradients",
    "newton",
    "contrast",
    "triples",
    "ranking",
    "evaluation",
    "memory",
    "pool",
    "threads",
    "manifests",
    "media",
    "frozen",
    "steps",
    "micro-batches",
    "processes",
)
_MODULES = {"steps": "training_steps", "micro-batches": "micro_batches", "processes": "weak_scaling"}
ON_GPU = ("transport", "triples", "contrast", "ranking", "logdet")

EPILOG = f"""On the CPU all run on one pinned thread (but threads, which compares one with two, and a part of media),
contenders in turn; times are medians. The whole takes about half an hour, with --quick about 5 minutes. A peer that is
not installed is reported as such; scripts/bootstrap bench installs them.

With --device cuda: {", ".join(ON_GPU)}. They take the torch and the peers that are there, and the libraries that
scripts/gpu-check has built, and end in about 4 minutes.

examples:
  scripts/bench transport
  scripts/bench contrast triples --quick --out /tmp/results
  scripts/bench --device cuda transport
  scripts/bench --device cuda --table-only
"""


def main() -> int:
    arguments = _parse()
    if arguments.device == "cuda":
        from gpu import run as gpu

        if arguments.table_only:
            for path in gpu.render_all(arguments.out):
                print(f"{path} written")
            return 0
        plan = "quick" if arguments.quick else "full" if arguments.full else "default"
        return gpu.main(arguments.names, plan, arguments.out, arguments.within, arguments.commit)
    import measure

    measure.pin_one_thread()
    environment = measure.environment()  # before any result is written into the checkout
    for name in arguments.names or BENCHMARKS:
        for path in write(name, arguments.quick, arguments.out, environment):
            print(f"{path} written")
    return 0


def _parse(words: list[str] | None = None) -> argparse.Namespace:
    listing = "\n".join(f"  {name:10} {first_line(name)}" for name in BENCHMARKS)
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=f"{__doc__}\n\nbenchmarks:\n{listing}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help="which benchmarks (default: all)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="small sizes only; on a GPU few sizes")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder of the results (%(default)s)")
    cuda = parser.add_argument_group("with --device cuda")
    cuda.add_argument("--full", action="store_true", help="the whole grid of sizes, which takes an hour")
    cuda.add_argument("--table-only", action="store_true", help="render the tables from stored records; needs no GPU")
    cuda.add_argument("--within", type=float, metavar="SECONDS", help="begin no measurement after so many")
    cuda.add_argument("--commit", default="", help="what to record as the commit where git cannot say")
    arguments = parser.parse_args(words)
    known = ON_GPU if arguments.device == "cuda" else BENCHMARKS
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        parser.error(f"unknown benchmark '{unknown[0]}'; choose from {', '.join(known)}")
    only_cuda = [name for name in ("full", "table_only", "within", "commit") if getattr(arguments, name)]
    if only_cuda and arguments.device == "cpu":
        parser.error(f"--{only_cuda[0].replace('_', '-')} goes with --device cuda")
    if arguments.quick and arguments.full:
        parser.error("--quick and --full exclude each other")
    return arguments


def module_of(name: str) -> ModuleType:
    """The module of a benchmark, with what it needs: a machine with a GPU may lack what others need."""
    return importlib.import_module(_MODULES.get(name, name))


def first_line(name: str) -> str:
    """What a benchmark is, without importing it."""
    source = Path(__file__).with_name(f"{_MODULES.get(name, name)}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


def write(name: str, quick: bool, out: Path, environment: dict) -> list[Path]:
    """Runs a benchmark on the CPU; returns the paths of its record and of its table."""
    command = f"scripts/bench {name}" + (" --quick" if quick else "")
    record = {"command": command, "environment": environment, "rows": module_of(name).run(quick)}
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}-cpu.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(render(name, record))
    return [path, path.with_suffix(".md")]


def render(name: str, record: dict) -> str:
    benchmark = module_of(name)
    where = ", ".join(f"{key} {value}" for key, value in record["environment"].items())
    return (
        f"# {name}\n\n{(benchmark.__doc__ or '').strip()}\n\n{benchmark.table(record['rows'])}\n\n"
        f"Rendered from `{name}-cpu.json`, made by `{record['command']}` on: {where}.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
