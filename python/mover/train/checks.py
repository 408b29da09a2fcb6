"""Everything that is checked before anything slow: run folder, device, data, media, checkpoints. All faults at once.

What is checked here is only looked at. Nothing is decoded, no weights are loaded, nothing is written.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch

from mover.config import Config, ImageTowerConfig
from mover.data.dataset import ClipDataset
from mover.data.loader import Loader
from mover.data.manifest import Clip, read_manifest, select_split
from mover.data.tokenizer import Tokenizer
from mover.distributed.world import World
from mover.errors import Problems, UserError
from mover.evaluate.embed import EvaluationSet
from mover.losses import build_objective
from mover.losses.objective import resolve_weights
from mover.losses.pool import check_pool
from mover.models.forms import check_audio_form, check_image_form, check_text_form
from mover.train.checkpoint import load_checkpoint_tokenizer
from mover.train.device import pick_device
from mover.train.run_folder import RunFolder
from mover.train.start import find_starts, starting_tokenizer

FIRST_MEDIA = 64
"""How many media files of each modality are looked for; `mover doctor` looks at all."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Ready:
    """What a run starts from, and what the checks found.

    checkpoint: the one to resume from, None to start anew. tokenizer: None without text.
    validation: None without validation clips. findings: setting to what was found there.
    warnings: the findings that may not be what is wanted.
    """

    folder: RunFolder
    checkpoint: Path | None
    device: torch.device
    tokenizer: Tokenizer | None
    train_set: ClipDataset
    validation: EvaluationSet | None
    findings: dict[str, str]
    warnings: list[str]


class _Checks:
    """Runs checks and gathers what they find; an error of the user's does not keep the next check from running."""

    def __init__(self) -> None:
        self.findings: dict[str, str] = {}
        self.warnings: list[str] = []
        self.problems: list[str] = []

    def run(self, setting: str, check: Callable[[], _T]) -> _T | None:
        """What `check` gives, or None where it raises UserError, which counts as a problem of that setting."""
        try:
            return check()
        except UserError as error:
            text = " ".join(str(error).split())
            self.problems.append(text if text.startswith((f"{setting}:", f"{setting}.")) else f"{setting}: {text}")
            return None

    def warn(self, setting: str, text: str) -> None:
        """Note something that is no fault in itself."""
        self.findings[setting] = text
        self.warnings.append(f"{setting}: {text}")


def check_run(
    config: Config,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    world: World | None = None,
) -> Ready:
    """Check that a run can start.

    Args:
        config: the run.
        resume, overwrite: what may be done with a run that is in the folder.
        progress: whether the data sets may draw a bar later.
        world: the processes of the run; default: this one.

    Raises:
        Problems: one sentence or two for everything that is wrong: the setting, what is wrong, what to do.
    """
    checks, world = _Checks(), world or World()
    folder = RunFolder(config.folder)
    size = config.train.batch_size
    checkpoint = checks.run("name", lambda: folder.admit(config, resume=resume, overwrite=overwrite))
    checks.run("output", lambda: _require_writable(folder.path))
    checks.run("objective", lambda: build_objective(config.objective, config.modalities, (0, 0)).check_batch(size))
    device = checks.run("train.device", lambda: pick_device(config.train.device, world))
    checks.run("train.parallel", lambda: _check_processes(config, world))
    clips = checks.run("data.manifest", lambda: read_manifest(config.data.manifest))
    tokenizer = None
    reads = "text" in config.modalities
    if checkpoint is not None:  # has files of its own
        tokenizer = checks.run("data.tokenizer", lambda: load_checkpoint_tokenizer(checkpoint, config))
    else:
        starts = checks.run("train.start_from", lambda: find_starts(config)) or []
        if starts:
            found = [f"{start.checkpoint}: {', '.join(start.modalities)}" for start in starts]
            checks.findings["train.start_from"] = "; ".join(found)
        if reads and (config.data.tokenizer is not None or clips is not None):  # by default it lies beside the manifest
            tokenizer = checks.run("data.tokenizer", lambda: starting_tokenizer(starts, config))
        _check_checkpoints(checks, config, tokenizer)
    train_set, validation = None, None
    if clips is not None:
        train_set = _check_training(checks, config, clips, tokenizer, progress)
        validation = _check_evaluation(checks, config, clips, tokenizer, progress)
    if train_set is not None and resolve_weights(config.objective)["pool"] > 0:
        checks.run("objective", lambda: check_pool(len(train_set), config.objective.matching))
    if checks.problems or device is None or clips is None or train_set is None:
        raise Problems(checks.problems)
    if tokenizer is not None:
        checks.findings["data.tokenizer"] = f"{tokenizer.vocab_size:,} tokens"
    checks.findings |= {
        "train.device": f"{device}, {config.train.precision}",
        "output": f"{folder.path}, {_plan(checkpoint, folder)}",
    }
    return Ready(folder, checkpoint, device, tokenizer, train_set, validation, checks.findings, checks.warnings)


