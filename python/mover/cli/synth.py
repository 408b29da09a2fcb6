"""`mover synth`: make the embedded data set."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mover.cli.parser import Parser, non_negative, positive

_DESCRIPTION = """\
Make the embedded data set: small clips drawn and played by rule, written as mp4 files with captions in the form of
MSR-VTT and AudioCaps, a manifest and a tokenizer. The same options give the same data; a folder that already holds
them is left as it is.

  mover synth --out data/demo"""


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    parser = Parser(prog="mover synth", description=_DESCRIPTION, usage="mover synth --out DIR …")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--seed", type=non_negative, default=0, metavar="INT", help="of everything drawn by chance [0]")
    parser.add_argument("--train", type=positive, default=1200, metavar="INT", help="training clips [1200]")
    parser.add_argument("--val", type=positive, default=200, metavar="INT", help="validation clips [200]")
    parser.add_argument("--test", type=positive, default=200, metavar="INT", help="test clips [200]")
    parser.add_argument("--workers", type=positive, default=2, metavar="INT", help="threads that write clips [2]")
    options = parser.parse_args(list(argv))

    from mover.data.synthetic import generate

    manifest = generate(
        options.out,
        train=options.train,
        validation=options.val,
        test=options.test,
        seed=options.seed,
        workers=options.workers,
        progress=sys.stderr.isatty(),
    )
    print(f"{options.train} training, {options.val} validation and {options.test} test clips: {manifest}")
    return 0
