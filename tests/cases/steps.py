"""Steps of training on one process and on several, to be compared: batches, learners, and what a step leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mover.config import Config
from mover.configs import load_config
from mover.distributed.replicas import check_equal, replicate, whole
from mover.distributed.world import World
from mover.losses import build_objective
from mover.models.model import MoverModel
from mover.train.optimizer import build_optimizer
from mover.train.step import Learner

VOCABULARY = 50
CLIPS = 30
_SMALL = {"layers": 2, "hidden_size": 16, "heads": 2, "intermediate_size": 16, "dropout": 0.0}
_MODEL = {
    "model.embed_dim": 8, "model.video.temporal_layers": 1, "model.audio.embed_dim": 16,
    **{f"model.{tower}.{name}": value for tower in ("text", "video", "audio") for name, value in _SMALL.items()},
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A step: the settings on top of the common ones, and what its batch is like."""

    modalities: tuple[str, ...] = ("text", "video", "audio")
    settings: tuple[tuple[str, Any], ...] = ()
    size: int = 7
    steps: int = 1
    aligned: int | None = None
    together: tuple[str, ...] = ()
    gaps: bool = False
    double: bool = False


_AT_ONCE = (("objective.matching.start", 0), ("objective.matching.warmup", 0))
CASES = {
    "mover": Case(settings=(("objective.preset", "mover"), ("objective.mover_warmup", 0))),
    "gram, clips with gaps": Case(settings=(("objective.preset", "gram"),), gaps=True),
    "pairs, one clip each and a modality that some processes lack": Case(
        settings=(("objective.preset", "pairwise"),), size=4, gaps=True
    ),
    "groups of unaligned rows": Case(
        settings=(("objective.preset", "mover-sets"), *_AT_ONCE),
        size=11, aligned=4, together=("video", "audio"),
    ),
    "pool": Case(
        settings=(("objective.preset", "mover-pool"), *_AT_ONCE),
        size=9, steps=2, aligned=3,
    ),
    "loop, gradient through the plan": Case(
        settings=(("objective.preset", "ot-loop"), ("objective.ot_warmup", 0)), size=6
    ),
    "mover in float64": Case(
        settings=(("objective.preset", "mover"), ("objective.mover_warmup", 0)), gaps=True, double=True
    ),
    "loop in float64": Case(
        settings=(("objective.preset", "ot-loop"), ("objective.ot_warmup", 0)), size=10, double=True
    ),
}  # fmt: skip


def config_of(case: Case, **more: Any) -> Config:
    """The configuration of a case; `more`: settings of `train`."""
    settings = {
        "modalities": case.modalities, "data.image_size": 32, "data.frames": 2, "data.audio_seconds": 0.5,
        "data.max_tokens": 8, "data.missing": "mask", **_MODEL, "train.batch_size": case.size,
        "train.steps": 100, "train.diagnose_every": 0, "objective.anchor": "text", **dict(case.settings),
        **{f"train.{name}": value for name, value in more.items()},
    }  # fmt: skip
    if case.aligned is not None:
        settings |= {"data.aligned_fraction": 0.5}
    return load_config(None, settings)


def whole_batch(case: Case, step: int = 0) -> dict[str, Any]:
    """The batch of all processes."""
    random = torch.Generator().manual_seed(step)
    size = case.size

    def flags(least: int) -> Tensor:
        if not case.gaps:
            return torch.ones(size, dtype=torch.bool)
        there = torch.rand(size, generator=random) > 0.5
        there[:least] = True
        return there

    present = {m: flags(2) for m in case.modalities}
    present[case.modalities[0]] = torch.ones(size, dtype=torch.bool)
    if case.double:
        inputs = {m: {"points": torch.randn(size, 5, generator=random).double()} for m in case.modalities}
    else:
        inputs = _media(size, random)
    owner = {m: torch.randperm(CLIPS, generator=random)[:size] for m in case.modalities}
    return {
        "present": present, **inputs, "owner": owner,
        "aligned": size if case.aligned is None else case.aligned, "together": case.together,
    }  # fmt: skip


def _media(size: int, random: torch.Generator) -> dict[str, dict[str, Tensor]]:
    return {
        "text": {
            "input_ids": torch.randint(5, VOCABULARY, (size, 6), generator=random),
            "attention_mask": torch.ones(size, 6, dtype=torch.int64),
        },
        "video": {"pixels": torch.randint(0, 256, (size, 2, 3, 32, 32), dtype=torch.uint8, generator=random)},
        "audio": {
            "waveform": 0.1 * torch.randn(size, 8000, generator=random),
            "length": torch.randint(5000, 8001, (size,), generator=random),
        },
    }


class DoubleTowers(nn.Module):
    """In place of `MoverModel`, whose rows are float32."""

    def __init__(self, modalities: Sequence[str]) -> None:
        super().__init__()
        self.towers = nn.ModuleDict({m: nn.Linear(5, 8, dtype=torch.float64) for m in modalities})

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        first = nn.functional.one_hot(torch.tensor(0), 8).double()
        found = {}
        for m, tower in self.towers.items():
            there = batch["present"][m]
            found[m] = first.expand(len(there), -1).clone()
            if there.any():
                rows = nn.functional.normalize(tower(batch[m]["points"][there]).tanh(), dim=1)
                found[m] = found[m].index_copy(0, there.nonzero().squeeze(1), rows)
        return found


def share_of(batch: dict[str, Any], share: slice) -> dict[str, Any]:
    """The rows of one process."""

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[share]
        return {key: cut(entry) for key, entry in value.items()} if isinstance(value, dict) else value

    return {key: cut(value) for key, value in batch.items()}


def learner_of(case: Case, config: Config, world: World) -> Learner:
    """Equal on all processes."""
    torch.manual_seed(3)
    model: Any = MoverModel(config.model, config.data, config.modalities, VOCABULARY)
    objective = build_objective(config.objective, config.modalities, (CLIPS, config.model.embed_dim))
    cpu = torch.device("cpu")
    if case.double:
        model, objective = DoubleTowers(config.modalities), objective.double()
    replica = replicate(model, world, config.train.parallel, cpu)
    if case.double:
        groups = [{"params": list(model.parameters()), "lr": 1e-3}]
    else:
        groups = model.parameter_groups(config.optimizer)
    optimizer = build_optimizer(config.optimizer, groups, objective)
    return Learner(model, replica, objective, optimizer, config, cpu, world)


def gradients_after(case: Case, world: World, **train: Any) -> dict[str, Any]:
    """Loss terms, norm and the gradients of all parameters (None of what had no part) after each of the case's steps.

    The weights stay as they are, but what the objective keeps does not.
    """
    steps = case.steps
    config = config_of(case, **train)
    learner = learner_of(case, config, world)
    found: dict[str, Any] = {}
    for done in range(steps):
        for group in learner.optimizer.param_groups:
            group["lr"] = group["weight_decay"] = 0.0
        batch = share_of(whole_batch(case, done), world.share(case.size))
        step = learner.step(batch, done + 50)
        assert step.fault is None
        named = [*learner.model.named_parameters(), *learner.objective.named_parameters()]
        gradients = {name: None if p.grad is None else whole(p.grad).clone() for name, p in named}
        found |= {f"{done} {name}": gradient for name, gradient in gradients.items()}
        found |= {f"{done} term {name}": value for name, value in step.terms.items()}
        found |= {f"{done} norm": step.norm, f"{done} rows": step.rows}
    check_equal(learner.model, world, steps)
    return found
