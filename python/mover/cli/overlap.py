"""`mover overlap`: whether a set that was trained on shares clips with one that is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mover.cli.parser import Parser

_DESCRIPTION = """\
Tell whether two manifests share clips: a result is "zero-shot" only where the evaluated clips, and the uploads they
were cut from, were not trained on. Clips are compared by id, and by the upload that importers keep with each clip.

  mover overlap data/audiocaps/manifest.jsonl data/vggsound/manifest.jsonl --trained-split train --evaluated-split test

Exit code 0: nothing is shared; 1: something is."""

_SHOWN = 10


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    parser = Parser(prog="mover overlap", description=_DESCRIPTION, usage="mover overlap TRAINED EVALUATED …")
    parser.add_argument("trained", type=Path, metavar="TRAINED", help="manifest that was trained on")
    parser.add_argument("evaluated", type=Path, metavar="EVALUATED", help="manifest that is evaluated")
    parser.add_argument("--trained-split", metavar="NAME", help="only this split of TRAINED [all]")
    parser.add_argument("--evaluated-split", metavar="NAME", help="only this split of EVALUATED [all]")
    options = parser.parse_args(list(argv))

    from mover.data.manifest import read_manifest, select_split
    from mover.data.overlap import find_overlap

    trained, evaluated = read_manifest(options.trained), read_manifest(options.evaluated)
    if options.trained_split is not None:
        trained = select_split(trained, options.trained_split)
    if options.evaluated_split is not None:
        evaluated = select_split(evaluated, options.evaluated_split)
    found = find_overlap(trained, evaluated)
    print(f"{options.trained}: {len(trained)} clips; {options.evaluated}: {len(evaluated)} clips")
    for what, shared in (("ids", found.ids), ("uploads", found.uploads)):
        first = f": {', '.join(shared[:_SHOWN])}{', …' if len(shared) > _SHOWN else ''}" if shared else ""
        print(f"  same {what}: {len(shared)} ({len(shared) / found.of:.2%} of the evaluated clips){first}")
    return 1 if found.uploads else 0
