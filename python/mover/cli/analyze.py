"""`mover analyze`: an embedding space in numbers, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mover.cli.parser import Parser, non_negative, positive
from mover.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from mover.evaluate.embeddings import Embeddings

_DESCRIPTION = """\
How an embedding space is laid out, measured in the space itself with cosines: whether modalities and classes lie apart
(silhouettes), the gap between modalities, alignment and uniformity, effective rank, volumes of matched rows, cosines of
texts with the centres of their clips and classes, classes of nearest neighbours, and k-means (NMI, ARI). Whatever needs
classes is left out without labels. docs/analysis.md has the formulas.

  mover analyze runs/demo
  mover analyze other_system.npz --labels data/vggsound/manifest.jsonl --json space.json --tsne space.png

The picture is a t-SNE of the three most frequent classes: colour by class, marker by modality."""


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(list(argv))

    from rich.console import Console

    from mover.evaluate.analysis import analyse
    from mover.evaluate.embeddings_file import load_embeddings
    from mover.evaluate.sources import embeddings_path

    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    path = embeddings_path(options.source)
    embeddings = load_embeddings(path)
    if options.labels is not None:
        embeddings = _labelled(embeddings, options.labels, say)
    with console.status("analysing") as status:
        found = analyse(
            embeddings,
            sample=options.sample,
            seed=options.seed,
            progress=lambda what: status.update(f"analysing {what}"),
        )
    _show(found, str(path), console.print, say)
    if options.json is not None:
        _write(options.json, found, embeddings, path, options.labels)
        say(f"written to {options.json}")
    if options.tsne is not None:
        _draw(embeddings, options, str(options.source), say)
    return 0


def _labelled(embeddings: Embeddings, path: Path, say: Any) -> Embeddings:
    from mover.evaluate.labels import read_labels, with_labels

    got = with_labels(embeddings, read_labels(path), path)
    say(
        f"{path}: labels for {len(embeddings.ids) - got.without} of {len(embeddings.ids)} clips"
        + (f"; {got.strangers} more are of other clips" if got.strangers else "")
    )
    return got.embeddings


def _write(out: Path, found: Mapping[str, Any], embeddings: Embeddings, path: Path, labels: Path | None) -> None:
    import hashlib

    from mover.data.manifest import write_atomically

    ids = hashlib.sha256("\n".join(embeddings.ids).encode()).hexdigest()
    about = {"embeddings": str(path), "labels": None if labels is None else str(labels), "ids_sha256": ids}
    try:
        write_atomically(out, json.dumps({**about, **found}, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}. Name another file with --json.") from None


def _draw(embeddings: Embeddings, options: Any, title: str, say: Any) -> None:
    from mover.evaluate.tsne import project
    from mover.evaluate.tsne_picture import draw_tsne

    projection = project(embeddings, classes=options.classes, clips=options.tsne_clips, seed=options.seed)
    try:
        draw_tsne(projection, options.tsne, title)
    except OSError as error:
        raise UserError(f"{options.tsne} cannot be written: {error.strerror}. Name another file with --tsne.") from None
    of = "" if projection.clips == projection.listed else f" of {projection.listed}, drawn by chance"
    say(f"t-SNE of {len(projection.points)} rows of {projection.clips} clips{of}: {options.tsne}")


def _show(found: Mapping[str, Any], title: str, show: Any, say: Any) -> None:
    from mover.evaluate.analysis_tables import lines, tables

    about = found["classes"]
    without = f", {about['unlabelled']} clips without label" if about["unlabelled"] and about["count"] else ""
    alone = f", {about['of_one_clip']} of one clip only" if about["of_one_clip"] else ""
    what = f"{about['count']} classes{alone}{without}" if about["count"] else "no labels"
    say(f"{title}: {found['clips']} clips, {found['captions']} captions, {what}")
    table: Table
    for table in tables(found):
        show(table)
    for line in [*lines(found), *found["notes"]]:
        say(line)


def _classes(text: str) -> int | None:
    return None if text == "all" else positive(text)


def _parser() -> Parser:
    parser = Parser(prog="mover analyze", description=_DESCRIPTION, usage="mover analyze FILE|RUN …")
    parser.add_argument(
        "source", type=Path, metavar="FILE|RUN",
        help="embeddings (.npz, .safetensors, .parquet), or the folder of a run that was evaluated",
    )  # fmt: skip
    parser.add_argument(
        "--labels", type=Path, metavar="FILE",
        help="classes of the clips: a CSV file with the columns id and label, or a manifest (.jsonl) "
        "[those of the embeddings]",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here")
    parser.add_argument(
        "--sample", type=positive, default=5000, metavar="INT",
        help="clips at most for what grows with their square: uniformity, k-means, and the questions, not the "
        "candidates, of the neighbours [5000]",
    )  # fmt: skip
    parser.add_argument("--seed", type=non_negative, default=0, metavar="INT", help="of samples and t-SNE [0]")
    picture = parser.add_argument_group("picture")
    picture.add_argument("--tsne", type=Path, metavar="FILE", help="draw a t-SNE (PNG)")
    picture.add_argument(
        "--classes", type=_classes, default=3, metavar="INT|all", help="how many classes, the most frequent first [3]"
    )
    picture.add_argument(
        "--tsne-clips", type=positive, default=1000, metavar="INT", help="clips at most; more are sampled [1000]"
    )
    return parser
