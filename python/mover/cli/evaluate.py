"""`mover evaluate`: Recall@K of a run, a checkpoint or an embeddings file."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mover.cli.parser import Parser, positive
from mover.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from mover.evaluate.run import Result, Say

_DESCRIPTION = """\
Recall@1, 5, 10, 50, median and mean rank, MRR and mAP@10 with 95 % intervals, between text (T), video (V), audio (A)
and modalities of other names. Single modalities are compared by cosine; T2VA and VA2T use the volume that text and all
the others span together, and are told by the span and by the mean of cosines, too. Clips and captions that tie are
counted by their expectation under random order. Every caption of a clip is used.

  mover evaluate runs/demo                                     # the best checkpoint of a run
  mover evaluate --checkpoint runs/demo/checkpoints/last
  mover evaluate --embeddings other_system.npz --csv table.csv

An embeddings file is .npz, .safetensors or .parquet with ids (N), text (C, d), text_owner (C), and video (N, d),
audio (N, d) or arrays of any other name of a-z, 0-9 and _; any two modalities will do. <modality>_present (N) says
which clips have it; default: all. docs/evaluation.md defines the numbers."""

_TEMPERATURE = 0.01
_LONG = 1.0
"""Seconds after which ranking gets a bar."""


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(list(argv))
    _settle(options)

    import torch
    from rich.console import Console

    from mover.evaluate.results import metrics_table, write_csv, write_ranks
    from mover.evaluate.zero_shot import unseen_classes, zero_shot_table

    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    options.unseen = unseen_classes(options.unseen)
    with _Bars(console) as bars:
        result = _file(options, bars, say) if options.embeddings is not None else _checkpoint(options, bars, say)
    if isinstance(result, int):
        return result
    console.print(metrics_table(result.metrics, str(options.embeddings or options.checkpoint)))
    if options.unseen:
        console.print(zero_shot_table(result.metrics))
        say(f"unseen: {', '.join(options.unseen)}")
    say(_summary(result.meta))
    say(f"written to {result.path}")
    if options.csv is not None:
        write_csv(options.csv, result.metrics, result.meta)
        say(f"written to {options.csv}")
    if options.ranks is not None:
        write_ranks(options.ranks, result.embeddings, result.rankings)
        say(f"written to {options.ranks}")
    return 0


def _settle(options: argparse.Namespace) -> None:
    """Find out what to evaluate, and refuse options that do not go with it."""
    given = [options.what, options.checkpoint, options.embeddings]
    if sum(path is not None for path in given) != 1:
        raise UserError("name one run, checkpoint or embeddings file. See mover evaluate --help.")
    if options.what is not None:
        folder = options.what.is_dir() or not options.what.suffix
        options.checkpoint, options.embeddings = (options.what, None) if folder else (None, options.what)
    if options.checkpoint is not None:
        best = options.checkpoint / "checkpoints" / "best"
        if best.is_dir():
            options.checkpoint = best
        if options.anchor is not None:
            raise UserError("--anchor goes with an embeddings file, not with a checkpoint: leave it out.")
        return
    for name in ("manifest", "split", "batch_size", "save_embeddings"):
        if getattr(options, name) is not None:
            raise UserError(
                f"--{name.replace('_', '-')} goes with a checkpoint, not with an embeddings file: leave it out."
            )


def _file(options: argparse.Namespace, bars: _Bars, say: Say) -> Result:
    from mover.evaluate.run import evaluate_embeddings

    return evaluate_embeddings(
        options.embeddings, missing=options.missing or "fail", unusable=options.unusable or "fail",
        anchor=options.anchor, dual_softmax=options.dual_softmax, unseen=options.unseen, device=options.device,
        out=options.json, ranking=bars, say=say,
    )  # fmt: skip


def _checkpoint(options: argparse.Namespace, bars: _Bars, say: Say) -> Result | int:
    """The result; the exit code where it was interrupted."""
    from mover.evaluate.embed_stream import Interrupted
    from mover.evaluate.run import evaluate_checkpoint

    try:
        return evaluate_checkpoint(
            options.checkpoint,
            manifest=options.manifest,
            split=options.split,
            missing=options.missing,
            unusable=options.unusable or "last",
            dual_softmax=options.dual_softmax,
            unseen=options.unseen,
            device=options.device,
            batch_size=options.batch_size,
            out=options.json,
            embeddings_out=options.save_embeddings,
            progress=bars.shown,
            ranking=bars,
            say=say,
        )
    except Interrupted as stopped:
        return 128 + stopped.signum


class _Bars:
    """A bar for each comparison, on a terminal and where ranking takes longer than a moment."""

    def __init__(self, console: Console) -> None:
        self.shown = console.is_terminal
        self._console = console
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._begun: float | None = None

    def __call__(self, name: str, share: float) -> None:
        self._begun = self._begun or time.monotonic()
        if not self.shown or (self._bars is None and time.monotonic() - self._begun < _LONG):
            return
        if self._bars is None:
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            columns = TextColumn("ranking {task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
            self._bars = Progress(*columns, console=self._console, transient=True)
            self._bars.start()
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=1.0)
        self._bars.update(self._tasks[name], completed=share)

    def __enter__(self) -> _Bars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()


def _summary(meta: dict[str, Any]) -> str:
    """How many clips were ranked, and what happened to those that lack a modality."""
    without = ", ".join(f"{n} without {m}" for m, n in meta["without"].items() if n)
    text = f"{meta['clips']} clips with {meta['captions']} captions, missing: {meta['missing_policy']}"
    text += f", unusable rows: {meta['unusable_policy']}, ids {meta['ids_sha256'][:12]}"
    if meta["missing_policy"] == "drop":
        text += f"; {meta['listed'] - meta['clips']} of {meta['listed']} left out of every direction"
        return text + (f" ({without})" if without else "")
    if not without:
        return text
    text += f"; {without}: left out of the directions that need it"
    joint = meta["joint_score"] == "span"
    return text + (", the joint ones ranked by the distance from the span of what a clip has" if joint else "")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"expected names of classes, got '{text}'")
    return names


def _parser() -> Parser:
    parser = Parser(
        prog="mover evaluate", description=_DESCRIPTION, usage="mover evaluate RUN|CHECKPOINT|FILE [OPTION …]"
    )
    what = parser.add_argument_group("what to evaluate: one of")
    what.add_argument("what", type=Path, nargs="?", metavar="RUN|CHECKPOINT|FILE", help="which it is is found out")
    what.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="a checkpoint, runs/NAME/checkpoints/best, or a run: its best one",
    )
    what.add_argument("--embeddings", type=Path, metavar="FILE", help="a file of embeddings, from any system")
    data = parser.add_argument_group("data (with a checkpoint; default: as the run was configured)")
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
        "--unusable", choices=("fail", "last", "missing"),
        help="rows that are zero or not finite: fail; last, they rank last; missing, they count as not there [last; of "
        "a file, fail]",
    )  # fmt: skip
    how.add_argument(
        "--anchor", metavar="NAME",
        help="without text: the modality that the joint directions compare with all others [the run's; of a file, "
        "the first]",
    )  # fmt: skip
    how.add_argument(
        "--dual-softmax", type=float, nargs="?", const=_TEMPERATURE, metavar="TEMPERATURE",
        help="in addition, rank by scores times their softmax over all queries, at a temperature "
        f"[{_TEMPERATURE} if none is given]; labelled +dsl, since it uses the whole set of queries",
    )  # fmt: skip
    how.add_argument(
        "--unseen", type=_names, default=(), metavar="CLASS,…|MANIFEST",
        help="classes that were not trained on, or the manifest that says which (mover derive --unseen): R@1 of their "
        "queries, of the others, and the harmonic mean, all among all candidates",
    )  # fmt: skip
    how.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N [auto]")
    how.add_argument("--threads", type=positive, metavar="INT", help="CPU threads [all cores]")
    results = parser.add_argument_group("results")
    results.add_argument(
        "--json", type=Path, metavar="FILE",
        help="metrics as JSON [metrics.json in the run's folder, metrics-SPLIT.json for other splits; "
        "FILE.metrics.json beside an embeddings file]",
    )  # fmt: skip
    results.add_argument("--csv", type=Path, metavar="FILE", help="the table as comma-separated values")
    results.add_argument("--ranks", type=Path, metavar="FILE", help="the rank of every query, comma-separated")
    results.add_argument(
        "--save-embeddings", type=Path, metavar="FILE",
        help="keep the embeddings there, as .npz, .safetensors or .parquet [beside metrics.json, embeddings.npz]",
    )  # fmt: skip
    return parser
