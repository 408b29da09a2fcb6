"""`mover synth`: make a data set by rule."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mover.cli.parser import Parser, non_negative, positive
from mover.errors import UserError

_DESCRIPTION = """\
Make a data set by rule, with a manifest. The same options give the same data; a folder that already holds them is left
as it is.

  mover synth --out data/demo
  mover synth --kind views --out data/views

clips: small clips drawn and played, written as mp4 files with captions in the form of MSR-VTT and AudioCaps.
views: feature vectors that are noisy views of one latent; runs on them take seconds.
digits: the handwritten digits that ship with scikit-learn, as images, with captions.
notes: the breast-cancer measurements that ship with scikit-learn, with notes that tell some of them.

docs/synthetic.md describes them."""

KINDS = {"clips": (1200, 200, 200), "views": (1000, 500, 500), "digits": (1197, 300, 300), "notes": (369, 100, 100)}
"""What there is, and how many training, validation and test clips it has unless told."""
_ONLY = {"stills": "clips", "workers": "clips", "views": "views", "noise": "views"}


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(list(argv))
    for name, kind in _ONLY.items():
        if getattr(options, name) is not None and options.kind != kind:
            raise UserError(f"--{name} belongs to --kind {kind}; the kind here is {options.kind}.")
    counts = dict(zip(("train", "validation", "test"), KINDS[options.kind], strict=True))
    given = {"train": options.train, "validation": options.val, "test": options.test}
    counts |= {split: count for split, count in given.items() if count is not None}
    manifest = _make(options, counts)
    train, validation, test = counts.values()
    print(f"{train} training, {validation} validation and {test} test clips: {manifest}")
    return 0


def _make(options: Any, counts: dict[str, int]) -> Path:
    if options.kind == "views":
        from mover.data.made.views import NOISE, make_views

        noise = NOISE if options.noise is None else options.noise
        return make_views(options.out, **counts, views=options.views or 3, noise=noise, seed=options.seed)
    if options.kind == "digits":
        from mover.data.made.digits import make_digits

        return make_digits(options.out, **counts, seed=options.seed)
    if options.kind == "notes":
        from mover.data.made.notes import make_notes

        return make_notes(options.out, **counts, seed=options.seed)
    from mover.data.synthetic import generate

    progress = sys.stderr.isatty()
    stills = bool(options.stills)
    return generate(
        options.out, **counts, seed=options.seed, workers=options.workers or 2, progress=progress, stills=stills
    )


def _deviation(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got '{text}'")
    return value


def _parser() -> Parser:
    parser = Parser(prog="mover synth", description=_DESCRIPTION, usage="mover synth --out DIR …")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--kind", choices=tuple(KINDS), default="clips", help="which data set [clips]")
    parser.add_argument("--seed", type=non_negative, default=0, metavar="INT", help="of everything drawn by chance [0]")
    for place, (split, what) in enumerate({"train": "training", "val": "validation", "test": "test"}.items()):
        defaults = ", ".join(f"{kind}: {counts[place]}" for kind, counts in KINDS.items())
        parser.add_argument(f"--{split}", type=positive, metavar="INT", help=f"{what} clips [{defaults}]")
    clips = parser.add_argument_group("kind clips")
    clips.add_argument(
        "--stills", action="store_true", default=None,
        help="a picture of each scene, at rest in another take, beside the clip: a fourth modality, still",
    )  # fmt: skip
    clips.add_argument("--workers", type=positive, metavar="INT", help="processes that write clips [2]")
    views = parser.add_argument_group("kind views")
    views.add_argument("--views", type=positive, metavar="INT", help="modalities, view1 to viewN [3]")
    views.add_argument(
        "--noise",
        type=_deviation,
        metavar="NUMBER",
        help="standard deviation of the noise of each view, beside 1 [0.5]",
    )
    return parser
