"""The model: a tower per modality and a projection of each into one space of unit vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from mover.config import BUILT_IN, DataConfig, ImageTowerConfig, ModelConfig, OptimizerConfig
from mover.errors import UserError
from mover.models.audio import AudioEncoder
from mover.models.features import FeatureEncoder
from mover.models.heads import Projection, unit_rows
from mover.models.text import TextEncoder
from mover.models.tower import Tower
from mover.models.video import VideoEncoder


class MoverModel(nn.Module):
    """Encoders and heads of a run's modalities.

    Args:
        config: towers and width of the shared space.
        data: frame size and number, sample rate, longest caption.
        modalities: the run's, any of "text", "video", "audio" and the names under `config.others`.
        vocab_size: tokens of the tokenizer; needed for text.
        architecture: what `architecture()` of the model to build again gave; its weights are to come, and no files of
            the towers' checkpoints are read.

    Raises:
        UserError: sizes that do not fit, a checkpoint that does not load completely, or a name that torch has taken.
    """

    def __init__(
        self,
        config: ModelConfig,
        data: DataConfig,
        modalities: Iterable[str],
        vocab_size: int | None = None,
        architecture: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.embed_dim = config.embed_dim
        for name in self.modalities:
            if hasattr(nn.ModuleDict(), name):
                raise UserError(
                    f"modalities: '{name}' is a name that torch uses itself; give it another, here and there."
                )
        built = architecture or {}
        towers = {name: _tower(name, config, data, vocab_size, built.get(name)) for name in self.modalities}
        self.towers = nn.ModuleDict(towers)
        self.heads = nn.ModuleDict({name: Projection(tower.width, config.embed_dim) for name, tower in towers.items()})

    def architecture(self) -> dict[str, Any]:
        """Per modality the JSON values that build its tower again (`Tower.architecture`)."""
        return {name: cast(Tower, tower).architecture() for name, tower in self.towers.items()}

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Embed a batch.

        Args:
            batch: as the loader yields it: per modality the tensors of its tower, and "present", which maps
                modalities to bool (B,).

        Returns:
            per modality, float32 (B, embed_dim) with rows of length one; a row that is not present is a constant
            unit vector without gradient.
        """
        return {name: self.encode(name, batch[name], batch["present"][name]) for name in self.modalities}

    def encode(self, modality: str, inputs: Mapping[str, Tensor], present: Tensor | None = None) -> Tensor:
        """Embed one modality.

        Args:
            modality: "text" with inputs "input_ids" and "attention_mask", "video" or one of images with "pixels",
                "audio" with "waveform" and "length", one of features with "features" and "length".
            inputs: the tensors of the tower, first dimension B; or, as the only one, "tower_output", what the body of
                the tower gave for them.
            present: bool (B,); default: all. The tower sees only the rows that are present.

        Returns:
            float32 (B, embed_dim), rows of length one.
        """
        if present is None or bool(present.all()):
            return self._embed(modality, inputs)
        rows = present.nonzero().squeeze(1)
        constants = unit_rows(torch.zeros(len(present), self.embed_dim, device=present.device))
        if len(rows) == 0:
            return constants
        return constants.index_copy(0, rows, self._embed(modality, {key: x[rows] for key, x in inputs.items()}))

    def _embed(self, modality: str, inputs: Mapping[str, Tensor]) -> Tensor:
        tower = cast(Tower, self.towers[modality])
        kept = inputs.get("tower_output")
        return unit_rows(self.heads[modality](tower(**inputs) if kept is None else tower.finish(kept)))

    def parameter_groups(self, config: OptimizerConfig) -> list[dict[str, Any]]:
        """Parameter groups for an optimiser: "name", "params", "lr", "weight_decay".

        Heads and temporal layers learn at `config.lr`, towers at `config.tower_lr` (default: the same), times
        `config.layer_decay` for each layer above a parameter. Biases, norms and other parameters that are vectors in
        effect do not decay. Frozen parameters are left out.
        """
        tower_rate = config.lr if config.tower_lr is None else config.tower_lr
        depths = {id(p): depth for tower in self.towers.values() for p, depth in cast(Tower, tower).depths()}
        groups: dict[str, dict[str, Any]] = {}
        for parameter in self.parameters():
            if not parameter.requires_grad:
                continue
            depth = depths.get(id(parameter))
            name, rate = "heads", config.lr
            if depth is not None:
                name, rate = "towers", tower_rate * config.layer_decay**depth
                if config.layer_decay < 1:
                    name = f"towers, {depth} below the top"
            decays = sum(size > 1 for size in parameter.shape) >= 2
            key = name if decays else f"{name}, no decay"
            decay = config.weight_decay if decays else 0.0
            empty: dict[str, Any] = {"name": key, "params": [], "lr": rate, "weight_decay": decay}
            groups.setdefault(key, empty)["params"].append(parameter)
        return list(groups.values())


def _tower(
    modality: str, config: ModelConfig, data: DataConfig, vocab_size: int | None, built: Mapping[str, Any] | None
) -> Tower:
    if modality == "text":
        if vocab_size is None:
            raise ValueError("Expected the number of tokens, vocab_size, for a model of text.")
        return TextEncoder(config.text, vocab_size, data.max_tokens, built=built)
    if modality == "video":
        return VideoEncoder(config.video, data.image_size, data.frames, built=built)
    if modality == "audio":
        return AudioEncoder(config.audio, data.sample_rate, built)
    if modality not in config.others:
        known = ", ".join((*BUILT_IN, *config.others))
        raise ValueError(f"Expected a modality among {known}, got {modality!r}.")
    section, tower = f"model.others.{modality}", config.others[modality]
    if isinstance(tower, ImageTowerConfig):
        return VideoEncoder(tower, data.image_size, 1, section, built)
    return FeatureEncoder(tower, section)
