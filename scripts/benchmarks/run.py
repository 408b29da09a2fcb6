"""Runs benchmarks and writes <out>/<name>-cpu.json and the table rendered from it, <out>/<name>-cpu.md."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import contrast
import gradients
import measure
import memory
import newton
import ranking
import threads
import transport
import triples

BENCHMARKS = {
    "transport": transport,
    "gradients": gradients,
    "newton": newton,
    "contrast": contrast,
    "triples": triples,
    "ranking": ranking,
    "memory": memory,
    "threads": threads,
}

EPILOG = """All run on one pinned thread (but threads, which compares one with two), contenders in turn; times are
medians. The whole takes about 20 minutes, with --quick about 5. A peer that is not installed is reported
as such; scripts/bootstrap bench installs them.

examples:
  scripts/bench transport
  scripts/bench contrast triples --quick --out /tmp/results
"""


def main() -> None:
    listing = "\n".join(f"  {name:10} {(module.__doc__ or '').splitlines()[0]}" for name, module in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=f"{__doc__}\n\nbenchmarks:\n{listing}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help="which benchmarks (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder of the results (%(default)s)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark '{unknown[0]}'; choose from {', '.join(BENCHMARKS)}")
    measure.pin_one_thread()
    environment = measure.environment()  # before any result is written into the checkout
    for name in arguments.names or BENCHMARKS:
        for path in write(name, arguments.quick, arguments.out, environment):
            print(f"{path} written")


def write(name: str, quick: bool, out: Path, environment: dict) -> list[Path]:
    """Runs a benchmark; returns the paths of its record and of its table."""
    command = f"scripts/bench {name}" + (" --quick" if quick else "")
    record = {"command": command, "environment": environment, "rows": BENCHMARKS[name].run(quick)}
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}-cpu.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(render(name, record))
    return [path, path.with_suffix(".md")]


def render(name: str, record: dict) -> str:
    benchmark = BENCHMARKS[name]
    where = ", ".join(f"{key} {value}" for key, value in record["environment"].items())
    return (
        f"# {name}\n\n{(benchmark.__doc__ or '').strip()}\n\n{benchmark.table(record['rows'])}\n\n"
        f"Rendered from `{name}-cpu.json`, made by `{record['command']}` on: {where}.\n"
    )


if __name__ == "__main__":
    main()
