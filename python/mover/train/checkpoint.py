"""Checkpoints: a folder per checkpoint, written aside, flushed to disk and moved in place.

    model.safetensors      weights of the towers and projections
    architecture.json      what builds the towers again, also where the files they began from are not there
    objective.safetensors  temperatures
    state.pt               step, best validation so far, optimiser and random state; only needed to resume
    optimizer              of a run in shards (train.parallel: fsdp), in place of the optimiser in state.pt
    config.yaml            the whole configuration of the run
    tokenizer.json         the tokenizer of the captions; only of a run with text

A folder is either whole or not there: a kill while writing leaves the one before.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from mover.config import Config, DataConfig
from mover.configs import load_config, save_config
from mover.data.tokenizer import Tokenizer
from mover.distributed.shards import Shards
from mover.distributed.world import World
from mover.durable_file import flush
from mover.errors import UserError
from mover.models.model import MoverModel

MODEL = "model.safetensors"
ARCHITECTURE = "architecture.json"
OBJECTIVE = "objective.safetensors"
STATE = "state.pt"
CONFIG = "config.yaml"
TOKENIZER = "tokenizer.json"
OPTIMIZER = "optimizer"
FILES = (MODEL, ARCHITECTURE, OBJECTIVE, STATE, CONFIG, TOKENIZER)


def save_checkpoint(
    folder: Path,
    *,
    model: MoverModel,
    objective: nn.Module,
    state: dict[str, Any],
    config: Config,
    tokenizer: Tokenizer | None,
    world: World | None = None,
    shards: Shards | None = None,
) -> None:
    """Write a checkpoint to `folder`, in place of the one there.

    Args:
        model, objective, config: of the run. state: as `load_state` gives it.
        tokenizer: None: the run has no text.
        world: the processes of the run, all of which have to call this; the first one writes.
        shards: of a model in shards, of which each process writes its own.
    """
    world = world or World()
    if shards is not None:
        weights = shards.weights()
    if world.leads:
        aside = _aside(folder)
    if shards is not None:
        world.wait()
        shards.save_optimizer(_path_aside(folder) / OPTIMIZER)
    if not world.leads:
        return
    if shards is not None:
        with torch.random.fork_rng(devices=[]):  # a new model draws its weights first
            vocab_size = None if tokenizer is None else tokenizer.vocab_size
            model = MoverModel(config.model, config.data, config.modalities, vocab_size, model.architecture())
        model.load_state_dict(weights)
    save_model(model, str(aside / MODEL))
    (aside / ARCHITECTURE).write_text(
        json.dumps(model.architecture(), indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    save_model(objective, str(aside / OBJECTIVE))
    torch.save(state, aside / STATE)
    save_config(config, aside / CONFIG)
    if tokenizer is not None:
        tokenizer.save(aside / TOKENIZER)
    _put_in_place(aside, folder)


def copy_checkpoint(source: Path, folder: Path) -> None:
    """Make `folder` the same checkpoint as `source`, which is never changed in place: its files are linked."""
    aside = _aside(folder)
    for name in FILES:
        if name == TOKENIZER and not (source / name).exists():
            continue
        _link(source / name, aside / name)
    if (source / OPTIMIZER).is_dir():
        shutil.copytree(source / OPTIMIZER, aside / OPTIMIZER, copy_function=_link)
    _put_in_place(aside, folder)


def find_checkpoint(folder: Path) -> Path:
    """The folder to read: `folder`, or the one it was replacing if the process died between two renames.

    Raises:
        UserError: there is no checkpoint, or files of it are missing.
    """
    if not folder.exists() and folder.with_name(folder.name + ".old").exists():
        folder = folder.with_name(folder.name + ".old")
    if not folder.is_dir():
        raise UserError(f"no checkpoint at {folder}: expected a folder with {', '.join(FILES)}.{_neighbours(folder)}")
    absent = [name for name in FILES if name not in (STATE, TOKENIZER) and not (folder / name).is_file()]
    if not absent and not (folder / TOKENIZER).is_file() and "text" in load_checkpoint_config(folder).modalities:
        absent = [TOKENIZER]
    if absent:
        raise UserError(f"{folder} is not a whole checkpoint: {', '.join(absent)} not there.{_neighbours(folder)}")
    return folder


def has_checkpoint(folder: Path) -> bool:
    """Whether `find_checkpoint` finds one."""
    try:
        find_checkpoint(folder)
    except UserError:
        return False
    return True


def load_checkpoint_config(folder: Path) -> Config:
    """The configuration of the run that wrote the checkpoint."""
    return load_config(folder / CONFIG)


def load_checkpoint_tokenizer(folder: Path, config: Config) -> Tokenizer | None:
    """The tokenizer of the run that wrote the checkpoint, whose configuration is `config`; None without text."""
    return Tokenizer.load(folder / TOKENIZER, config.data.max_tokens) if "text" in config.modalities else None


def load_checkpoint_model(folder: Path, config: Config, data: DataConfig, vocab_size: int | None) -> MoverModel:
    """The model of a checkpoint, from its own files: those that its towers began from need not be there.

    Args:
        folder: of the checkpoint.
        config: that of the run that wrote it. data: what it reads now.
        vocab_size: tokens of its tokenizer; None without text.

    Raises:
        UserError: a file is damaged, or does not fit the others.
    """
    path = folder / ARCHITECTURE
    try:
        architecture = json.loads(path.read_text(encoding="utf-8"))
        absent = [name for name in config.modalities if not isinstance(architecture[name], dict)]
        if absent:
            raise ValueError(f"no object for {', '.join(absent)}")
        model = MoverModel(config.model, data, config.modalities, vocab_size, architecture)
    except UserError:
        raise
    except Exception as error:  # a library checks the values, with exceptions of its own
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        raise UserError(
            f"{path} does not describe the towers of {CONFIG} beside it ({reason[:200]}): use another checkpoint."
        ) from None
    load_weights(model, folder / MODEL)
    return model


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill `module` from a safetensors file.

    Raises:
        UserError: the file is not there or cut short, or its tensors are not exactly those of the module.
    """
    try:
        load_model(module, str(path))
    except (FileNotFoundError, SafetensorError, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{path} cannot be read, it may be cut short ({reason}): use another checkpoint.") from None
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        detail = (lines[1] if len(lines) > 1 else lines[0]).rstrip(".")
        raise UserError(
            f"{path} holds another model than {CONFIG} beside it describes: "
            f"{detail if len(detail) <= 300 else detail[:299] + '…'}."
        ) from None


def load_state(folder: Path) -> dict[str, Any]:
    """What is needed to resume, read without running any code of the file: "step", "best" validation, "skipped" steps
    in a row before it, "optimizer" (None of a run in shards) and "random", the states of all processes, by rank.

    Raises:
        UserError: the file is not there, cut short or of another kind.
    """
    path = folder / STATE
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} is not there: the checkpoint can be evaluated but not resumed.") from None
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, KeyError, ValueError):
        raise UserError(f"{path} is cut short or not a training state: resume is not possible.") from None
    if not isinstance(state, dict) or not {"step", "best", "skipped", "optimizer", "random"} <= state.keys():
        raise UserError(f"{path} is not a training state of this version: resume is not possible.")
    return state


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _path_aside(folder: Path) -> Path:
    return folder.with_name(folder.name + ".new")


def _aside(folder: Path) -> Path:
    aside = _path_aside(folder)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    return aside


def _put_in_place(aside: Path, folder: Path) -> None:
    for path in aside.rglob("*"):
        if path.is_file():
            os.chmod(path, 0o644)  # safetensors makes files that only their owner can read
        flush(path)
    flush(aside)
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
    os.rename(aside, folder)
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _neighbours(folder: Path) -> str:
    """A hint at the checkpoints near a path that is none."""
    for near in (folder / "checkpoints", folder, folder.parent):
        if near.is_dir():
            found = sorted(str(path.parent) for path in near.glob(f"*/{CONFIG}") if (path.parent / MODEL).is_file())
            if found:
                return f" There is one at {found[0]}."
    return ""
