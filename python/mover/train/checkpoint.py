"""Checkpoints: a folder per checkpoint, written aside, flushed to disk and moved in place.

    model.safetensors      weights of the towers and projections
    architecture.json      what builds the towers again, also where the files they began from are not there
    objective.safetensors  temperatures
    state.pt               step, best validation so far, optimiser and random state; only needed to resume
    optimizer              of a run in shards (train.parallel: fsdp), in place of the optimiser in state.pt
    config.yaml            the whole configuration of the run
    tokenizer.json         the tokenizer of the captions; only of a run with text
    about.json             step, whether it was the best so far, the version, commit and torch that wrote it, and the
                           bytes of each file

A folder is either whole or not there: a kill or a full disk while writing leaves the one before.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from mover.config import Config, DataConfig
from mover.configs import save_config
from mover.data.tokenizer import Tokenizer
from mover.distributed.shards import Shards
from mover.distributed.world import World
from mover.durable_file import flush
from mover.errors import Told, UserError
from mover.models.model import MoverModel
from mover.train.checkpoint_files import (
    ARCHITECTURE,
    CONFIG,
    FILES,
    MODEL,
    NOT_ALWAYS_THERE,
    OBJECTIVE,
    OPTIMIZER,
    STATE,
    TOKENIZER,
    UNREADABLE,
    instead_of,
    read_about,
    read_config,
    read_state,
    write_about,
    wrong_sizes,
)


def save_checkpoint(
    folder: Path,
    *,
    model: MoverModel,
    objective: nn.Module,
    state: dict[str, Any],
    config: Config,
    tokenizer: Tokenizer | None,
    best: bool = False,
    world: World | None = None,
    shards: Shards | None = None,
) -> None:
    """Write a checkpoint to `folder`, in place of the one there.

    Args:
        folder: of the checkpoint; those above it are made.
        model, objective, config: of the run. state: as `load_state` gives it.
        tokenizer: None: the run has no text.
        best: whether validation was never better.
        world: the processes of the run, all of which have to call this; the first one writes.
        shards: of a model in shards, of which each process writes its own.

    Raises:
        UserError: it cannot be written, such as for want of room. The one there is as it was.
    """
    world = world or World()
    if shards is not None:
        weights = shards.weights()
    if not world.leads:
        if shards is not None:
            world.wait()
            try:
                shards.save_optimizer(_aside(folder) / OPTIMIZER)
            except OSError:  # the first process has it, too
                raise Told from None
        return
    with _in_place_of(folder, _bytes([model.state_dict(), objective.state_dict(), state])) as aside:
        if shards is not None:
            world.wait()
            shards.save_optimizer(aside / OPTIMIZER)
            with torch.random.fork_rng(devices=[]):  # a new model draws its weights first
                vocab_size = None if tokenizer is None else tokenizer.vocab_size
                model = MoverModel(config.model, config.data, config.modalities, vocab_size, model.architecture())
            model.load_state_dict(weights)
        save_model(model, str(aside / MODEL))
        architecture = json.dumps(model.architecture(), indent=1, sort_keys=True)
        (aside / ARCHITECTURE).write_text(architecture + "\n", encoding="utf-8")
        save_model(objective, str(aside / OBJECTIVE))
        _save_state(state, aside / STATE)
        save_config(config, aside / CONFIG)
        if tokenizer is not None:
            tokenizer.save(aside / TOKENIZER)
        write_about(aside, step=state.get("step"), best=best)


def copy_checkpoint(source: Path, folder: Path) -> None:
    """Make `folder` the same checkpoint as `source`, which is never changed in place: its files are linked.

    Raises:
        UserError: it cannot be written. What was in `folder` is as it was.
    """
    names = [name for name in (*FILES, OPTIMIZER) if (source / name).exists()]
    with _in_place_of(folder, sum(path.stat().st_size for path in source.rglob("*"))) as aside:
        for name in names:
            if (source / name).is_dir():
                shutil.copytree(source / name, aside / name, copy_function=_link)
            else:
                _link(source / name, aside / name)


def find_checkpoint(folder: Path) -> Path:
    """The folder to read: `folder`, or the one it was replacing if the process died between two renames.

    Raises:
        UserError: there is no checkpoint, or files of it are missing.
    """
    if not folder.exists() and folder.with_name(folder.name + ".old").exists():
        folder = folder.with_name(folder.name + ".old")
    if not folder.is_dir():
        raise UserError(f"no checkpoint at {folder}: expected a folder with {', '.join(FILES)}.{_neighbours(folder)}")
    absent = [name for name in FILES if name not in NOT_ALWAYS_THERE and not (folder / name).is_file()]
    cut = wrong_sizes(folder)
    if cut:
        raise UserError(f"{folder} is damaged: {'; '.join(cut)}.{instead_of(folder)}")
    if not absent and not (folder / TOKENIZER).is_file() and "text" in load_checkpoint_config(folder).modalities:
        absent = [TOKENIZER]
    if absent:
        hint = _neighbours(folder) if len(absent) == len(FILES) - len(NOT_ALWAYS_THERE) else instead_of(folder)
        raise UserError(f"{folder} is not a whole checkpoint: {', '.join(absent)} not there.{hint}")
    return folder


def has_checkpoint(folder: Path) -> bool:
    """Whether there is one, which may be damaged, or one that was being replaced when the process died."""
    return folder.is_dir() or folder.with_name(folder.name + ".old").is_dir()


def load_checkpoint_config(folder: Path) -> Config:
    """The configuration of the run that wrote the checkpoint. Raises UserError for a damaged file."""
    try:
        return read_config(folder)
    except UserError as error:
        raise UserError(f"{error}{instead_of(folder)}") from None


def load_checkpoint_tokenizer(folder: Path, config: Config) -> Tokenizer | None:
    """The tokenizer of the run that wrote the checkpoint, whose configuration is `config`; None without text.

    Raises UserError for a damaged file.
    """
    if "text" not in config.modalities:
        return None
    try:
        return Tokenizer.load(folder / TOKENIZER, config.data.max_tokens)
    except UserError as error:
        raise UserError(f"{error}{instead_of(folder)}") from None


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
            f"{instead_of(folder)}"
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
        raise UserError(
            f"{path} cannot be read, it may be cut short ({reason}): use another checkpoint.{instead_of(path.parent)}"
        ) from None
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        detail = (lines[1] if len(lines) > 1 else lines[0]).rstrip(".")
        raise UserError(
            f"{path} holds another model than {CONFIG} beside it describes: "
            f"{detail if len(detail) <= 300 else detail[:299] + '…'}.{instead_of(path.parent)}"
        ) from None


def load_state(folder: Path) -> dict[str, Any]:
    """What is needed to resume, read without running any code of the file: "step", "best" validation, "skipped" steps
    in a row before it, "optimizer" (None of a run in shards) and "random", the states of all processes, by rank; and
    "used", "logged", the rows of each modality that were trained on, and those that the log has told of.

    Raises:
        UserError: the file is not there, cut short or of another kind.
    """
    path = folder / STATE
    try:
        state = read_state(folder)
    except FileNotFoundError:
        raise UserError(
            f"{path} is not there: the checkpoint can be evaluated but not resumed.{instead_of(folder)}"
        ) from None
    except UNREADABLE:
        raise UserError(
            f"{path} is cut short or not a training state: resume is not possible.{instead_of(folder)}"
        ) from None
    if not isinstance(state, dict) or not {"step", "best", "skipped", "optimizer", "random"} <= state.keys():
        raise UserError(f"{path} is not a training state of this version: resume is not possible.{instead_of(folder)}")
    return state


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _aside(folder: Path) -> Path:
    return folder.with_name(folder.name + ".new")


@contextmanager
def _in_place_of(folder: Path, size: int) -> Iterator[Path]:
    """A new folder, which becomes `folder` when the block ends without error; else nothing of it is left.

    size: of what will be written, in bytes, for the error.
    """
    aside, old = _aside(folder), folder.with_name(folder.name + ".old")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        for path in aside.rglob("*"):
            if path.is_file():
                os.chmod(path, 0o644)  # safetensors makes files that only their owner can read
            flush(path)
        flush(aside)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.rename(folder, old)
        os.rename(aside, folder)
        flush(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if old.exists() and not folder.exists():
            with suppress(OSError):
                os.rename(old, folder)
        if isinstance(error, (OSError, SafetensorError)):
            raise _unwritable(folder, size, error) from None
        raise


def _save_state(state: dict[str, Any], path: Path) -> None:
    with open(path, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # which torch makes of what writing raised
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def _unwritable(folder: Path, size: int, error: Exception) -> UserError:
    there = next(path for path in folder.absolute().parents if path.exists())
    number = re.search(r"\(os error (\d+)\)", str(error))  # as safetensors tells it
    reason = os.strerror(int(number[1])) if number else getattr(error, "strerror", None) or str(error)
    size = max(size, sum(path.stat().st_size for path in folder.rglob("*")))
    before = read_about(folder).get("step")
    kept = "none is there yet" if before is None else f"the one of step {before} is whole"
    return UserError(
        f"The checkpoint {folder} cannot be written ({reason}): it takes at least {_size(size)}, and the disk has "
        f"{_size(shutil.disk_usage(there).free)} left. Of the checkpoints before, {kept}. Make room, or make the "
        "folder writable, and go on with --resume."
    )


def _size(count: int) -> str:
    scale, unit = (1e9, "GB") if count >= 1e9 else (1e6, "MB") if count >= 1e6 else (1e3, "kB")
    return f"{count / scale:.1f} {unit}"


def _bytes(tree: Any) -> int:
    """Of all tensors in nested dictionaries and lists."""
    if isinstance(tree, torch.Tensor):
        return tree.numel() * tree.element_size()
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else ()
    return sum(map(_bytes, parts))


def _neighbours(folder: Path) -> str:
    """A hint at the checkpoints near a path that is none."""
    for near in (folder / "checkpoints", folder, folder.parent):
        if near.is_dir():
            found = sorted(str(path.parent) for path in near.glob(f"*/{CONFIG}") if (path.parent / MODEL).is_file())
            if found:
                return f" There is one at {found[0]}."
    return ""
