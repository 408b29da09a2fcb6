"""The embeddings of a split, by the model of a checkpoint, in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mover.data.manifest import read_manifest, select_split
from mover.evaluate.embed import EvaluationSet, embed
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.embeddings_file import load_embeddings, save_embeddings
from mover.train.checkpoint import (
    MODEL,
    find_checkpoint,
    load_checkpoint_config,
    load_checkpoint_model,
    load_checkpoint_tokenizer,
)
from mover.train.device import pick_device
from mover.train.frozen import serve_frozen_towers

Say = Callable[[str], None]


def embed_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    manifest: Path | None = None,
    split: str | None = None,
    missing: str | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
    say: Say = lambda text: None,
) -> Embeddings:
    """Embed a split with the model of a checkpoint, into a file.

    Args:
        checkpoint: a checkpoint folder, `runs/NAME/checkpoints/best`.
        out: the file to write, .npz, .safetensors or .parquet.
        manifest, split, missing, batch_size: in place of those of the checkpoint's configuration.
        device: auto, cpu, cuda or cuda:N.
        overwrite: replace what is at `out`.
        progress: whether to draw bars.
        say: takes a line about what is going on.

    Returns:
        what is in the file: all clips of the split, whatever `missing` is. Its provenance holds "checkpoint",
        "manifest", "split", "missing_policy", "left_out" (modality to id to reason, of what could not be used),
        "absent" (the modalities that no clip has, under "mask"; they are not in the file) and "anchor" (of the joint
        directions).

    Raises:
        UserError: no whole checkpoint, weights that do not fit, bad data, a clip that cannot be used under "fail".
    """
    folder = find_checkpoint(checkpoint)
    config = load_checkpoint_config(folder)
    split = split or config.data.test_split
    missing = missing or config.evaluate.missing
    data_config = config.data if manifest is None else config.data.model_copy(update={"manifest": manifest})
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
    found = embed(model, data, batch_size=size, device=where, precision=config.train.precision)
    about: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "weights_sha256": hashlib.sha256((folder / MODEL).read_bytes()).hexdigest(),
        "config": config.name,
        "manifest": str(data_config.manifest),
        "split": split,
        "missing_policy": missing,
        "left_out": {m: dict(sorted(reasons.items())) for m, reasons in data.skipped.items()},
        "absent": list(data.absent),
        "anchor": config.objective.anchor,
    }
    labels = tuple(clip.label or "" for clip in clips) if any(clip.label for clip in clips) else None
    save_embeddings(Embeddings(found.ids, found.vectors, found.text_owner, found.present, labels, about), out)
    for modality in data.absent:
        say(f"no clip has {modality}: its directions are left out")
    return load_embeddings(out)
