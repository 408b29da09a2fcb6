"""The files of a checkpoint: what they are called, who wrote them, and whether all of them can be read."""

from __future__ import annotations

import json
import pickle
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from mover.config import Config
from mover.configs import load_config
from mover.configs.loading import read_yaml
from mover.errors import UserError
from mover.train.built_from import built_from

MODEL = "model.safetensors"
ARCHITECTURE = "architecture.json"
OBJECTIVE = "objective.safetensors"
STATE = "state.pt"
CONFIG = "config.yaml"
TOKENIZER = "tokenizer.json"
OPTIMIZER = "optimizer"
ABOUT = "about.json"
FILES = (MODEL, ARCHITECTURE, OBJECTIVE, STATE, CONFIG, TOKENIZER, ABOUT)
NOT_ALWAYS_THERE = (STATE, TOKENIZER, ABOUT)
"""A checkpoint without a state cannot be resumed from; one of a run without text has no tokenizer; earlier versions
wrote no about.json."""

UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, SafetensorError)
"""What a damaged file may raise."""


@cache
def this_code() -> dict[str, str | None]:
    """`built_from` as it was when the process first asked: it runs what it loaded, whatever is committed meanwhile."""
    return built_from()


def write_about(folder: Path, *, step: int | None, best: bool) -> None:
    """Write about.json, when the other files are there."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != CONFIG]
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    about = {"step": step, "best": best, **this_code(), "bytes": sizes}
    (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def read_about(folder: Path) -> dict[str, Any]:
    """{"step", "best", "version", "commit", "torch", "bytes"} of a checkpoint; of one that does not say, nothing."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) and isinstance(about.get("step"), int) else {}


def wrong_sizes(folder: Path) -> list[str]:
    """What is wrong with the files that have not the bytes that were written."""
    sizes = read_about(folder).get("bytes", {})
    found = {name: (folder / name).stat().st_size for name in sizes if (folder / name).is_file()}
    return [f"{name} has {found[name]} bytes of {sizes[name]}" for name in found if found[name] != sizes[name]]


def read_config(folder: Path) -> Config:
    """The configuration of the run that wrote the checkpoint. Raises UserError for a damaged file."""
    path = folder / CONFIG
    config = load_config(path)
    if "evaluate" not in read_yaml(path):  # the last section that `save_config` writes
        raise UserError(f"{path} is cut short.")
    return config


def other_version(folder: Path) -> str | None:
    """A sentence that says which code wrote the checkpoint, None where it is the code that runs."""
    about, now = read_about(folder), this_code()
    parts = ("version", "commit", "torch")
    if not about or all(about.get(part) in (now[part], None) or now[part] is None for part in parts):
        return None
    names = {"version": "mover", "commit": "commit", "torch": "torch"}

    def told(source: dict[str, Any]) -> str:
        return ", ".join(f"{names[part]} {source[part]}" for part in parts if source.get(part))

    return f"{folder} was written by {told(about)}, and this is {told(now)}."


def step_if_whole(folder: Path) -> int | None:
    """The step of a checkpoint that a run can go on from: every file is there and can be read; else None."""
    try:
        config = read_config(folder)
        if wrong_sizes(folder):
            return None
        for name in (MODEL, OBJECTIVE):
            with safe_open(folder / name, framework="pt"):
                pass
        for name in (ARCHITECTURE, *([TOKENIZER] if "text" in config.modalities else [])):
            json.loads((folder / name).read_text(encoding="utf-8"))
        return int(read_state(folder)["step"])
    except (UserError, TypeError, *UNREADABLE):
        return None


def read_state(folder: Path) -> Any:
    """What the file of the training state holds, read without running any code of the file. Raises `UNREADABLE`."""
    return torch.load(folder / STATE, map_location="cpu", weights_only=True)


def instead_of(folder: Path) -> str:
    """For an error: which checkpoints beside `folder`, which is damaged, are whole, and how to go on from the newest.

    Begins with a space.
    """
    beside = sorted(path for path in folder.parent.glob("*/") if path != folder and path.suffix != ".new")
    steps = {path: step for path in beside if (step := step_if_whole(path)) is not None}
    whole = sorted(steps, key=steps.__getitem__, reverse=True)
    if not whole:
        return " No other checkpoint beside it is whole."
    told = f" Whole is {', '.join(f'{path} (step {steps[path]})' for path in whole)}"
    if folder.name != "last":
        return f"{told}."
    damaged, newest = shlex.quote(str(folder)), shlex.quote(str(whole[0]))
    return f"{told}; to go on from it: rm -r {damaged}; cp -r {newest} {damaged}; and again with --resume."
