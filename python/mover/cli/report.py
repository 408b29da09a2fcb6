"""`mover report`: one self-contained HTML page about a run, or about an embeddings file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mover.cli.parser import Parser, non_negative, positive
from mover.errors import UserError

_DESCRIPTION = """\
Write one HTML page, complete in itself: retrieval numbers with their intervals, ranks, training curves, transport plans
over training, volumes of matched and unmatched groups, the embedding space, and what retrieval finds for some queries,
worst failures first. It needs no network, and opens in any browser.

  mover report runs/demo
  mover report other_system.npz --manifest data/msrvtt/manifest.jsonl

Of a run, embeddings.npz and metrics.json in its folder are used if they are there and of its best checkpoint; else the
checkpoint embeds the split first. Of an embeddings file, sections for which nothing is known are left out."""


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(list(argv))
    source: Path = options.source
    alone = source.is_file()
    if not alone and not source.is_dir():
        raise UserError(f"{source} does not exist: give the folder of a run, runs/NAME, or an embeddings file.")
    for name, fits in (("split", not alone), ("missing", alone), ("unusable", alone), ("anchor", alone)):
        if getattr(options, name) is not None and not fits:
            raise UserError(f"--{name} goes with {'an embeddings file' if not alone else 'a run'}: leave it out.")

    import torch
    from rich.console import Console

    from mover.evaluate.embed_stream import Interrupted
    from mover.report.material import of_file, of_run
    from mover.report.page import build_report, write_page

    def say(text: str) -> None:
        print(text, flush=True)

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    progress = Console(stderr=True).is_terminal
    if alone:
        material = of_file(
            source, missing=options.missing or "fail", unusable=options.unusable or "fail", anchor=options.anchor,
            manifest=options.manifest, device=options.device,
        )  # fmt: skip
        out = options.out or source.with_suffix(".report.html")
    else:
        try:
            material = of_run(
                source, split=options.split, manifest=options.manifest, device=options.device, progress=progress,
                say=say,
            )  # fmt: skip
        except Interrupted as stopped:
            return 128 + stopped.signum
        out = options.out or source / ("report.html" if options.split is None else f"report-{options.split}.html")
    page = build_report(material, queries=options.queries, seed=options.seed, progress=progress, say=say)
    write_page(page, out)
    say(f"written to {out} ({len(page.encode()) / 1e6:.1f} MB): open it in a browser")
    return 0


def _parser() -> Parser:
    parser = Parser(prog="mover report", description=_DESCRIPTION, usage="mover report (RUN | FILE) …")
    parser.add_argument("source", type=Path, metavar="RUN|FILE", help="the folder of a run, or an embeddings file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="[report.html in the run's folder; beside a file]")
    data = parser.add_argument_group("data")
    data.add_argument("--split", metavar="NAME", help="of a run: another split than the test split")
    data.add_argument(
        "--manifest", type=Path, metavar="FILE",
        help="where captions and media are: of a run, where its manifest lies now [where it was]; of a file, a "
        "manifest with its ids [none: clips go by their ids]",
    )  # fmt: skip
    data.add_argument(
        "--missing", choices=("mask", "drop", "fail"),
        help="of a file, clips without a modality: mask, leave them out of the directions that need it; drop, leave "
        "them out of every direction; fail [fail]",
    )  # fmt: skip
    data.add_argument(
        "--unusable", choices=("fail", "last", "missing"),
        help="of a file, rows that are zero or not finite: refuse them, rank them last, or take them as missing [fail]",
    )  # fmt: skip
    data.add_argument(
        "--anchor", metavar="NAME",
        help="of a file without text: the modality that the joint directions compare with all others [the first]",
    )  # fmt: skip
    page = parser.add_argument_group("page")
    page.add_argument("--queries", type=non_negative, default=24, metavar="INT", help="queries in the gallery [24]")
    page.add_argument("--seed", type=non_negative, default=0, metavar="INT", help="of what is drawn at random [0]")
    how = parser.add_argument_group("how")
    how.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N [auto]")
    how.add_argument("--threads", type=positive, metavar="INT", help="CPU threads [all cores]")
    return parser
