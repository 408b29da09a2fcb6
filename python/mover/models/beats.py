"""BEATs: a transformer over patches of a log-mel spectrogram (Chen et al., 2023), with the official parameter names.

Post-norm layers with the residual scaled up (DeepNorm), a convolution for absolute positions, and for relative ones
a bias per bucketed distance, the same table in every layer, which each query scales by a gate of its own.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mover.errors import UserError
from mover.models.filterbank import MEL_BINS
from mover.models.sizes import require_multiple

_GATE_GROUP = 4  # outputs of grep_linear summed into each of the two gates


@dataclass(frozen=True)
class BeatsConfig:
    """Sizes of a BEATs network; the defaults are those of the official iter3 models."""

    patch_size: int = 16
    embed_dim: int = 512
    layers: int = 12
    hidden_size: int = 768
    intermediate_size: int = 3072
    heads: int = 12
    conv_pos: int = 128
    conv_pos_groups: int = 16
    buckets: int = 320
    max_distance: int = 800
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_multiple("model.audio.hidden_size", self.hidden_size, "model.audio.heads", self.heads)
        require_multiple(
            "model.audio.hidden_size", self.hidden_size, "model.audio.conv_pos_groups", self.conv_pos_groups
        )
        require_multiple("the number of mel bins", MEL_BINS, "model.audio.patch_size", self.patch_size)

    @property
    def residual_scale(self) -> float:
        """DeepNorm's alpha, (2 layers)^(1/4)."""
        return (2 * self.layers) ** 0.25

    @property
    def initial_gain(self) -> float:
        """DeepNorm's beta, (8 layers)^(-1/4)."""
        return (8 * self.layers) ** -0.25

    @classmethod
    def from_official(cls, cfg: Mapping[str, Any], dropout: float) -> BeatsConfig:
        """The configuration an official checkpoint states in its `cfg`.

        Raises:
            UserError: a size is missing or no positive integer, or a switch asks for a variant not built here.
        """
        sizes = {}
        for own, official in _OFFICIAL_SIZES.items():
            value = cfg.get(official)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
                raise UserError(
                    f"cfg.{official} must be a positive integer up to {_LARGEST}, got {reprlib.repr(value)}. Give an "
                    "official BEATs file."
                )
            sizes[own] = value
        for official, (expected, default) in _OFFICIAL_SWITCHES.items():
            value = cfg.get(official, default)
            if value != expected:
                raise UserError(
                    f"cfg.{official} is {reprlib.repr(value)}, but only BEATs with {expected!r} is supported, as in "
                    "the official iter1 to iter3 files. Give one of those."
                )
        return cls(**sizes, dropout=dropout)


_OFFICIAL_SIZES = {
    "patch_size": "input_patch_size",
    "embed_dim": "embed_dim",
    "layers": "encoder_layers",
    "hidden_size": "encoder_embed_dim",
    "intermediate_size": "encoder_ffn_embed_dim",
    "heads": "encoder_attention_heads",
    "conv_pos": "conv_pos",
    "conv_pos_groups": "conv_pos_groups",
    "buckets": "num_buckets",
    "max_distance": "max_distance",
}
# Name in cfg: (the value built here, what an absent entry means).
_OFFICIAL_SWITCHES: dict[str, tuple[object, object]] = {
    "activation_fn": ("gelu", "gelu"),
    "conv_bias": (False, False),
    "layer_norm_first": (False, False),
    "deep_norm": (True, False),
    "relative_position_embedding": (True, False),
    "gru_rel_pos": (True, False),
}


_LARGEST = 1_000_000


