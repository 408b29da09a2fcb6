"""The gradient of a step on several processes is that of one process with the whole batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cases.processes import on_processes
from cases.steps import CASES, config_of, gradients_after, learner_of, share_of, whole_batch
from mover.distributed.replicas import check_equal, whole
from mover.distributed.world import World
from mover.errors import UserError

IN_PARTS = ("mover", "gram, clips with gaps", "mover in float64")


def assert_equal(found: dict[str, Any], expected: dict[str, Any], tolerance: float, case: str) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(x.abs().max()) for x in expected.values() if isinstance(x, torch.Tensor) and x.numel())
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert found[name] is not None, f"{case}: {name} has no gradient"
            error = float((found[name] - value).abs().max()) / largest
            assert error <= tolerance, f"{case}: the gradient of {name} is off by {error:.1e} of the largest"
        elif isinstance(value, float):
            assert found[name] == pytest.approx(value, rel=max(1e-5, tolerance)), f"{case}: {name}"
        else:
            assert found[name] == value, f"{case}: {name}"


def tolerance_of(case: str) -> float:
    return 1e-10 if CASES[case].double else 1e-5


def compare(world: World, expected: dict[str, dict[str, Any]]) -> None:
    """On each process."""
    for case, alone in expected.items():
        for part in (0, 2) if case in IN_PARTS else (0,):
            assert_equal(gradients_after(CASES[case], world, micro_batch=part), alone, tolerance_of(case), case)
        if CASES[case].size % world.size == 0 and not CASES[case].gaps and not CASES[case].double:
            sharded = gradients_after(CASES[case], world, parallel="fsdp")
            assert_equal(sharded, alone, tolerance_of(case), f"{case}, fsdp")


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    torch.set_num_threads(1)
    return {name: gradients_after(case, World()) for name, case in CASES.items()}


@pytest.mark.parametrize("size", [2, 3, 4])
def test_gradients_are_those_of_one_process(alone: dict[str, dict[str, Any]], size: int) -> None:
    """Shares of 7, 9, 11 rows are uneven; clips lack modalities; one process lacks a modality that another has."""
    on_processes(size, compare, alone)


@pytest.mark.parametrize("part", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("case", IN_PARTS)
def test_gradients_do_not_depend_on_the_size_of_micro_batches(
    alone: dict[str, dict[str, Any]], case: str, part: int
) -> None:
    assert_equal(gradients_after(CASES[case], World(), micro_batch=part), alone[case], tolerance_of(case), case)


def test_a_modality_that_no_clip_has_leaves_its_tower_as_it_was(tmp_path: Path) -> None:
    on_processes(2, step_without_sound, tmp_path)
    for rank in range(2):
        gradients = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert {gradient is None for name, gradient in gradients.items() if "audio" in name} == {True}
        assert all(gradient is not None for name, gradient in gradients.items() if "text" in name)


def step_without_sound(world: World, folder: Path) -> None:
    case = CASES["pairs, one clip each and a modality that some processes lack"]
    learner = learner_of(case, config_of(case), world)
    batch = whole_batch(case)
    batch["present"]["audio"][:] = False
    learner.step(share_of(batch, world.share(case.size)), 0)
    torch.save({name: p.grad for name, p in learner.model.named_parameters()}, folder / f"{world.rank}.pt")


def train_and_disagree(world: World, folder: Path) -> None:
    case = CASES["mover"]
    learner = learner_of(case, config_of(case), world)
    torch.manual_seed(world.rank)
    for done in range(4):
        learner.step(share_of(whole_batch(case, done), world.share(case.size)), done)
    check_equal(learner.model, world, 4)
    torch.save(learner.model.state_dict(), folder / f"{world.rank}.pt")
    if world.rank == 1:
        with torch.no_grad():
            next(learner.model.parameters()).view(-1)[0] += 1e-7
    with pytest.raises(UserError, match="the weights of process 1 differ from those of process 0"):
        check_equal(learner.model, world, 5)


def test_replicas_stay_equal_to_the_last_bit_and_a_difference_is_found(tmp_path: Path) -> None:
    on_processes(3, train_and_disagree, tmp_path)
    first, *others = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(3))
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


class Spoiled(torch.nn.Module):
    """An objective whose value is not a number."""

    def __init__(self, objective: torch.nn.Module) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, *given: Any, **about: Any) -> dict[str, torch.Tensor]:
        return {name: value * float("nan") for name, value in self.objective(*given, **about).items()}


def leave_out_and_go_on(world: World, alone: dict[str, Any]) -> None:
    case = CASES["loop, gradient through the plan"]
    batch = share_of(whole_batch(case), world.share(case.size))
    for parallel in ("ddp", "fsdp"):
        learner = learner_of(case, config_of(case, parallel=parallel), world)
        spoiled = replace(learner, objective=Spoiled(learner.objective))
        for done in range(2):
            assert spoiled.step(batch, done).fault is not None
        before = {name: whole(p).clone() for name, p in learner.model.named_parameters()}
        step = learner.step(batch, 50)
        assert step.fault is None and step.norm == pytest.approx(alone["0 norm"], rel=1e-5)
        assert not all(torch.equal(whole(p), before[name]) for name, p in learner.model.named_parameters())


def test_processes_go_on_after_a_step_that_was_left_out(alone: dict[str, dict[str, Any]]) -> None:
    on_processes(2, leave_out_and_go_on, alone["loop, gradient through the plan"])
