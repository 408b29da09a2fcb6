"""`mover import`: annotations and media of a public data set to a manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mover.cli.parser import Parser, positive
from mover.errors import UserError

_DESCRIPTION = """\
Turn a data set's annotations and media files into a manifest, the one format that training and evaluation read.
Media files are found by name, <id>.<extension>, and are not opened or copied. A tokenizer is trained on the training
captions and put beside the manifest, unless one is there.

  mover import msrvtt --annotations MSRVTT_data.json --media videos --out data/msrvtt/manifest.jsonl \\
      --split-list train=MSRVTT_train.9k.csv --split-list test=MSRVTT_JSFUSION_test.csv
  mover import audiocaps --annotations audiocaps --media audio --out data/audiocaps/manifest.jsonl"""

_FORMATS = ("audiocaps", "msrvtt")
_MAX_TOKENS = 512
"""Does not limit anything here: the vocabulary does not depend on it."""


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(list(argv))

    from mover.data.importers import IMPORTERS
    from mover.data.manifest import write_manifest
    from mover.data.tokenizer import Tokenizer

    clips = IMPORTERS[options.format](options.annotations, options.media, **_importer_options(options))
    write_manifest(options.out, clips)
    tokenizer = options.out.parent / "tokenizer.json"
    if not tokenizer.exists():
        training = [text for clip in clips if clip.split == "train" for text in clip.captions]
        everything = [text for clip in clips for text in clip.captions]
        Tokenizer.train(training or everything, _MAX_TOKENS, options.vocab_size).save(tokenizer)

    print(f"{options.out}: {len(clips)} clips")
    for split, count in Counter(clip.split for clip in clips).items():
        rows = [clip for clip in clips if clip.split == split]
        captions = sum(len(clip.captions) for clip in rows)
        absent = {m: sum(not clip.present(m) for clip in rows) for m in ("video", "audio")}
        gaps = "".join(f", {n} without {m}" for m, n in absent.items() if n)
        print(f"  {split}: {count} clips, {captions} captions{gaps}")
    return 0


def _importer_options(options: Any) -> dict[str, Any]:
    """The keyword arguments of the importer; an option of another format is an error."""
    given: dict[str, Any] = {}
    of_msrvtt = {"--split-list": options.split_list, "--audio": options.audio}
    for name, value in of_msrvtt.items():
        if value and options.format != "msrvtt":
            raise UserError(f"{name} goes with msrvtt, not with {options.format}: leave it out.")
    if options.untrimmed and options.format != "audiocaps":
        raise UserError(f"--untrimmed goes with audiocaps, not with {options.format}: leave it out.")
    if options.split_list:
        lists = {}
        for entry in options.split_list:
            split, equals, path = entry.partition("=")
            if not (split and equals and path):
                raise UserError(f"--split-list: expected SPLIT=FILE, for instance test=list.csv, got '{entry}'.")
            lists[split] = Path(path)
        given["split_lists"] = lists
    if options.audio:
        given["audio"] = options.audio
    if options.untrimmed:
        given["untrimmed"] = True
    return given


def _parser() -> Parser:
    parser = Parser(
        prog="mover import", description=_DESCRIPTION,
        usage="mover import FORMAT --annotations PATH --media DIR --out FILE …",
    )  # fmt: skip
    parser.add_argument("format", choices=_FORMATS, metavar="FORMAT", help=f"one of {', '.join(_FORMATS)}")
    parser.add_argument("--annotations", type=Path, required=True, metavar="PATH", help="annotation file or folder")
    parser.add_argument("--media", type=Path, required=True, metavar="DIR", help="folder with the media files")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="manifest to write (JSON lines)")
    parser.add_argument(
        "--split-list", action="append", metavar="SPLIT=FILE",
        help="msrvtt: CSV with a column video_id; repeat per split. Clips in no list are left out",
    )  # fmt: skip
    parser.add_argument("--audio", type=Path, metavar="DIR", help="msrvtt: folder of separate audio files")
    parser.add_argument("--untrimmed", action="store_true", help="audiocaps: the files are whole uploads, to be cut")
    parser.add_argument("--vocab-size", type=positive, default=1000, metavar="INT", help="tokens to learn [1000]")
    return parser
