"""`mover embed`: the embeddings of a split, by the model of a checkpoint, in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mover.cli.parser import Parser, non_negative, positive

if TYPE_CHECKING:
    from mover.evaluate.embed_checkpoint import Written

_DESCRIPTION = """\
Embed every clip and every caption of a split with the model of a checkpoint, into one file: .npz, .safetensors or
.parquet, as its name ends. The file holds ids, rows, whose caption is whose, who lacks what, class labels, and where
all of it comes from.

  mover embed --checkpoint runs/demo/checkpoints/best --out demo.npz
  mover embed --checkpoint runs/demo/checkpoints/best --split val --out val.parquet

Rows go to disk as they come, to the folder FILE.part. A run that was stopped, by Ctrl-C or a crash, goes on from there
when the same command is given again, and ends in the same file. A file that is up to date is left as it is; one that
was made of something else is replaced only with --overwrite."""


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(list(argv))

    import torch
    from rich.console import Console

    from mover.evaluate.embed_checkpoint import embed_to_file
    from mover.evaluate.embed_stream import Interrupted

    def say(text: str) -> None:
        print(text, flush=True)

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        written = embed_to_file(
            options.checkpoint, options.out, manifest=options.manifest, split=options.split, missing=options.missing,
            device=options.device, batch_size=options.batch_size, workers=options.workers,
            overwrite=options.overwrite, progress=Console(stderr=True).is_terminal, say=say,
        )  # fmt: skip
    except Interrupted as stopped:
        return 128 + stopped.signum
    say(_summary(written))
    return 0


def _summary(written: Written) -> str:
    """What is in the file, and who lacks what."""
    state = "written" if written.fresh else "up to date, nothing to do"
    text = f"{written.path}: {state}: {written.clips} clips, {written.captions} captions, d = {written.width}"
    text += f"; {', '.join(written.without)}"
    text += "".join(f"; {count} clips without {m}" for m, count in written.without.items() if count)
    bad = {m: count for m, count in (written.unusable or {}).items() if count}
    return text + "".join(f"; {count} {m} rows zero or not finite" for m, count in bad.items())


def _parser() -> Parser:
    parser = Parser(
        prog="mover embed", description=_DESCRIPTION, usage="mover embed --checkpoint DIR --out FILE [OPTION …]"
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="DIR", help="a checkpoint: runs/NAME/checkpoints/best"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .npz, .safetensors or .parquet file")
    parser.add_argument("--overwrite", action="store_true", help="embed again, and replace what is there")
    data = parser.add_argument_group("data (default: as the run was configured)")
    data.add_argument("--manifest", type=Path, metavar="FILE", help="another manifest")
    data.add_argument("--split", metavar="NAME", help="another split than the test split")
    data.add_argument(
        "--missing", choices=("mask", "drop", "fail"),
        help="clips that lack a modality, or whose media cannot be read: fail, stop there; drop or mask, keep them in "
        "the file, marked as without it; mask also does without a modality that no clip has [the run's]",
    )  # fmt: skip
    how = parser.add_argument_group("how")
    how.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N [auto]")
    how.add_argument("--batch-size", type=positive, metavar="INT", help="clips encoded at once [the run's]")
    how.add_argument("--threads", type=positive, metavar="INT", help="CPU threads that compute [all cores]")
    how.add_argument("--workers", type=non_negative, metavar="INT", help="threads that read media [the run's]")
    return parser
