"""`mover evaluate`: Recall@K of a checkpoint or of an embeddings file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mover.cli.parser import Parser, positive
from mover.errors import UserError

_DESCRIPTION = """\
Recall@1, 5, 10, median and mean rank between text (T), video (V), audio (A) and modalities of other names. Single
modalities are compared by cosine; T2VA and VA2T use the volume that text and all the others span together. Clips and
captions that tie are counted by their expectation under random order. Every caption of a clip is used.

  mover evaluate --checkpoint runs/demo/checkpoints/best
  mover evaluate --embeddings other_system.npz

An embeddings file holds ids (N), text (C, d), text_owner (C), and video (N, d), audio (N, d) or arrays of any other
name of a-z, 0-9 and _; any two modalities will do. <modality>_present (N) says which clips have it; default: all."""


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(list(argv))
    if (options.checkpoint is None) == (options.embeddings is None):
        raise UserError("give either --checkpoint or --embeddings. See mover evaluate --help.")
    if options.anchor is not None and options.checkpoint is not None:
        raise UserError("--anchor goes with --embeddings, not --checkpoint: leave it out.")
    if options.embeddings is not None:
        unfit = ("manifest", "split", "batch_size", "save_embeddings", "threads")
        for name in unfit:
            if getattr(options, name) is not None:
                raise UserError(f"--{name.replace('_', '-')} goes with --checkpoint, not --embeddings: leave it out.")

    import torch
    from rich.console import Console

    from mover.evaluate.results import metrics_table
    from mover.evaluate.run import evaluate_checkpoint, evaluate_embeddings

    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.embeddings is not None:
        result = evaluate_embeddings(
            options.embeddings, missing=options.missing or "fail", anchor=options.anchor, device=options.device,
            out=options.out, say=say,
        )  # fmt: skip
    else:
        result = evaluate_checkpoint(
            options.checkpoint,
            manifest=options.manifest,
            split=options.split,
            missing=options.missing,
            device=options.device,
            batch_size=options.batch_size,
            out=options.out,
            embeddings_out=options.save_embeddings,
            progress=console.is_terminal,
            say=say,
        )
    console.print(metrics_table(result.metrics, str(options.embeddings or options.checkpoint)))
    say(_summary(result.meta))
    say(f"written to {result.path}")
    return 0


def _summary(meta: dict[str, Any]) -> str:
    """How many clips were ranked, and what happened to those that lack a modality."""
    without = ", ".join(f"{n} without {m}" for m, n in meta["without"].items() if n)
    text = f"{meta['clips']} clips with {meta['captions']} captions, missing: {meta['missing_policy']}"
    if meta["missing_policy"] == "drop":
        text += f"; {meta['listed'] - meta['clips']} of {meta['listed']} left out of every direction"
        return text + (f" ({without})" if without else "")
    if not without:
        return text
    text += f"; {without}: left out of the directions that need it"
    joint = meta["joint_score"] == "span"
    return text + (", the joint ones ranked by the distance from the span of what a clip has" if joint else "")


def _parser() -> Parser:
    parser = Parser(
        prog="mover evaluate", description=_DESCRIPTION, usage="mover evaluate (--checkpoint DIR | --embeddings FILE) …"
    )
    what = parser.add_argument_group("what to evaluate")
    what.add_argument("--checkpoint", type=Path, metavar="DIR", help="a checkpoint: runs/NAME/checkpoints/best")
    what.add_argument("--embeddings", type=Path, metavar="FILE", help="npz file of embeddings, from any system")
    data = parser.add_argument_group("data (with --checkpoint; default: as the run was configured)")
    data.add_argument("--manifest", type=Path, metavar="FILE", help="another manifest")
    data.add_argument("--split", metavar="NAME", help="another split than the test split")
    data.add_argument("--batch-size", type=positive, metavar="INT", help="clips encoded at once")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--missing", choices=("mask", "drop", "fail"),
        help="clips without a modality: mask, leave them out of the directions that need it; drop, leave them out of "
        "every direction; fail [the run's; else fail]",
    )  # fmt: skip
    how.add_argument(
        "--anchor", metavar="NAME",
        help="without text: the modality that the joint directions compare with all others [the run's; of a file, "
        "the first]",
    )  # fmt: skip
    how.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N [auto]")
    how.add_argument("--threads", type=positive, metavar="INT", help="CPU threads [all cores]")
    results = parser.add_argument_group("results")
    results.add_argument(
        "--out", type=Path, metavar="FILE",
        help="metrics as JSON [metrics.json in the run's folder, metrics-SPLIT.json for other splits; "
        "beside an embeddings file]",
    )  # fmt: skip
    results.add_argument("--save-embeddings", type=Path, metavar="FILE", help="keep the embeddings as npz")
    return parser
