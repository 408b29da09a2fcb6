"""`mover compare`: several systems on the same clips."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mover.cli.parser import Parser, non_negative, positive
from mover.errors import UserError

if TYPE_CHECKING:
    from mover.evaluate.compare import System

_DESCRIPTION = """\
Score several systems on the clips that all of them have: one table as in the paper, and for each system the difference
in Recall@1 to the first, with a 95 % interval by a paired bootstrap over clips.

  mover compare runs/demo runs/gram
  mover compare mover=a.npz gram=b.npz vast=c.safetensors --direction T2V,V2T --markdown table.md
  mover compare --dataset MSR-VTT mover=a.npz gram=b.npz mover@VATEX=c.npz gram@VATEX=d.npz

Each is a file of embeddings from any system (.npz, .safetensors, .parquet), or the folder of a run that was evaluated,
with a name in front where the file's does not do: NAME=FILE, or NAME@DATASET=FILE for several data sets."""


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(list(argv))
    named = [named_source(word, options.dataset) for word in options.systems]

    from rich.console import Console

    from mover.evaluate.compare import compare
    from mover.evaluate.compare_tables import csv_text, difference_table, kept, markdown, result_tables
    from mover.train.device import pick_device

    console = Console()
    with console.status("reading") as status:
        found = compare(
            [_read(name, dataset, path) for name, dataset, path in named],
            baseline=options.baseline,
            only=options.direction,
            unusable=options.unusable,
            count=options.resamples,
            seed=options.seed,
            device=pick_device(options.device),
            progress=lambda what: status.update(f"ranking {what}"),
        )
    for line in kept(found):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for table in result_tables(found, console.width):
        console.print(table)
    console.print("*: the interval of the difference below excludes 0", highlight=False, markup=False)
    console.print(difference_table(found))
    texts = {
        "json": lambda: json.dumps(found, indent=1, allow_nan=False) + "\n",
        "csv": lambda: csv_text(found),
        "markdown": lambda: markdown(found),
    }
    for kind, text in texts.items():
        path = getattr(options, kind)
        if path is not None:
            _write(path, text(), kind)
            console.print(f"written to {path}", highlight=False, markup=False, soft_wrap=True)
    return 0


def named_source(word: str, dataset: str) -> tuple[str, str, Path]:
    """Name, data set and path of NAME@DATASET=PATH, any part of it but the path being optional.

    What stands before the first = is a name unless it has a slash. The name of a path is that of the file, or of the
    folder of the run.
    """
    before, equals, after = word.partition("=")
    if not equals or os.sep in before:
        before, after = "", word
    name, at, own = before.partition("@")
    if not after or (equals and not before and after != word) or (at and not own):
        raise UserError(f"'{word}': expected FILE, NAME=FILE or NAME@DATASET=FILE.")
    path = Path(after)
    return name or _name_of(path), own or dataset, path


def _name_of(path: Path) -> str:
    """runs/demo and runs/demo/embeddings.npz are demo, vast.npz is vast."""
    path = path.absolute()
    if path.suffix and not path.is_dir():
        return path.parent.name if path.stem.startswith("embeddings") else path.stem
    return path.name


def _read(name: str, dataset: str, source: Path) -> System:
    from mover.evaluate.compare import System
    from mover.evaluate.embeddings_file import load_embeddings
    from mover.evaluate.sources import embeddings_path

    path = embeddings_path(source)
    return System(name, dataset, load_embeddings(path), str(path))


def _write(path: Path, text: str, kind: str) -> None:
    from mover.data.manifest import write_atomically

    try:
        write_atomically(path, text)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}. Name another file with --{kind}.") from None


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _parser() -> Parser:
    parser = Parser(prog="mover compare", description=_DESCRIPTION, usage="mover compare A B [C …] …")
    parser.add_argument("systems", nargs="+", metavar="A B C", help="[NAME[@DATASET]=]FILE|RUN")
    what = parser.add_argument_group("what is compared")
    what.add_argument("--dataset", default="", metavar="NAME", help="data set of those that name none")
    what.add_argument(
        "--direction", type=_names, metavar="NAME,…", help="directions, as T2V,V2T,T2VA [all that a system has]"
    )
    what.add_argument("--baseline", metavar="NAME", help="the system that the others are compared with [the first]")
    what.add_argument(
        "--unusable", choices=("fail", "last", "missing"), default="fail",
        help="rows that are zero or not finite: fail; last, they rank last; missing, as if the clip had none [fail]",
    )  # fmt: skip
    how = parser.add_argument_group("how")
    how.add_argument("--resamples", type=positive, default=2000, metavar="INT", help="of the bootstrap [2000]")
    how.add_argument("--seed", type=non_negative, default=0, metavar="INT", help="of the bootstrap [0]")
    how.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N [auto]")
    results = parser.add_argument_group("results")
    results.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    results.add_argument("--csv", type=Path, metavar="FILE", help="a line per data set, direction, system and metric")
    results.add_argument("--markdown", type=Path, metavar="FILE", help="the table")
    return parser