def claimed_sizes(cfg: Mapping[str, Any]) -> tuple[int, int]:
    """Layers and parameters, those of its matrices alone, that the `cfg` of an official checkpoint asks for.

    A size that is no positive integer counts as 0; `BeatsConfig.from_official` refuses it.
    """
    sizes = {own: cfg.get(official) for own, official in _OFFICIAL_SIZES.items()}
    known = {own: value if isinstance(value, int) and value > 0 else 0 for own, value in sizes.items()}
    layers, width, embed = known["layers"], known["hidden_size"], known["embed_dim"]
    positions = (
        width * (width // (known["conv_pos_groups"] or 1)) * known["conv_pos"] + known["buckets"] * known["heads"]
    )
    patches = embed * (known["patch_size"] ** 2 + width)
    return layers, layers * width * (4 * width + 2 * known["intermediate_size"]) + positions + patches


def relative_buckets(distance: Tensor, buckets: int = 320, max_distance: int = 800) -> Tensor:
    """Bucket of each signed distance j - i between a key j and a query i.

    Half the buckets serve keys before or at the query, half keys after it. In each half, small distances have one
    bucket each and larger ones share buckets of logarithmic width, up to max_distance.

    Args:
        distance: int64, any shape.
        buckets: their number in all.
        max_distance: beyond it all distances fall into the last bucket of their side.

    Returns:
        int64 in [0, buckets), same shape.
    """
    side = buckets // 2
    exact = side // 2
    length = distance.abs()
    position = torch.log(length.clamp_min(1).float() / exact) / math.log(max_distance / exact)
    shared = (exact + (position * (side - exact)).long()).clamp_max(side - 1)
    return torch.where(length < exact, length, shared) + side * (distance > 0)


class PositionalConvolution(nn.Module):
    """Grouped convolution over tokens, its weight normalised per kernel tap (weight_norm over dim 2)."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.bias = nn.Parameter(torch.zeros(width))
        self.weight_v = nn.Parameter(
            torch.randn(width, width // groups, kernel) * (groups / (4 * kernel * width)) ** 0.5
        )
        self.weight_g = nn.Parameter(self.weight_v.detach().norm(dim=(0, 1), keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, L, C) along L, zeros beyond both ends; the same shape."""
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))
        if weight.shape[2] % 2 == 0:
            # A last tap of zero makes the kernel odd, with the same result at every token. oneDNN gives wrong numbers
            # for even kernels with few channels per group in bfloat16.
            weight = F.pad(weight, (0, 1))
        x = F.conv1d(x.transpose(1, 2), weight, self.bias, padding=weight.shape[2] // 2, groups=self.groups)
        return x.transpose(1, 2)


class GatedAttention(nn.Module):
    """Multi-head attention with a relative-position bias, scaled per query by a gate.

    attention: "sdpa", "eager", or "auto", the faster one for the device.
    """

    attention: Literal["auto", "sdpa", "eager"] = "auto"

    def __init__(self, config: BeatsConfig, relative_attention_bias: nn.Embedding) -> None:
        super().__init__()
        width, self.heads = config.hidden_size, config.heads
        self.dropout = config.dropout
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.grep_linear = nn.Linear(width // config.heads, 2 * _GATE_GROUP)
        self.grep_a = nn.Parameter(torch.ones(1, config.heads, 1, 1))
        self.relative_attention_bias = relative_attention_bias
        for linear, gain in (
            (self.q_proj, 1.0),
            (self.k_proj, 1.0),
            (self.v_proj, config.initial_gain),
            (self.out_proj, config.initial_gain),
        ):
            nn.init.xavier_normal_(linear.weight, gain=gain)
            nn.init.zeros_(linear.bias)

    def gate(self, q: Tensor) -> Tensor:
        """Factor on the bias of each query: unscaled queries (B, H, L, w/H) to (B, H, L, 1)."""
        # The sum over each group of outputs is a linear map too: sum the weights instead.
        weight = self.grep_linear.weight.unflatten(0, (2, _GATE_GROUP)).sum(1)
        bias = self.grep_linear.bias.unflatten(0, (2, _GATE_GROUP)).sum(1)
        a, b = torch.sigmoid(F.linear(q, weight, bias)).split(1, dim=-1)
        return a * (b * self.grep_a - 1) + 2

    def forward(self, x: Tensor, bias: Tensor, key_mask: Tensor) -> Tensor:
        """Attend.

        Args:
            x: (B, L, width).
            bias: (H, L, L), the relative-position bias of query i (rows) and key j.
            key_mask: (B, 1, 1, L), added to the logits: 0, or -inf for keys that do not count.

        Returns:
            (B, L, width).
        """
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, L, w/H)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        gate, bias, key_mask = (t.to(q.dtype) for t in (self.gate(q), bias, key_mask))
        eager = x.device.type == "cpu" if self.attention == "auto" else self.attention == "eager"
        attend = explicit_attention if eager else fused_attention
        mixed = attend(q, k, v, gate, bias, key_mask, self.dropout if self.training else 0.0)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor, key_mask: Tensor, dropout: float = 0.0
) -> Tensor:
    """softmax(q kᵀ / sqrt(w) + gate * bias + key_mask) v by torch's fused kernels.

    Args:
        q, k, v: (B, H, L, w).
        gate: (B, H, L, 1).
        bias: (H, L, L).
        key_mask: (B, 1, 1, L), no gradient.
        dropout: share of the attention weights dropped.

    Returns:
        (B, H, L, w).
    """
    offset = torch.addcmul(key_mask, gate, bias)  # (B, H, L, L)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=offset, dropout_p=dropout)


