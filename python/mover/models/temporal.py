"""A small transformer over the frames of a clip, or the rows of its features, that starts as the identity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mover.models.sizes import require_multiple


class TemporalLayer(nn.Module):
    """Pre-norm attention and feed-forward, both added to their input; both output maps start at zero."""

    def __init__(self, width: int, heads: int, intermediate_size: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Linear(width, intermediate_size)
        self.feed_forward_out = nn.Linear(intermediate_size, width)
        for linear in (self.qkv, self.feed_forward):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in (self.attention_out, self.feed_forward_out):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor | None = None) -> Tensor:
        """x (B, F, w), positions (F, w) -> (B, F, w); valid: bool (B, F), which frames are there, None all.

        Others are not attended to; in a row of the batch without any all are, so that it stays finite.
        """
        mask = None
        if valid is not None:
            mask = (valid | ~valid.any(1, keepdim=True))[:, None, None, :]  # (B, 1, 1, F)
        dropout = self.dropout if self.training else 0.0
        qkv = self.qkv(self.attention_norm(x) + positions)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, F, w/H)
        mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout).transpose(1, 2).flatten(2)
        x = x + F.dropout(self.attention_out(mixed), dropout)
        hidden = F.gelu(self.feed_forward(self.feed_forward_norm(x)))
        return x + F.dropout(self.feed_forward_out(hidden), dropout)


class TemporalTransformer(nn.Module):
    """Transformer layers over frames, the identity until trained.

    Learned frame positions enter inside each layer's attention, not the stream, so they do not disturb the identity.
    """

    def __init__(
        self, width: int, frames: int, layers: int, heads: int, intermediate_size: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        require_multiple("the width of the video tower", width, "model.video.heads", heads)
        self.positions = nn.Parameter(torch.empty(frames, width))
        nn.init.trunc_normal_(self.positions, std=0.5)
        self.layers = nn.ModuleList(TemporalLayer(width, heads, intermediate_size, dropout) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Mix the frames of each clip: float (B, F, width) to the same shape.

        Raises:
            ValueError: more frames than the model has positions for.
        """
        frames = x.shape[1]
        if frames > len(self.positions):
            raise ValueError(
                f"The model has positions for {len(self.positions)} frames and was given {frames}; "
                "set data.frames to the number it was trained with."
            )
        for layer in self.layers:
            x = layer(x, self.positions[:frames])
        return x
