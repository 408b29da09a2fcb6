"""`mover import`: annotations and media of a public data set to a manifest."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mover.cli.parser import Parser, positive
from mover.errors import UserError

if TYPE_CHECKING:
    from mover.data.importers import Importer
    from mover.data.manifest import Clip

_DESCRIPTION = """\
Turn a data set's annotations and media files into a manifest, the one format that training and evaluation read.
Media files are found by name, <id>.<extension>, and are not opened or copied; clips without a file are kept and
counted. A tokenizer is trained on the training captions and put beside the manifest, unless one is there.

  mover import msrvtt --annotations msrvtt --media msrvtt/videos --out data/msrvtt/manifest.jsonl
  mover import vatex --help

data sets:
"""
_MAX_TOKENS = 512
"""Does not limit anything here: the vocabulary does not depend on it."""


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    from mover.data.importers import IMPORTERS

    listing = "\n".join(f"  {name:<12} {importer.title}" for name, importer in IMPORTERS.items())
    parser = Parser(
        prog="mover import",
        description=_DESCRIPTION + listing + "\n\nmover import NAME --help says which files of it are read.",
        usage="mover import NAME --annotations PATH --media DIR --out FILE …",
    )
    parser.add_argument("name", choices=list(IMPORTERS), metavar="NAME", help="the data set, before all options")
    importer = IMPORTERS[parser.parse_args(list(argv[:1])).name]
    options = parser_of(importer).parse_args(list(argv[1:]))
    chosen = {option.name: getattr(options, option.name) for option in importer.options}
    clips = importer(options.annotations, options.media, **chosen)
    try:
        _write(options.out, clips, options.vocab_size)
    except OSError as error:
        raise UserError(f"{options.out} cannot be written: {error.strerror}. Name another file.") from None
    print(f"{options.out}: {len(clips)} clips")
    expected = [m for m in ("video", "audio", "image") if any(clip.media(m) or m in clip.status for clip in clips)]
    for split, count in Counter(clip.split for clip in clips).items():
        rows = [clip for clip in clips if clip.split == split]
        captions = sum(len(clip.captions) for clip in rows)
        absent = {modality: sum(not clip.present(modality) for clip in rows) for modality in expected}
        gaps = "".join(f", {n} without {modality}" for modality, n in absent.items() if n)
        print(f"  {split}: {count} clips, {captions} captions{gaps}")
    return 0


def _write(out: Path, clips: Sequence[Clip], vocab_size: int) -> None:
    from mover.data.manifest import write_manifest
    from mover.data.tokenizer import Tokenizer

    write_manifest(out, clips)
    tokenizer = out.parent / "tokenizer.json"
    if not tokenizer.exists():
        training = [text for clip in clips if clip.split == "train" for text in clip.captions]
        everything = [text for clip in clips for text in clip.captions]
        Tokenizer.train(training or everything, _MAX_TOKENS, vocab_size).save(tokenizer)


def parser_of(importer: Importer) -> Parser:
    """The options that all importers have, and those that this one declares."""
    parser = Parser(
        prog=f"mover import {importer.name}",
        description=f"{importer.title}.\n\n{importer.guide}",
        usage=f"mover import {importer.name} --annotations PATH --media DIR --out FILE …",
    )
    parser.add_argument("--annotations", type=Path, required=True, metavar="PATH", help="annotation file or folder")
    parser.add_argument("--media", type=Path, required=True, metavar="DIR", help="folder with the media files")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="manifest to write (JSON lines)")
    own = parser.add_argument_group(f"options of {importer.name}") if importer.options else parser
    for option in importer.options:
        _add(own, option.name, option.help, option.choices, option.default, option.metavar)
    parser.add_argument("--vocab-size", type=positive, default=1000, metavar="INT", help="tokens to learn [1000]")
    return parser


def _add(
    parser: argparse._ActionsContainer,
    name: str,
    text: str,
    choices: tuple[str, ...],
    default: str | None,
    metavar: str | None,
) -> None:
    flag = f"--{name.replace('_', '-')}"
    if choices:
        parser.add_argument(
            flag, choices=choices, default=default, metavar="|".join(choices), help=f"{text} [{default}]"
        )
    elif metavar:
        parser.add_argument(flag, type=str if metavar == "NAME" else Path, default=default, metavar=metavar, help=text)
    else:
        parser.add_argument(flag, action="store_true", help=text)
