"""Checkpoints in the form of the public ones, small, with random weights."""

from __future__ import annotations

from typing import Any

import torch

from mover.models.beats import Beats, BeatsConfig

SIZES = BeatsConfig(
    embed_dim=8,
    layers=2,
    hidden_size=32,
    intermediate_size=24,
    heads=4,
    conv_pos=8,
    conv_pos_groups=2,
    max_distance=400,
)


def official_beats(layers: int = 2) -> dict[str, Any]:
    """What an official BEATs file holds, with SIZES: `cfg` with every field of the official ones, and `model`."""
    cfg = {
        "input_patch_size": 16, "embed_dim": 8, "conv_bias": False, "encoder_layers": layers, "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 24, "encoder_attention_heads": 4, "activation_fn": "gelu",
        "layer_wise_gradient_decay_ratio": 0.6, "layer_norm_first": False, "deep_norm": True, "dropout": 0.1,
        "attention_dropout": 0.1, "activation_dropout": 0.0, "encoder_layerdrop": 0.05, "dropout_input": 0.0,
        "conv_pos": 8, "conv_pos_groups": 2, "relative_position_embedding": True, "num_buckets": 320,
        "max_distance": 400, "gru_rel_pos": True, "finetuned_model": False,
    }  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    empty = Beats(BeatsConfig(**{**vars(SIZES), "layers": layers})).state_dict()
    model = {key: torch.randn(value.shape, generator=generator) for key, value in empty.items()}
    table = model["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    for layer in range(1, layers):
        model[f"encoder.layers.{layer}.self_attn.relative_attention_bias.weight"] = table.clone()
    return {"cfg": cfg, "model": model}
