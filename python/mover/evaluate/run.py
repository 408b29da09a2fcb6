"""Evaluation from a checkpoint or an embeddings file to metrics.json. What `mover evaluate` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mover.config import Config, DataConfig
from mover.data.manifest import read_manifest, select_split
from mover.errors import UserError
from mover.evaluate.embed import EvaluationSet, embed
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.embeddings_file import load_embeddings, save_embeddings
from mover.evaluate.metrics import retrieval_metrics
from mover.evaluate.results import provenance, write_metrics
from mover.train.checkpoint import (
    find_checkpoint,
    load_checkpoint_config,
    load_checkpoint_model,
    load_checkpoint_tokenizer,
)
from mover.train.device import pick_device
from mover.train.frozen import serve_frozen_towers

Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """metrics: direction to values. meta: where they come from. path: the metrics.json written."""

    metrics: dict[str, dict[str, float]]
    meta: dict[str, Any]
    path: Path


def evaluate_checkpoint(
    checkpoint: Path,
    *,
    manifest: Path | None = None,
    split: str | None = None,
    missing: str | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    out: Path | None = None,
    embeddings_out: Path | None = None,
    progress: bool = False,
    say: Say = lambda text: None,
) -> Result:
    """Embed a split with the model of a checkpoint, rank, and write metrics.json.

    Args:
        checkpoint: a checkpoint folder, `runs/NAME/checkpoints/best`.
        manifest, split, missing, batch_size: in place of those of the checkpoint's configuration.
        device: auto, cpu, cuda or cuda:N.
        out: the file to write; default: metrics.json in the folder of the run, for another split than the test
            split metrics-SPLIT.json.
        embeddings_out: where to keep the embeddings (npz); default: nowhere.
        progress: whether to draw a bar while media are decoded into memory.
        say: takes a line about what is going on.

    Raises:
        UserError: no whole checkpoint, weights that do not fit, bad data, a clip that cannot be used under "fail".
    """
    folder = find_checkpoint(checkpoint)
    config = load_checkpoint_config(folder)
    split = split or config.data.test_split
    missing = missing or config.evaluate.missing
    data_config = _data(config, manifest)
    where = pick_device(device)

    tokenizer = load_checkpoint_tokenizer(folder, config)
    vocab_size = None if tokenizer is None else tokenizer.vocab_size
    model = load_checkpoint_model(folder, config, data_config, vocab_size).to(where)

    clips = select_split(read_manifest(data_config.manifest), split)
    data = EvaluationSet(
        clips, data_config, config.modalities, tokenizer,
        missing=missing, progress=progress, others=config.model.others,
    )  # fmt: skip
    say(f"{folder}: embedding {len(clips)} clips of {data_config.manifest}, split {split}, on {where}")
    every = list(data.datasets.values())
    serve_frozen_towers(model, config, every, tokenizer, where, progress=progress, say=say)
    size = batch_size or config.evaluate.batch_size
    embeddings = embed(model, data, batch_size=size, device=where, precision=config.train.precision)
    if embeddings_out is not None:
        save_embeddings(embeddings, embeddings_out)

    meta = {
        "checkpoint": str(checkpoint),
        "manifest": str(data_config.manifest),
        "split": split,
        "left_out": {m: dict(sorted(reasons.items())) for m, reasons in data.skipped.items()},
    }
    if out is None:
        run = checkpoint.absolute().parent.parent if checkpoint.absolute().parent.name == "checkpoints" else checkpoint
        out = run / ("metrics.json" if split == config.data.test_split else f"metrics-{split}.json")
    for modality in data.absent:
        say(f"no clip has {modality}: its directions are left out")
    return _finish(embeddings, missing, where, out, meta, say, config.objective.anchor, data.absent)


def evaluate_embeddings(
    path: Path,
    *,
    missing: str = "fail",
    anchor: str | None = None,
    device: str = "auto",
    out: Path | None = None,
    say: Say = lambda text: None,
) -> Result:
    """Rank the embeddings of an npz file (see `mover.evaluate.embeddings`) and write the metrics.

    Args:
        path: the file, whoever made it.
        missing: "fail": refuse clips without a modality; "drop": leave them out of every direction; "mask": use them in
            the directions for which they have what is needed.
        anchor: the modality that the joint directions compare with all others, where there is no text; default: the
            first.
        device: auto, cpu, cuda or cuda:N.
        out: the file to write; default: beside `path`, with the ending .metrics.json.
        say: takes a line about what is going on.

    Raises:
        UserError: a bad file, a clip without a modality under "fail", or an anchor that does not fit.
    """
    embeddings = load_embeddings(path)
    if anchor is not None and "text" in embeddings.modalities:
        raise UserError(f"{path} has text, and joint directions then compare text with all others: leave --anchor out.")
    if missing == "fail":
        for modality in embeddings.modalities:
            without = embeddings.missing(modality)
            if without:
                raise UserError(
                    f"{path}: {len(without)} of {len(embeddings.ids)} clips have no {modality}, first '{without[0]}': "
                    "leave them out of every direction with --missing drop, or of those that need it with "
                    "--missing mask."
                )
    out = out or path.with_suffix(".metrics.json")
    return _finish(embeddings, missing, pick_device(device), out, {"embeddings": str(path)}, say, anchor)


def _finish(
    listed: Embeddings,
    missing: str,
    device: torch.device,
    out: Path,
    meta: dict[str, Any],
    say: Say,
    anchor: str | None,
    absent: Sequence[str] = (),
) -> Result:
    """Rank what the policy leaves; `absent`: modalities of the run that are not among those listed."""
    embeddings = listed.under(missing)
    if not embeddings.ids:
        raise UserError(
            f"None of {len(listed.ids)} clips has all of {', '.join(listed.modalities)}: nothing is left under "
            "missing drop. Take mask, or leave a modality out of the run."
        )
    for modality in embeddings.modalities:
        bad = embeddings.unusable(modality)
        if bad:
            say(f"{len(bad)} clips have a {modality} row that is zero or not finite and ranks last, first '{bad[0]}'")
    anchor = anchor if anchor in embeddings.modalities or not absent else None
    metrics = retrieval_metrics(embeddings, device, anchor=anchor)
    if not metrics:
        raise UserError("No clip has two modalities: there is nothing to rank.")
    meta = {**meta, **provenance(listed, missing, anchor)}
    meta["without"] |= dict.fromkeys(absent, len(listed.ids))
    write_metrics(out, metrics, meta)
    return Result(metrics, meta, out)


def _data(config: Config, manifest: Path | None) -> DataConfig:
    return config.data if manifest is None else config.data.model_copy(update={"manifest": manifest})
