"""A small tower over features that were computed elsewhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mover.config import FeatureTowerConfig
from mover.models.sizes import require_multiple
from mover.models.temporal import TemporalLayer
from mover.models.tower import Tower


class FeatureEncoder(Tower):
    """Rows of features to vectors: layer norm, linear map, transformer layers over the rows, mean of the rows.

    Has no body: all of it is new in every run, and learns as heads do.

    Args:
        config: sizes.
        section: of the configuration, for the messages.

    Raises:
        UserError: sizes that do not fit.
    """

    def __init__(self, config: FeatureTowerConfig, section: str) -> None:
        super().__init__()
        if config.layers:
            require_multiple(f"{section}.hidden_size", config.hidden_size, f"{section}.heads", config.heads)
        self.width = config.hidden_size
        self.norm = nn.LayerNorm(config.input_size)
        self.linear = nn.Linear(config.input_size, config.hidden_size)
        self.layers = nn.ModuleList(
            TemporalLayer(config.hidden_size, config.heads, config.intermediate_size, config.dropout)
            for _ in range(config.layers)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor, length: Tensor) -> Tensor:
        """Encode features.

        Args:
            features: float32 (B, T, input_size). Rows from `length` on have no influence.
            length: int64 (B,), rows of each clip.

        Returns:
            float32 (B, width), zero for a clip without rows.
        """
        valid = torch.arange(features.shape[1], device=features.device) < length.unsqueeze(1)  # (B, T)
        rows = torch.where(valid.unsqueeze(2), features, 0)
        x = self.dropout(self.linear(self.norm(rows)))  # (B, T, width)
        if len(self.layers):
            positions = row_positions(x.shape[1], self.width, x.device).to(x.dtype)
            for layer in self.layers:
                x = layer(x, positions, valid)
        x = torch.where(valid.unsqueeze(2), x.float(), 0)
        return x.sum(1) / length.clamp(min=1).unsqueeze(1)


def row_positions(count: int, width: int, device: torch.device | None = None) -> Tensor:
    """float32 (count, width): sines and cosines of the row's number, of wavelengths from 2π to 10,000 · 2π rows.

    Source: Attention Is All You Need, section 3.5.
    """
    half = (width + 1) // 2
    rates = torch.exp(-math.log(10000.0) * torch.arange(half, device=device) / max(half - 1, 1))
    angles = torch.arange(count, device=device).unsqueeze(1) * rates  # (count, half)
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]
