"""The embeddings of a split, by the model of a checkpoint, in a file. What `mover embed` does.

The rows go to disk as they come: an interrupted run goes on where it was, to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mover
from mover.config import Config, DataConfig
from mover.data.clip import Clip
from mover.data.manifest import read_manifest, select_split
from mover.data.tokenizer import Tokenizer
from mover.errors import UserError
from mover.evaluate.embed import EvaluationSet
from mover.evaluate.embed_inputs import computation_of, differences, identity, inputs_of, media_states, weights_hash
from mover.evaluate.embed_parts import Basis, OutOfDate, Parts, sweep
from mover.evaluate.embed_stream import resumed, stream
from mover.evaluate.embeddings import Embeddings, ids_hash, unusable_rows
from mover.evaluate.embeddings_content import Content
from mover.evaluate.embeddings_file import format_of, load_embeddings, load_provenance, write_content
from mover.models.model import MoverModel
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
class Written:
    """A file of embeddings. fresh: False where it was there and up to date.

    clips, captions, width: N, C and d. without: modality to how many clips lack it. unusable: modality to how many rows
    are zero or not finite, of those that are there; None where the file was up to date and its rows were not read.
    """

    path: Path
    fresh: bool
    clips: int
    captions: int
    width: int
    without: Mapping[str, int]
    unusable: Mapping[str, int] | None


def embed_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    manifest: Path | None = None,
    split: str | None = None,
    missing: str | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
    say: Say = lambda text: None,
) -> Embeddings:
    """Like `embed_to_file`, and read the file.

    Returns:
        all clips of the split, whatever `missing` is. The provenance holds "checkpoint", "manifest", "split",
        "missing_policy", "left_out" (modality to id to reason, of what could not be used), "absent" (the modalities
        that no clip has, under "mask"; they are not in the file) and "anchor" (of the joint directions), among others.
    """
    embed_to_file(
        checkpoint, out, manifest=manifest, split=split, missing=missing, device=device, batch_size=batch_size,
        workers=workers, overwrite=overwrite, progress=progress, say=say,
    )  # fmt: skip
    return load_embeddings(out)


def embed_to_file(
    checkpoint: Path,
    out: Path,
    *,
    manifest: Path | None = None,
    split: str | None = None,
    missing: str | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
    say: Say = lambda text: None,
) -> Written:
    """Embed a split with the model of a checkpoint, into a file. An interrupted call goes on where it was.

    Args:
        checkpoint: a checkpoint folder, `runs/NAME/checkpoints/best`.
        out: the file to write, .npz, .safetensors or .parquet. Until it is whole, its rows are in the folder OUT.part.
        manifest, split, missing, batch_size, workers: in place of those of the checkpoint's configuration.
        device: auto, cpu, cuda or cuda:N.
        overwrite: embed again what is at `out`, and start anew where OUT.part belongs to something else. Without it, a
            file that was made from the same weights, settings, clips and media is left as it is.
        progress: whether to draw bars; otherwise a line now and then.
        say: takes a line about what is going on.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came, and what was done is kept.
        UserError: no whole checkpoint, weights that do not fit, bad data, a clip that cannot be used under "fail", a
            file in the way, or no room.
    """
    format_of(out)
    folder = find_checkpoint(checkpoint)
    config = load_checkpoint_config(folder)
    data = _data(config, manifest, workers)
    split = split or config.data.test_split
    job = _Job(
        folder, checkpoint, config, data, split, select_split(read_manifest(data.manifest), split),
        load_checkpoint_tokenizer(folder, config), missing or config.evaluate.missing, pick_device(device),
        batch_size or config.evaluate.batch_size,
    )  # fmt: skip
    found = identity(folder)
    media = media_states(job.clips, config.modalities)
    inputs = inputs_of(
        folder, config, data, job.clips, job.tokenizer, media,
        split=split, missing=job.missing, weights=weights_hash(folder),
    )  # fmt: skip
    if out.exists() and not overwrite:
        return _up_to_date(out, inputs)
    model = _model(job, found)
    basis = Basis(inputs, computation_of(config, job.device, job.batch_size), media)
    return _embed(job, model, basis, out, overwrite=overwrite, progress=progress, say=say)


@dataclass(frozen=True)
class _Job:
    """What was asked for. folder: of the checkpoint, which was called `checkpoint`. data: the section read now."""

    folder: Path
    checkpoint: Path
    config: Config
    data: DataConfig
    split: str
    clips: list[Clip]
    tokenizer: Tokenizer | None
    missing: str
    device: torch.device
    batch_size: int


def _embed(
    job: _Job, model: MoverModel, basis: Basis, out: Path, *, overwrite: bool, progress: bool, say: Say
) -> Written:
    """Go on from the parts of the file, or begin them, until it is whole."""
    config = job.config
    data = EvaluationSet(
        job.clips, job.data, config.modalities, job.tokenizer,
        missing=job.missing, progress=progress, others=config.model.others,
    )  # fmt: skip
    if len(data.datasets) < 2:
        raise UserError(
            f"No clip has {' or '.join(data.absent)}: two modalities are needed, to compare one with another."
        )
    say(f"{job.folder}: embedding {len(job.clips)} clips of {job.data.manifest}, split {job.split}, on {job.device}")
    with Parts(out, data, model.embed_dim, job.batch_size, basis, overwrite=overwrite) as parts:
        if parts.anew:
            say(f"starting anew: {parts.folder} held what was done of {parts.anew}")
        say(resumed(parts, data) or f"what is done is kept in {parts.folder} until the file is whole")
        serve_frozen_towers(
            model, config, list(data.datasets.values()), job.tokenizer, job.device, progress=progress, say=say
        )
        stream(
            model, data, parts, batch_size=job.batch_size, device=job.device, precision=config.train.precision,
            progress=progress, say=say,
        )  # fmt: skip
        for modality in data.absent:
            say(f"no clip has {modality}: it is not in the file, and its directions are left out")
        written = _put_together(out, job, data, parts, basis.inputs)
        parts.remove()
    return written


def _data(config: Config, manifest: Path | None, workers: int | None) -> DataConfig:
    changed: dict[str, Any] = {} if manifest is None else {"manifest": manifest}
    changed |= {} if workers is None else {"workers": workers}
    if config.data.cache == "memory" and config.data.cache_frames_per_second is None:
        changed["cache"] = "none"  # each clip is read once, and gives the same rows either way
    return config.data.model_copy(update=changed)


def _model(job: _Job, found: tuple[int, ...]) -> MoverModel:
    """The model, with the weights whose file was `found`."""
    vocab_size = None if job.tokenizer is None else job.tokenizer.vocab_size
    model = load_checkpoint_model(job.folder, job.config, job.data, vocab_size)
    if identity(job.folder) != found:
        raise UserError(f"{job.folder} was replaced while it was read: run the command again.")
    return model.to(job.device)


def _up_to_date(out: Path, inputs: Mapping[str, str]) -> Written:
    """What is known of a file that is there. Raises UserError where it is another one."""
    about = load_provenance(out)
    before = about.get("inputs")
    if not isinstance(before, dict) or not isinstance(about.get("counts"), dict):
        raise UserError(f"{out} is there, and not a file that mover embed wrote: choose another --out, or --overwrite.")
    changed = differences(before, inputs)
    if changed:
        raise OutOfDate(
            f"{out} is there, made of {', '.join(changed)}: replace it with --overwrite, or choose another --out."
        )
    sweep(out)
    counts = about["counts"]
    return Written(out, False, counts["clips"], counts["captions"], counts["width"], counts["without"], None)


def _put_together(out: Path, job: _Job, data: EvaluationSet, parts: Parts, inputs: Mapping[str, str]) -> Written:
    rows, owner = parts.rows(), data.owner
    left_out = parts.left_out()
    present = {m: _present(data, m, owner, left_out.get(m, {})) for m in rows}
    ids = [clip.id for clip in data.clips]
    without = {m: int(len(ids) - flags.sum()) for m, flags in present.items()}
    width = next(iter(rows.values())).shape[1]
    counts = {"clips": len(ids), "captions": len(owner), "width": width, "without": without}
    about = {
        "mover": mover.__version__,
        "checkpoint": str(job.checkpoint),
        "weights_sha256": inputs["weights"],
        "config": job.config.name,
        "manifest": str(job.data.manifest),
        "split": job.split,
        "missing_policy": job.missing,
        "precision": job.config.train.precision,
        "dtype": "float32",
        "device": job.device.type,
        "batch_size": job.batch_size,
        "counts": counts,
        "ids_sha256": ids_hash(ids),
        "left_out": left_out,
        "absent": list(data.absent),
        "anchor": job.config.objective.anchor,
        "inputs": dict(inputs),
    }
    content = Content(ids, rows, owner, present, data.labels(), about)
    write_content(content, out, parts.folder / f"whole{out.suffix}")
    unusable = {
        m: int((unusable_rows(array) & (present[m][owner] if m == "text" else present[m])).sum())
        for m, array in rows.items()
    }
    return Written(out, True, len(ids), len(owner), width, without, unusable)


def _present(data: EvaluationSet, modality: str, owner: np.ndarray, left_out: Mapping[str, str]) -> np.ndarray:
    """bool (N,): the clips whose media could be used, in this run or before an interruption of it."""
    flags = data.present()[modality]
    flags[[data.place[name] for name in left_out]] = False
    return flags
