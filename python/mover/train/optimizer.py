"""AdamW over the model's and the objective's parameters, and the learning rate over the run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm

from mover.config import OptimizerConfig
from mover.distributed.replicas import whole


def build_optimizer(
    config: OptimizerConfig, model_groups: list[dict[str, Any]], objective: nn.Module
) -> torch.optim.AdamW:
    """AdamW over the groups of `MoverModel.parameter_groups` and the temperatures of the objective.

    Every group keeps its peak learning rate under "peak_lr"; `set_learning_rate` scales it.
    """
    groups = [dict(group) for group in model_groups]
    temperatures = [p for p in objective.parameters() if p.requires_grad]
    if temperatures:
        groups.append({"name": "temperatures", "params": temperatures, "lr": config.lr, "weight_decay": 0.0})
    for group in groups:
        group["peak_lr"] = group["lr"]
    return torch.optim.AdamW(groups, betas=config.betas)


def schedule(step: int, steps: int, config: OptimizerConfig) -> float:
    """Share of the peak learning rate at `step` (0-based) of `steps`: linear warm-up, then half a cosine."""
    warmup = round(config.warmup_fraction * steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.final_lr_fraction + (1 - config.final_lr_fraction) * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to `factor` of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The current learning rates by group; groups of one name that differ only in weight decay count once."""
    return {group.get("name", f"group {i}"): group["lr"] for i, group in enumerate(optimizer.param_groups)}


def clip_gradients(parameters: Iterable[nn.Parameter], bound: float | None) -> float:
    """The norm of the gradient of all parameters, which is then scaled down to `bound` if it is longer; None: not."""
    learning = [p for p in parameters if p.grad is not None]
    most = math.inf if bound is None else bound
    shards, plain = ([p for p in learning if isinstance(p, DTensor) is there] for there in (True, False))
    if not shards:
        return float(clip_grad_norm_(plain, most))
    norms = [
        whole(get_total_norm([p.grad for p in part if p.grad is not None])) for part in (shards, plain) if part
    ]  # fmt: skip
    norm = torch.linalg.vector_norm(torch.stack(norms))
    for part in (shards, plain):
        clip_grads_with_norm_(part, most, norm)
    return float(norm)
