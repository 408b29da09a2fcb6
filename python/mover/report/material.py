"""What a report is made of: the files of a run, or an embeddings file alone, read and checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mover.config import Config
from mover.configs import load_config
from mover.data.manifest import Clip, read_manifest, select_split
from mover.errors import UserError
from mover.evaluate.embed_checkpoint import embed_checkpoint
from mover.evaluate.embed_inputs import weights_hash
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.embeddings_file import load_embeddings
from mover.evaluate.results import META, provenance
from mover.evaluate.run import refuse_missing
from mover.train.checkpoint import MODEL, find_checkpoint
from mover.train.device import pick_device
from mover.train.logging import read_log
from mover.train.run_folder import RunFolder

Say = Callable[[str], None]
Found = tuple[dict[str, dict[str, Any]], dict[str, Any], str | None]
"""Rows of metrics, where they come from, and what is amiss with them."""


@dataclass(frozen=True)
class Material:
    """name: of the run or the file. embeddings: what is ranked. metrics: direction to row, empty where none are known;
    meta: where they come from. config, log, plans: of the run; None or empty where there is none. clips: id to row of
    the manifest. notes: section ("metrics", "training", "plans", "gallery") to a sentence on what is not there, or is
    otherwise than usual. anchor: of the joint directions, where there is no text.
    """

    name: str
    embeddings: Embeddings
    metrics: dict[str, dict[str, Any]]
    meta: dict[str, Any]
    device: torch.device
    anchor: str | None = None
    config: Config | None = None
    log: list[dict[str, Any]] = field(default_factory=list)
    plans: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    clips: Mapping[str, Clip] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def of_run(
    run: Path, *, split: str | None = None, manifest: Path | None = None, device: str = "auto", progress: bool = False,
    say: Say = lambda text: None,
) -> Material:  # fmt: skip
    """Everything about the run in the folder `run`; its best checkpoint embeds the split where no file holds that.

    Args:
        run: `runs/NAME`.
        split: default: the test split of the run.
        manifest: where the manifest of the run lies now; default: where it was.
        device, progress, say: as in `embed_checkpoint`.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came while clips were embedded.
        UserError: no run there, or files of it that are damaged.
    """
    if (run / MODEL).is_file():
        raise UserError(f"{run} is a checkpoint: give the folder of its run, {run.absolute().parents[1]}.")
    folder = RunFolder(run)
    if not folder.config.is_file():
        raise UserError(f"{run} holds no run: expected a folder with config.yaml, as mover train leaves it.")
    config = load_config(folder.config)
    split = split or config.data.test_split
    path = folder.of_split(folder.embeddings, split, config)
    listed = _fresh(path, folder, say)
    if listed is None:
        listed = embed_checkpoint(
            folder.best, path, manifest=manifest, split=split, device=device, overwrite=path.exists(),
            progress=progress, say=say,
        )  # fmt: skip
    else:
        say(f"embeddings from {path}")
    notes: dict[str, str] = {}
    log, plans = read_log(folder.log), folder.read_plans()
    if not log:
        notes["training"] = f"There is no {folder.log.name} in the folder of the run: nothing of its training is known."
    if not plans:
        notes["plans"] = (
            "The run kept no transport plans: it has no validation split, or an earlier version trained it."
        )
    rows, meta, note = read_metrics(folder.of_split(folder.metrics, split, config))
    missing = str(meta.get("missing_policy") or listed.provenance.get("missing_policy") or config.evaluate.missing)
    about = {key: value for key, value in listed.provenance.items() if key in ("checkpoint", "manifest", "split")}
    return _finish(
        config.name, listed, missing, str(meta.get("unusable_policy", "last")), config.objective.anchor, device,
        found=(rows, meta, note), about={"split": split, **about},
        clips=_clips(manifest or config.data.manifest, listed, split, notes), notes=notes, config=config, log=log,
        plans=plans,
    )  # fmt: skip


def of_file(
    path: Path, *, missing: str = "fail", unusable: str = "fail", anchor: str | None = None,
    manifest: Path | None = None, device: str = "auto",
) -> Material:  # fmt: skip
    """An embeddings file without a run, whoever made it; its clips are looked up in `manifest`, where one is given.

    Args:
        missing, unusable, anchor, device: as in `mover.evaluate.run.evaluate_embeddings`.

    Raises:
        UserError: a bad file, clips that lack a modality or rows that cannot be used under "fail", or an anchor that
            does not fit.
    """
    listed = load_embeddings(path)
    if anchor is not None and "text" in listed.modalities:
        raise UserError(f"{path} has text, and joint directions then compare text with all others: leave --anchor out.")
    notes = dict.fromkeys(("training", "plans"), "The page was made of an embeddings file, which knows no training.")
    clips: dict[str, Clip] = {}
    if manifest is None:
        notes["gallery"] = (
            "No manifest was given (--manifest): there are no captions and media, and clips go by their ids."
        )
    else:
        clips = {clip.id: clip for clip in read_manifest(manifest)}
        notes |= _unknown(listed, clips, str(manifest))
    return _finish(
        path.stem, listed, missing, unusable, anchor, device, found=read_metrics(path.with_suffix(".metrics.json")),
        about={"embeddings": str(path)} | ({} if manifest is None else {"manifest": str(manifest)}), clips=clips,
        notes=notes,
    )  # fmt: skip


def _finish(
    name: str, listed: Embeddings, missing: str, unusable: str, anchor: str | None, device: str, *,
    found: Found, about: dict[str, Any], clips: Mapping[str, Clip], notes: dict[str, str], **rest: Any,
) -> Material:  # fmt: skip
    """What the policies leave, with the metrics `found` where they are of the same clips under the same policies."""
    try:
        embeddings = listed.under(missing, unusable)
    except UserError as error:
        raise UserError(f"{about.get('embeddings', name)}: {error}") from None
    if missing == "fail":
        refuse_missing(str(about.get("embeddings", name)), embeddings)
    if not embeddings.ids:
        raise UserError(
            f"None of {len(listed.ids)} clips has all of {', '.join(listed.modalities)}: nothing is left under "
            "missing drop. Take mask, or leave a modality out."
        )
    told = anchor or listed.provenance.get("anchor")
    anchor = told if told in embeddings.modalities else anchor
    rows, meta, note = found
    now = provenance(listed, missing, anchor, unusable)
    if rows and any(meta.get(key, now[key]) != now[key] for key in ("ids_sha256", "missing_policy", "unusable_policy")):
        rows, note = {}, "The metrics.json there is of other clips than the embeddings: the numbers were computed anew."
    if note:
        notes = {**notes, "metrics": note}
    return Material(
        name, embeddings, rows, {**about, **(meta if rows else now)}, pick_device(device), anchor=anchor, clips=clips,
        notes=notes, **rest,
    )  # fmt: skip


def _fresh(path: Path, folder: RunFolder, say: Say) -> Embeddings | None:
    """The embeddings in the folder of a run, if the best checkpoint made them; None: there are none."""
    if not path.is_file():
        return None
    embeddings = load_embeddings(path)
    told = embeddings.provenance.get("weights_sha256")
    try:
        weights = find_checkpoint(folder.best)
    except UserError:
        return embeddings  # the checkpoint is gone; what it gave is what there is
    if told is not None and told != weights_hash(weights):
        say(f"{path} is of another checkpoint than {folder.best}: embedding again")
        return None
    return embeddings


def read_metrics(path: Path) -> Found:
    """Rows and provenance of a metrics.json, and a sentence on what is amiss; nothing where there is no such file.

    Raises:
        UserError: the file is not one that `mover evaluate` writes.
    """
    if not path.is_file():
        return {}, {}, None
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        meta = dict(read.pop(META))
        rows = {str(name): dict(row) for name, row in read.items()}
        if any(not isinstance(row["R@1"], int | float) or "N" not in row for row in rows.values()):
            raise ValueError("a row without R@1 or N")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"{path} is no metrics.json as mover evaluate writes it ({reason}): remove it, or evaluate again."
        ) from None
    if not any(row.get("intervals") for row in rows.values()):
        return rows, meta, f"{path.name} holds no intervals: evaluate again to have them."
    return rows, meta, None


def _clips(manifest: Path, listed: Embeddings, split: str, notes: dict[str, str]) -> dict[str, Clip]:
    """The rows of the run's manifest by id; empty, with a note, where it cannot be read."""
    try:
        clips = {clip.id: clip for clip in select_split(read_manifest(manifest), split)}
    except UserError as error:
        notes["gallery"] = f"Captions and media are not shown, and clips go by their ids: {error}"
        return {}
    notes |= _unknown(listed, clips, str(manifest))
    return clips


def _unknown(listed: Embeddings, clips: Mapping[str, Clip], where: str) -> dict[str, str]:
    strange = [name for name in listed.ids if name not in clips]
    if not strange:
        return {}
    return {
        "gallery": f"{len(strange)} of {len(listed.ids)} ids are not in {where} (first '{strange[0]}') and are shown "
        "without captions and media."
    }
