"""`mover classify`: classes from embeddings."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mover.cli.parser import Parser, positive
from mover.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from mover.evaluate.embeddings import Embeddings

_DESCRIPTION = """\
Accuracy and macro F1 of classes on the test clips, for each modality and for all fused: by a linear probe, trained on
the training clips, its C chosen on the validation clips; and by the nearest text of a class, without training.

  mover classify runs/demo
  mover classify runs/demo --prompt "a {}" --prompt "there is a {}"
  mover classify --train a.npz --val b.npz --test c.npz

Of a run, the three splits are embedded by its best checkpoint and kept in its folder. Classes are the labels of the
manifest. Texts of classes are the mean of the training captions of each class, or with --prompt the names themselves.
docs/classification.md defines the numbers."""

_SPLITS = ("train", "validation", "test")


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(list(argv))
    _settle(options)

    from rich.console import Console

    from mover.evaluate.classify import classify
    from mover.evaluate.embed_stream import Interrupted

    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    try:
        paths = _paths(options, say, console.is_terminal)
    except Interrupted as stopped:
        return 128 + stopped.signum
    splits = {name: _read(path, options) for name, path in paths.items()}
    texts, source = _class_texts(options, splits)
    with console.status("classifying") as status:
        found = classify(
            splits["train"],
            splits["validation"],
            splits["test"],
            texts,
            progress=lambda what: status.update(f"classifying {what}"),
        )
    console.print(_table(found, str(options.run or paths["test"])))
    for line in (*_told(found, source), *found["notes"]):
        say(line)
    out = options.json or (_folder(options.run) / "classes.json" if options.run is not None else None)
    if out is not None:
        from mover.data.manifest import write_atomically

        about = {"embeddings": {name: str(path) for name, path in paths.items()}, "class_texts": source}
        try:
            write_atomically(out, json.dumps({**about, **found}, indent=1, allow_nan=False) + "\n")
        except OSError as error:
            raise UserError(f"{out} cannot be written: {error.strerror}. Name another file with --json.") from None
        say(f"written to {out}")
    return 0


def _settle(options: argparse.Namespace) -> None:
    files = [options.train, options.val, options.test]
    if options.run is not None and any(path is not None for path in files):
        raise UserError("Name a run, or three files of embeddings with --train, --val and --test: not both.")
    if options.run is None and not all(path is not None for path in files):
        raise UserError("Name a run, or a file of embeddings with each of --train, --val and --test.")
    if options.run is None and options.prompt:
        raise UserError("--prompt needs the text tower of a run: files of embeddings have none. Leave it out.")


def _folder(run: Path) -> Path:
    return run.parent.parent if run.parent.name == "checkpoints" else run


def _checkpoint(run: Path) -> Path:
    return run / "checkpoints" / "best" if (run / "checkpoints" / "best").is_dir() else run


def _paths(options: argparse.Namespace, say: Any, progress: bool) -> dict[str, Path]:
    """The files of the three splits; those of a run are made where they are not there or out of date."""
    if options.run is None:
        return dict(zip(_SPLITS, (options.train, options.val, options.test), strict=True))
    from mover.evaluate.embed_checkpoint import embed_to_file
    from mover.evaluate.embed_parts import OutOfDate
    from mover.train.checkpoint import find_checkpoint, load_checkpoint_config
    from mover.train.run_folder import RunFolder

    checkpoint, folder = _checkpoint(options.run), RunFolder(_folder(options.run))
    config = load_checkpoint_config(find_checkpoint(checkpoint))
    names = (config.data.train_split, config.data.validation_split, config.data.test_split)
    paths = {}
    for kind, split in zip(_SPLITS, names, strict=True):
        path = folder.of_split(folder.embeddings, split, config)
        missing = "mask" if kind == "train" and config.evaluate.missing == "fail" else None
        more: dict[str, Any] = {"split": split, "missing": missing, "device": options.device, "progress": progress}
        try:
            embed_to_file(checkpoint, path, **more, say=say)
        except OutOfDate:
            say(f"{path} was made of other weights, settings, clips or media: embedding anew")
            embed_to_file(checkpoint, path, **more, overwrite=True, say=say)
        paths[kind] = path
    return paths


def _read(path: Path, options: argparse.Namespace) -> Embeddings:
    from mover.evaluate.embeddings_file import load_embeddings
    from mover.evaluate.labels import read_labels

    embeddings = load_embeddings(path)
    if options.labels is None:
        return embeddings
    labels = read_labels(options.labels)
    return replace(embeddings, labels=tuple(labels.get(name, "") for name in embeddings.ids))


def _class_texts(options: argparse.Namespace, splits: Mapping[str, Embeddings]) -> tuple[Any, str | None]:
    """The texts of classes by prompts, None for those of captions; and where they come from."""
    if not options.prompt:
        return None, "mean of the training captions of the class" if "text" in splits["train"].modalities else None
    from mover.evaluate.class_texts import embed_class_names

    names = sorted({label for embeddings in splits.values() for label in embeddings.labels or () if label})
    vectors = embed_class_names(_checkpoint(options.run), names, options.prompt, options.device)
    return vectors, "; ".join(options.prompt)


def _table(found: Mapping[str, Any], title: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("classified by", overflow="fold", min_width=20)
    for column in ("probe", "95 %", "F1", "C", "text", "95 %", "F1", "N"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, row in found["inputs"].items():
        probe, text = row["probe"] or {}, row["nearest_text"] or {}
        cells = [
            _shown(probe.get("accuracy")), _between(probe.get("interval")), _shown(probe.get("macro_f1")),
            f"{probe['C']:g}" if probe else "–",
            _shown(text.get("accuracy")), _between(text.get("interval")), _shown(text.get("macro_f1")),
            str(row["clips"]["test"]),
        ]  # fmt: skip
        table.add_row(name, *cells)
    return table


def _told(found: Mapping[str, Any], source: str | None) -> list[str]:
    lines = [f"{found['classes']} classes in training; texts of classes: {source or 'none'}"]
    always = sorted({row["majority"] for row in found["inputs"].values() if row["majority"] is not None})
    if always:
        span = " to ".join(f"{value:.1f}" for value in dict.fromkeys((always[0], always[-1])))
        lines.append(f"accuracy of always saying the class that is most frequent in training: {span}")
    if found["not_trained"]:
        lines.append(f"test clips of classes that no training clip has: {', '.join(found['not_trained'])}")
    return lines


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _between(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else "–".join(f"{bound:.1f}" for bound in bounds)


def _parser() -> Parser:
    parser = Parser(prog="mover classify", description=_DESCRIPTION, usage="mover classify RUN …")
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="a run, its best checkpoint, or a checkpoint")
    files = parser.add_argument_group("or files of embeddings (.npz, .safetensors, .parquet)")
    for split, what in (("train", "training"), ("val", "validation"), ("test", "test")):
        files.add_argument(f"--{split}", type=Path, metavar="FILE", help=f"of the {what} clips")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE",
        help="classes of the clips: a CSV file with the columns id and label, or a manifest [those of the embeddings]",
    )  # fmt: skip
    parser.add_argument(
        "--prompt", action="append", metavar="TEXT",
        help="text of a class, {} for its name; several: their mean [the mean caption of the class in training]",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N [auto]")
    parser.add_argument("--threads", type=positive, metavar="INT", help="CPU threads that embed [all cores]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here [classes.json of the run]")
    return parser
