"""Renders the tables of docs/scaling.md between their markers, or prints them for given GPUs and batches."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent / "benchmarks")]

import checks  # noqa: E402
import model  # noqa: E402
import render  # noqa: E402
from measure import environment  # noqa: E402

RESULTS = ROOT / "docs" / "results"
RECORD = RESULTS / "scaling.json"
PAGE = ROOT / "docs" / "scaling.md"


def main() -> int:
    arguments = _parse()
    hardware = replace(
        model.Hardware(), memory=0.9e9 * arguments.memory, network=arguments.network * 1e9 / 8,
        utilisation=arguments.utilisation,
    )  # fmt: skip
    if arguments.measure is not None:
        _measure(arguments.measure or checks.PARTS)
    record = json.loads(RECORD.read_text())
    records = _records(record)
    make = lambda gpus, batch: model.Run(  # noqa: E731
        gpus, batch, arguments.frames, not arguments.keep_layers, arguments.micro_batch
    )
    if arguments.gpus:
        runs = [make(gpus, batch) for gpus in arguments.gpus for batch in arguments.batch]
        print("\n\n".join([render.memory(hardware, records, runs), render.seconds(hardware, records, runs)]))
        return 0
    runs = [make(gpus, batch) for gpus in render.GPUS for batch in render.BATCHES]
    text = PAGE.read_text(encoding="utf-8")
    for name, table in render.tables(hardware, records, runs, record).items():
        text = render.between(text, name, table)
    PAGE.write_text(text, encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} written")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/scaling", description=f"{__doc__}\n\n{model.__doc__}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parts = ", ".join(checks.PARTS)
    parser.add_argument("--measure", nargs="*", choices=checks.PARTS, metavar="part",
                        help=f"measure first → {RECORD.relative_to(ROOT)}; all, or some of {parts}")  # fmt: skip
    parser.add_argument("--gpus", type=int, nargs="+", default=[], help="print the tables for so many GPUs")
    parser.add_argument("--batch", type=int, nargs="+", default=[], help="and global batches of so many clips")
    parser.add_argument("--frames", type=int, default=8, help="frames of a clip (%(default)s)")
    parser.add_argument("--micro-batch", type=int, default=64, help="clips that a GPU encodes at once (%(default)s)")
    parser.add_argument("--keep-layers", action="store_true", help="without gradient checkpointing")
    parser.add_argument("--memory", type=float, default=80, help="of a GPU, GB, of which a tenth is left (%(default)s)")
    parser.add_argument("--network", type=float, default=400, help="of a machine of eight, Gb/s (%(default)s)")
    parser.add_argument("--utilisation", type=float, default=0.4, help="of 989 TFLOP/s (%(default)s)")
    arguments = parser.parse_args()
    if bool(arguments.gpus) != bool(arguments.batch):
        parser.error("--gpus and --batch go together")
    return arguments


def _measure(parts: Sequence[str]) -> None:
    """Measure some parts; what is recorded of the others stays."""
    where = environment()
    where = {name: where[name] for name in ("processor", "instruction set", "python", "torch", "mover", "commit")}
    empty = {"command": "scripts/scaling --measure", "environments": {}, "rows": {}}
    record = json.loads(RECORD.read_text()) if RECORD.exists() else empty
    for part in parts:
        record["rows"][part] = checks.run(part)
        record["environments"][part] = where
        RECORD.write_text(json.dumps(record, indent=1) + "\n")


def _records(record: dict) -> model.Records:
    """The numbers of the model, from what was measured here and on an H100."""
    read = lambda name: json.loads((RESULTS / f"{name}.json").read_text())["rows"]  # noqa: E731
    transport = max(read("transport-cuda"), key=lambda row: row["rows"])
    contrast = max(read("contrast-cuda"), key=lambda row: row["rows"])
    return model.records_of(read("steps-cpu"), record["rows"]["objective"], transport, contrast)


if __name__ == "__main__":
    sys.exit(main())
