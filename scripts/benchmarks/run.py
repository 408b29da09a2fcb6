"""Runs benchmarks and writes <out>/<name>-cpu.json and the table rendered from it, <out>/<name>-cpu.md."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import contrast
import measure
import memory
import transport
import triples

BENCHMARKS = {"transport": transport, "contrast": contrast, "triples": triples, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder of the results")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark '{unknown[0]}'; choose from {', '.join(BENCHMARKS)}")
    measure.pin_one_thread()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        command = f"scripts/bench {name}" + (" --quick" if arguments.quick else "")
        record = {"command": command, "environment": measure.environment(), "rows": benchmark.run(arguments.quick)}
        path = arguments.out / f"{name}-cpu.json"
        path.write_text(json.dumps(record, indent=1) + "\n")
        path.with_suffix(".md").write_text(render(name, record))
        print(f"{path} and {path.with_suffix('.md')} written")


def render(name: str, record: dict) -> str:
    benchmark = BENCHMARKS[name]
    where = ", ".join(f"{key} {value}" for key, value in record["environment"].items())
    return (
        f"# {name}\n\n{(benchmark.__doc__ or '').strip()}\n\n{benchmark.table(record['rows'])}\n\n"
        f"Rendered from `{name}-cpu.json`, made by `{record['command']}` on: {where}.\n"
    )


if __name__ == "__main__":
    main()
