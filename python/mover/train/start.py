"""The model that a new run begins with: random or pretrained towers, or the trained weights of earlier runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from mover.config import Config
from mover.data.tokenizer import Tokenizer
from mover.errors import UserError
from mover.models.model import MoverModel
from mover.train.checkpoint import (
    ARCHITECTURE,
    MODEL,
    find_checkpoint,
    load_checkpoint_config,
    load_checkpoint_tokenizer,
)


@dataclass(frozen=True)
class Start:
    """A checkpoint that a run begins with, and the modalities whose towers and heads it takes from there."""

    checkpoint: Path
    modalities: tuple[str, ...]


def find_starts(config: Config) -> list[Start]:
    """What `train.start_from` names: checkpoints, or runs, whose best ones they are.

    Raises:
        UserError: there is none, it has no modality to take, or its space has another width.
    """
    found: list[Start] = []
    for path in config.train.start_from:
        best = path / "checkpoints" / "best"
        checkpoint = find_checkpoint(best if best.is_dir() else path)
        old = load_checkpoint_config(checkpoint)
        taken = [name for start in found for name in start.modalities]
        shared = tuple(name for name in config.modalities if name in old.modalities and name not in taken)
        if not shared:
            before = f" that no run before it in train.start_from has ({', '.join(taken)})" if taken else ""
            raise UserError(
                f"{checkpoint} has {', '.join(old.modalities)}, none of this run's modalities "
                f"{', '.join(config.modalities)}{before}: begin with another run."
            )
        if old.model.embed_dim != config.model.embed_dim:
            raise UserError(
                f"{checkpoint} embeds in {old.model.embed_dim} dimensions, this run in {config.model.embed_dim}: set "
                f"model.embed_dim to {old.model.embed_dim}."
            )
        found.append(Start(checkpoint, shared))
    return found


def starting_tokenizer(starts: Sequence[Start], config: Config) -> Tokenizer:
    """The tokenizer of a new run with text: that of the run whose text tower it takes, else that of its data.

    Raises:
        UserError: `data.tokenizer` names another than that tower was trained with.
    """
    start = next((start for start in starts if "text" in start.modalities), None)
    if start is None:
        return Tokenizer.for_data(config.data)
    trained = load_checkpoint_tokenizer(start.checkpoint, load_checkpoint_config(start.checkpoint))
    assert trained is not None
    trained.max_tokens = config.data.max_tokens
    if config.data.tokenizer is not None:
        named = Tokenizer.for_data(config.data)
        if named.fingerprint() != trained.fingerprint():
            raise UserError(
                f"{config.data.tokenizer} is not the tokenizer that the text tower of {start.checkpoint} was trained "
                "with: leave data.tokenizer out."
            )
    return trained


def starting_model(config: Config, vocab_size: int | None) -> MoverModel:
    """The model of a new run. Towers and heads that come from earlier runs are built as they were there.

    Args:
        vocab_size: tokens of the tokenizer; None without text.

    Raises:
        UserError: as `find_starts`; or a file of weights is damaged, or does not fit.
    """
    starts = find_starts(config)
    built: dict[str, Any] = {}
    for start in starts:
        there = json.loads((start.checkpoint / ARCHITECTURE).read_text(encoding="utf-8"))
        built |= {name: there[name] for name in start.modalities}
    model = MoverModel(config.model, config.data, config.modalities, vocab_size, built)
    for start in starts:
        _take(model, start)
    return model


def _take(model: MoverModel, start: Start) -> None:
    """Fill the towers and heads that come from `start`."""
    part = nn.Module()
    part.towers = nn.ModuleDict({name: model.towers[name] for name in start.modalities})
    part.heads = nn.ModuleDict({name: model.heads[name] for name in start.modalities})
    path = start.checkpoint / MODEL
    try:
        missing, unexpected = load_model(part, str(path), strict=False)
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} does not load into the towers of this run ({reason[:300]}).") from None
    strange = [name for name in unexpected if name.split(".")[1] in start.modalities]
    if missing or strange:
        raise UserError(f"{path} does not fit the towers of this run: {sorted([*missing, *strange])[0]}.")