def explicit_attention(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor, key_mask: Tensor, dropout: float = 0.0
) -> Tensor:
    """`fused_attention` by plain products: faster on CPUs, whose fused kernel has no gradient for an additive term."""
    weights = _GatedLogits.apply(q, k, gate, bias, key_mask).softmax(-1)
    return (F.dropout(weights, dropout) if dropout else weights) @ v


class _GatedLogits(torch.autograd.Function):
    """q kᵀ / sqrt(w) + gate * bias + key_mask, (B, H, L, L), with few passes over arrays of that size.

    Arguments as in `fused_attention`.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, gate: Tensor, bias: Tensor, key_mask: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, gate, bias)
        logits = torch.addcmul(key_mask, gate, bias)
        keys = k.flatten(0, 1).transpose(1, 2)
        logits.view(-1, *bias.shape[1:]).baddbmm_(q.flatten(0, 1), keys, alpha=q.shape[-1] ** -0.5)
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        q, k, gate, bias = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        per_query = grad.permute(1, 2, 0, 3)  # (H, L, B, L): the sums below are products with one row or column
        gate_grad = (per_query @ bias.unsqueeze(-1)).permute(2, 0, 1, 3)
        bias_grad = (gate.permute(1, 2, 3, 0) @ per_query).squeeze(2)
        return grad @ (k * scale), grad.transpose(-1, -2) @ (q * scale), gate_grad, bias_grad, None


class BeatsLayer(nn.Module):
    """Attention and feed-forward, each followed by LayerNorm of the scaled residual and the result."""

    def __init__(self, config: BeatsConfig, relative_attention_bias: nn.Embedding) -> None:
        super().__init__()
        self.residual_scale = config.residual_scale
        self.dropout = config.dropout
        self.self_attn = GatedAttention(config, relative_attention_bias)
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden_size)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size)
        for linear in (self.fc1, self.fc2):
            nn.init.xavier_normal_(linear.weight, gain=config.initial_gain)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, bias: Tensor, key_mask: Tensor) -> Tensor:  # (B, L, width) -> (B, L, width)
        attended = self._dropped(self.self_attn(x, bias, key_mask))
        x = self.self_attn_layer_norm(torch.add(attended, x, alpha=self.residual_scale))
        hidden = self._dropped(self.fc2(F.gelu(self.fc1(x))))
        return self.final_layer_norm(torch.add(hidden, x, alpha=self.residual_scale))

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout else x


class BeatsEncoder(nn.Module):
    """Positions and transformer layers over tokens."""

    buckets: Tensor

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.max_distance = config.max_distance
        convolution = PositionalConvolution(config.hidden_size, config.conv_pos, config.conv_pos_groups)
        self.pos_conv = nn.Sequential(convolution, nn.GELU())
        self.layer_norm = nn.LayerNorm(config.hidden_size)
        table = nn.Embedding(config.buckets, config.heads)
        nn.init.normal_(table.weight, std=0.02)
        self.layers = nn.ModuleList(BeatsLayer(config, table) for _ in range(config.layers))
        distances = torch.arange(-config.max_distance, config.max_distance + 1, device="cpu")
        buckets = relative_buckets(distances, config.buckets, config.max_distance)
        self.register_buffer("buckets", buckets, persistent=False)

    def relative_bias(self, length: int) -> Tensor:
        """The bias table[bucket(j - i)] before gating, (H, L, L)."""
        table = cast(BeatsLayer, self.layers[0]).self_attn.relative_attention_bias
        reach = min(length - 1, self.max_distance)
        buckets = self.buckets[self.max_distance - reach : self.max_distance + reach + 1]
        beyond = length - 1 - reach  # distances past the table's share its outermost buckets
        buckets = torch.cat([buckets[:1].expand(beyond), buckets, buckets[-1:].expand(beyond)])
        by_distance = table(buckets).t()  # (H, 2L-1), from -(L-1) to L-1
        return by_distance.unfold(1, length, 1).flip(1)  # row i starts at distance -i

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Encode tokens.

        Args:
            x: (B, L, width).
            valid: bool (B, L). Other tokens are zeroed and never attended to. A row without any attends to zeros.

        Returns:
            (B, L, width); what stands at tokens that are not valid has no meaning, but is finite.
        """
        x = x.masked_fill(~valid.unsqueeze(-1), 0)
        x = self.layer_norm(x + self.pos_conv(x))
        if self.layer_norm.training and self.dropout:  # not where all below the first layer is frozen
            x = F.dropout(x, self.dropout)
        bias = self.relative_bias(x.shape[1])
        attended = valid | ~valid.any(1, keepdim=True)
        key_mask = torch.zeros_like(valid, dtype=torch.float32).masked_fill_(~attended, -math.inf)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, bias, key_mask)
        return x


