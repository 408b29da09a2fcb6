"""One step of training, on one process or several: rows, the objective of the whole batch, its gradient, the update.

Every process encodes its share of the batch. The rows of all are gathered, and each process computes the objective of
the whole batch from them, on the same numbers; the gradient of its own rows goes back through the towers, and those of
the parameters are added up. So the step is that of one process with the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mover.config import Config
from mover.data.sampling import OBJECTIVE, generator
from mover.distributed.replicas import agree
from mover.distributed.world import World
from mover.losses import Objective
from mover.models.model import MoverModel
from mover.train.device import seeded, to_device
from mover.train.diagnostics import diagnose, gradient_norms, is_due
from mover.train.encoding import Encoding
from mover.train.optimizer import clip_gradients


@dataclass(frozen=True)
class Step:
    """What a step found.

    terms: the loss by term, and "total". norm: of the gradient, before clipping. fault: why the step was not taken, in
    words; None where it was. diagnostics: of a step that has some. rows: how many rows of each modality the whole
    batch had. stop: whether a process was asked to stop before this step.
    """

    terms: dict[str, float]
    norm: float
    fault: str | None
    diagnostics: dict[str, Any] | None
    rows: dict[str, int]
    stop: bool


@dataclass(frozen=True)
class Learner:
    """What learns, and where.

    model: the towers and heads. replica: what is called in its place (`mover.distributed.replicas`).
    """

    model: MoverModel
    replica: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    config: Config
    device: torch.device
    world: World = field(default_factory=World)

    def step(self, batch: Mapping[str, Any], done: int, stop: bool = False) -> Step:
        """Take the step after `done` ones. Where loss or gradient is not finite, nothing is changed.

        Args:
            batch: this process's share, as the loader yields it.
            done: steps before this one.
            stop: whether this process was asked to stop.
        """
        config, world = self.config, self.world
        self.model.train()
        inputs = to_device({name: batch[name] for name in ("present", *config.modalities)}, self.device)
        encoding = Encoding(self.replica, inputs, config.train.micro_batch, config.train.precision, self.device)
        z, about, stops = _of_all(encoding.rows, batch, stop, world, config.train.batch_size)
        rows = {m: int(flags.sum()) for m, flags in about["present"].items()}
        about = to_device(about, self.device)
        self.optimizer.zero_grad(set_to_none=True)

        def left_out(fault: str, terms: dict[str, float], norm: float = math.nan) -> Step:
            self.optimizer.zero_grad(set_to_none=True)
            return Step(terms, norm, fault, None, rows, stops)

        flags = [found.detach().isfinite().all() for found in z.values()]
        finite = torch.stack(flags).tolist()  # the device waits once
        bad = [m for m, is_finite in zip(z, finite, strict=True) if not is_finite]
        if bad:
            return left_out(f"embeddings of {bad[0]} are not finite", {"total": math.nan})
        with seeded(int(generator(config.seed, OBJECTIVE, done).integers(2**62)), self.device):
            named = self.objective(z, done / config.train.steps, step=done, **about)
        values = torch.stack([term.detach().float() for term in named.values()]).tolist()
        terms = dict(zip(named, values, strict=True))
        bad = [name for name, value in terms.items() if not math.isfinite(value)]
        if bad:
            return left_out(f"the loss term '{bad[0]}' is {terms[bad[0]]}", terms)

        named["total"].backward()
        agree(self.objective.parameters(), world)
        encoding.backward(_own_gradients(z, world, config.train.batch_size))
        found = None
        if is_due(done + 1, config.train):
            found = diagnose(z, self.objective, seed=config.seed, step=done + 1, **about)
            found["gradients"] = gradient_norms(self.model, self.objective)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = clip_gradients(parameters, config.optimizer.clip_norm)
        if not math.isfinite(norm):
            return left_out(f"the norm of the gradient is {norm}", terms, norm)
        self.optimizer.step()
        return Step(terms, norm, None, found, rows, stops)


def _of_all(
    own: Mapping[str, Tensor], batch: Mapping[str, Any], stop: bool, world: World, size: int
) -> tuple[dict[str, Tensor], dict[str, Any], bool]:
    """Of the whole batch, in one exchange: its rows (B, d), which take a gradient; what the objective is told beside,
    on the CPU; and whether any process was asked to stop."""
    present, owner = batch["present"], batch["owner"]
    stops = torch.full((len(next(iter(present.values()))),), stop)
    parts = [*own.values(), *present.values(), *(owner[m] for m in present), stops]
    found = iter(world.gather(parts, world.shares(size)))
    z = {m: next(found).detach().requires_grad_() for m in own}
    about: dict[str, Any] = {"aligned": batch["aligned"], "together": batch["together"]}
    about["present"] = {m: next(found) for m in present}
    about["owner"] = {m: next(found) for m in present}
    return z, about, bool(next(found).any())


def _own_gradients(z: Mapping[str, Tensor], world: World, size: int) -> dict[str, Tensor]:
    """The gradients of this process's rows, times the number of processes, by which sums will be divided."""
    share = world.share(size)
    gradients = {m: torch.zeros_like(rows) if rows.grad is None else rows.grad for m, rows in z.items()}
    return {m: gradient[share] * world.size if world.several else gradient for m, gradient in gradients.items()}