def _check_processes(config: Config, world: World) -> None:
    size = config.train.batch_size
    if world.size > size:
        raise UserError(f"{world.size} processes cannot share train.batch_size = {size}: start fewer, or raise it.")
    if not world.several or config.train.parallel == "ddp":
        return
    if size % world.size:
        raise UserError(f"with fsdp processes take equal shares: make train.batch_size a multiple of {world.size}.")
    if config.data.missing == "mask":
        raise UserError("with fsdp all processes run all towers at every step: set data.missing to drop, or take ddp.")
    if config.data.cache == "features":
        raise UserError("data.cache: features is for towers that are whole in each process: take ddp.")


def _plan(checkpoint: Path | None, folder: RunFolder) -> str:
    if checkpoint is not None:
        return f"to go on from {checkpoint}"
    return "where a run will be replaced" if folder.used else "free"


def _require_writable(folder: Path) -> None:
    """Raise UserError unless `folder`, or the first folder above it that exists, can be written to."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"{there} is a file and cannot hold {folder}: choose another --output or --name.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"the folder {there} cannot be written to: choose another --output, or make it writable.")


def _check_checkpoints(checks: _Checks, config: Config, tokenizer: Tokenizer | None) -> None:
    model, vocabulary = config.model, None if tokenizer is None else tokenizer.vocab_size
    forms: dict[str, tuple[Path | None, Callable[[Path], str]]] = {
        "text": (model.text.checkpoint, lambda path: check_text_form(path, vocabulary)),
        "video": (model.video.checkpoint, check_image_form),
        "audio": (model.audio.checkpoint, check_audio_form),
    }
    for name, tower in model.others.items():
        if isinstance(tower, ImageTowerConfig):
            field = f"model.others.{name}.checkpoint"
            forms[f"others.{name}"] = (tower.checkpoint, lambda path, field=field: check_image_form(path, field))  # type: ignore[misc]
    for section, (path, check) in forms.items():
        if path is not None and section.removeprefix("others.") in config.modalities:
            setting = f"model.{section}.checkpoint"
            found = checks.run(setting, lambda: check(path))  # noqa: B023 - called at once
            if found is not None:
                checks.findings[setting] = found


def _check_training(
    checks: _Checks, config: Config, clips: list[Clip], tokenizer: Tokenizer | None, progress: bool
) -> ClipDataset | None:
    """The training set; its split, its size and its media checked."""
    data = config.data
    counts = Counter(clip.split for clip in clips)
    listed = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    checks.findings["data.manifest"] = f"{data.manifest}: {len(clips):,} clips: {listed}"
    chosen = checks.run("data.train_split", lambda: select_split(clips, data.train_split))
    if chosen is None:
        return None
    for modality in config.modalities:
        if modality != "text":
            checks.run("data.manifest", lambda: _look_for_media(checks, chosen, modality))  # noqa: B023
    if tokenizer is None and "text" in config.modalities:
        return None
    train_set = checks.run(
        "data.manifest",
        lambda: ClipDataset(
            chosen,
            data,
            config.modalities,
            tokenizer,
            training=True,
            seed=config.seed,
            progress=progress,
            others=config.model.others,
        ),
    )
    if train_set is not None:
        checks.run("train.batch_size", lambda: Loader(train_set, config.train.batch_size))
    return train_set


def _check_evaluation(
    checks: _Checks, config: Config, clips: list[Clip], tokenizer: Tokenizer | None, progress: bool
) -> EvaluationSet | None:
    """The validation set, None where the manifest has no such clips."""
    data = config.data
    if not any(clip.split == data.test_split for clip in clips):
        checks.warn("data.test_split", f"no clip is in the split '{data.test_split}': evaluate with another --split")
    chosen = [clip for clip in clips if clip.split == data.validation_split]
    if not chosen:
        checks.warn(
            "data.validation_split",
            f"no clip is in the split '{data.validation_split}': no validation, and 'best' will be the last",
        )
        return None
    if tokenizer is None and "text" in config.modalities:
        return None
    return checks.run(
        "data.validation_split",
        lambda: EvaluationSet(
            chosen,
            data,
            config.modalities,
            tokenizer,
            missing=data.missing,
            progress=progress,
            others=config.model.others,
        ),
    )


def _look_for_media(checks: _Checks, clips: Sequence[Clip], modality: str) -> None:
    """Look for the first media files of a modality. Raises UserError when not one is there."""
    listed = islice((clip.media(modality) for clip in clips if clip.present(modality)), FIRST_MEDIA)
    paths = list(dict.fromkeys(path for path in listed if path is not None))
    absent = [path for path in paths if not path.exists()]
    if paths and len(absent) == len(paths):
        raise UserError(
            f"not one of the first {len(paths)} {modality} files of the training clips exists, first {absent[0]}: put "
            "the media there, or import again with the right --media."
        )
    place = f"{modality} files"
    if absent:
        checks.warn(
            place,
            f"{len(absent)} of the first {len(paths)} are not there, first {absent[0]}; mover doctor looks for all",
        )
    elif paths:
        checks.findings[place] = f"the first {len(paths)} are there"
