"""Learning rates over a run, and what the optimiser holds."""

import itertools

import pytest
import torch
from torch import nn

from mover.config import OptimizerConfig
from mover.train.optimizer import build_optimizer, learning_rates, schedule, set_learning_rate


def test_schedule_by_hand() -> None:
    config = OptimizerConfig(warmup_fraction=0.2, final_lr_fraction=0.1)
    factors = [schedule(step, 10, config) for step in range(10)]
    assert factors[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert factors[6] == pytest.approx(0.1 + 0.9 * 0.5)  # half-way of the cosine
    assert all(a > b for a, b in itertools.pairwise(factors[2:]))
    assert factors[9] > 0.1


@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 1), (1.0, 4), (0.1, 1), (0.5, 3)])
def test_schedule_at_the_edges(warmup: float, steps: int) -> None:
    factors = [schedule(step, steps, OptimizerConfig(warmup_fraction=warmup)) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1


def test_groups_keep_their_peaks_and_temperatures_do_not_decay() -> None:
    model, objective = nn.Linear(3, 2), nn.Module()
    objective.log_temperature = nn.Parameter(torch.zeros(()))
    groups = [
        {"name": "towers", "params": [model.weight], "lr": 1e-5, "weight_decay": 0.01},
        {"name": "heads", "params": [model.bias], "lr": 1e-3, "weight_decay": 0.0},
    ]
    optimizer = build_optimizer(OptimizerConfig(lr=2e-3), groups, objective)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.01, 0.0, 0.0]
    for _ in range(2):  # not compounding
        set_learning_rate(optimizer, 0.5)
    assert learning_rates(optimizer) == {"towers": 0.5e-5, "heads": 0.5e-3, "temperatures": 1e-3}


def test_an_objective_without_parameters_adds_no_group() -> None:
    model = nn.Linear(2, 2)
    groups = [{"name": "all", "params": list(model.parameters()), "lr": 1e-3, "weight_decay": 0.0}]
    assert len(build_optimizer(OptimizerConfig(), groups, nn.Module()).param_groups) == 1