class Beats(nn.Module):
    """The network from filter-bank features to tokens. State-dict keys are those of the official checkpoints.

    All layers share one table of relative positions, so it appears once per layer in the state dict; to write the
    parameters as safetensors use `safetensors.torch.save_model`, which stores shared tensors once.
    """

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, config.patch_size, stride=config.patch_size, bias=False)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        self.post_extract_proj = nn.Linear(config.embed_dim, config.hidden_size)
        self.encoder = BeatsEncoder(config)
        nn.init.xavier_normal_(self.post_extract_proj.weight)
        nn.init.zeros_(self.post_extract_proj.bias)

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one patch in time: one per band of `patch_size` mel bins."""
        return MEL_BINS // self.config.patch_size

    def forward(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encode spectrograms.

        Args:
            features: float32 (B, T, 128) from the filter bank, T >= patch_size.
            frames: int64 (B,), how many of the T frames are sound. A patch counts if all its frames do.

        Returns:
            tokens (B, L, width), time-major, with L = 128 / patch_size * (T // patch_size), and their
            validity, bool (B, L).
        """
        patch, bands = self.config.patch_size, self.tokens_per_step
        outside = torch.arange(features.shape[1], device=features.device) >= frames.unsqueeze(1)
        features = features.masked_fill(outside.unsqueeze(-1), 0)
        x = self.patch_embedding(features.unsqueeze(1)).flatten(2).transpose(1, 2)  # (B, L, embed)
        x = self.post_extract_proj(self.layer_norm(x))
        tokens = bands * torch.div(frames, patch, rounding_mode="floor")
        valid = torch.arange(x.shape[1], device=x.device) < tokens.unsqueeze(1)
        return self.encoder(x, valid), valid
