"""`mover derive`: a manifest made from another."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mover.cli.parser import Parser, non_negative, positive
from mover.errors import UserError

if TYPE_CHECKING:
    from mover.data.clip import Clip
    from mover.data.derive import Changes

_DESCRIPTION = """\
Make a manifest from another, for studies: with classes held out of training, modalities taken away, captions shared or
exchanged. Only training clips are changed; those of other splits are marked as seen or unseen at most. No media are
copied. The same options give the same manifest.

  mover derive data/demo/manifest.jsonl --mismatched 0.4 --out data/demo/mismatched.jsonl
  mover derive data/demo/manifest.jsonl --unseen circle,ring --out data/demo/unseen.jsonl
  mover derive data/demo/manifest.jsonl --without audio=0.5,text=0.5 --out data/demo/pivot.jsonl

docs/derive.md says what each of them does. Several can be combined; they happen in the order of this help."""


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(list(argv))

    from mover.data.derive import Changes, derive
    from mover.data.manifest import read_manifest, write_manifest

    changes = Changes(
        unseen=tuple(options.unseen or ()),
        unseen_share=options.unseen_share,
        without=dict(options.without or []),
        shared_captions=options.shared_captions,
        mismatched=dict(options.mismatched or []),
        train_split=options.train_split,
        seed=options.seed,
    )
    if changes == Changes(train_split=options.train_split, seed=options.seed):
        raise UserError(
            "Nothing would be changed: give --unseen, --unseen-share, --without, --shared-captions or --mismatched."
        )
    if os.path.realpath(options.manifest) == os.path.realpath(options.out):
        raise UserError(f"{options.out} is the manifest that is read. Name another file with --out.")
    before = read_manifest(options.manifest)
    after = derive(before, changes)
    try:
        write_manifest(options.out, after)
    except OSError as error:
        raise UserError(f"{options.out} cannot be written: {error.strerror}. Name another file with --out.") from None
    for line in _told(before, after, changes):
        print(line)
    print(f"{len(after)} clips: {options.out}")
    tokenizer = options.manifest.parent / "tokenizer.json"
    if tokenizer.exists() and not (options.out.parent / "tokenizer.json").exists():
        print(f"train with data.tokenizer={tokenizer}, which lies beside the old manifest only")
    return 0


def _told(before: Sequence[Clip], after: Sequence[Clip], changes: Changes) -> list[str]:
    """What was done, a line each."""
    from mover.data.derive import UNSEEN
    from mover.data.mismatch import MISMATCHED

    split = changes.train_split
    training = [clip for clip in after if clip.split == split]
    lines = []
    if changes.unseen or changes.unseen_share is not None:
        held = sorted({str(clip.label) for clip in after if clip.extra.get(UNSEEN) is True and clip.split != split})
        dropped = [clip for clip in before if clip.split == split and (clip.label is None or clip.label in held)]
        lines.append(f"unseen classes ({len(held)}): {', '.join(held)}; {len(dropped)} training clips dropped")
        unlabelled = sum(clip.label is None for clip in dropped)
        if unlabelled:
            lines.append(f"  {unlabelled} of them have no label and might be of any class")
    for name in changes.without:
        lines.append(f"{sum(not clip.present(name) for clip in training)} of {len(training)} lack {name}")
    if changes.shared_captions > 1:
        groups = len({clip.extra["captions_of"] for clip in training if "captions_of" in clip.extra})
        lines.append(f"{sum(bool(clip.captions) for clip in training)} training clips have the captions of {groups}")
    for name in changes.mismatched:
        wrong = sum(name in clip.extra.get(MISMATCHED, {}) for clip in training)
        lines.append(f"{wrong} of {len(training)} training clips have {name} of another")
    return lines


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0 and at most 1, got '{text}'")
    return value


def _shares(text: str) -> list[tuple[str, float]]:
    """audio=0.5,text=0.5."""
    pairs = []
    for word in text.split(","):
        name, equals, share = word.strip().partition("=")
        if not name or not equals:
            raise argparse.ArgumentTypeError(f"expected MODALITY=SHARE, got '{word.strip()}'")
        pairs.append((name, _share(share)))
    if len(dict(pairs)) < len(pairs):
        raise argparse.ArgumentTypeError(f"a modality is named twice in '{text}'")
    return pairs


def _text_or_shares(text: str) -> list[tuple[str, float]]:
    """0.4 is text=0.4."""
    return _shares(text) if "=" in text else [("text", _share(text))]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _parser() -> Parser:
    parser = Parser(prog="mover derive", description=_DESCRIPTION, usage="mover derive MANIFEST --out FILE …")
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="manifest to begin with")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="manifest to write")
    parser.add_argument("--train-split", default="train", metavar="NAME", help="the training clips [train]")
    parser.add_argument("--seed", type=non_negative, default=0, metavar="INT", help="of everything drawn by chance [0]")
    what = parser.add_argument_group("changes")
    what.add_argument("--unseen", type=_names, metavar="CLASS,…", help="classes to hold out of training")
    what.add_argument("--unseen-share", type=_share, metavar="SHARE", help="or the share of the classes, by chance")
    what.add_argument(
        "--without", type=_shares, metavar="MODALITY=SHARE,…", help="shares of the training clips that lose a modality"
    )
    what.add_argument(
        "--shared-captions", type=positive, default=1, metavar="INT",
        help="so many training clips of a class have the same captions [1]",
    )  # fmt: skip
    what.add_argument(
        "--mismatched", type=_text_or_shares, metavar="SHARE|MODALITY=SHARE,…",
        help="share of the training clips that have the captions, or the media, of another",
    )  # fmt: skip
    return parser
