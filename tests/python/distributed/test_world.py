"""What processes exchange."""

from __future__ import annotations

import pytest
import torch

from cases.processes import on_processes
from mover.distributed.replicas import agree
from mover.distributed.world import World

SIZES = (7, 2, 3)  # of batches: uneven shares; one process without a row; one row each
LARGE = 2**62 + 1  # no float holds it


def whole(size: int) -> list[torch.Tensor]:
    """Rows of every kind that a step gathers, some of values that only their bits tell apart."""
    rows = torch.arange(size * 6, dtype=torch.float32).view(size, 2, 3)
    rows[0, 0, :2] = torch.tensor([torch.nan, -0.0])
    names = torch.stack([torch.arange(size), torch.full((size,), LARGE)], dim=1)
    return [rows, names, rows.flatten(1).double() / 3, rows.flatten(1) > 2, names[:, 1].clone(), rows[:, 1, 1] > 2]


def gather(world: World) -> None:
    for size in SIZES:
        expected, shares = whole(size), world.shares(size)
        own = [tensor[world.share(size)] for tensor in expected]
        own[0] = own[0].clone().requires_grad_()
        for tensors in (range(6), [3, 1], [2], [5, 4]):
            found = world.gather([own[i] for i in tensors], shares)
            for i, tensor in zip(tensors, found, strict=True):
                assert tensor.dtype == expected[i].dtype and tensor.shape == expected[i].shape
                assert torch.equal(tensor.view(torch.uint8), expected[i].view(torch.uint8))
                assert not tensor.requires_grad


def test_rows_of_all_processes_are_gathered_to_the_last_bit() -> None:
    on_processes(3, gather)


def test_one_process_gathers_its_own_rows() -> None:
    own = whole(3)
    assert all(found is tensor for found, tensor in zip(World().gather(own, [3]), own, strict=True))


def take(world: World) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((), (2, 3), (4,))]
    for parameter in parameters[:2]:
        parameter.grad = torch.full_like(parameter, 1.0 + world.rank)
    agree(parameters, world)
    assert [parameter.grad is None for parameter in parameters] == [False, False, True]
    assert all(torch.equal(parameter.grad, torch.ones_like(parameter)) for parameter in parameters[:2])  # type: ignore[arg-type]
    agree(parameters[2:], world)


@pytest.mark.parametrize("size", [2, 3])
def test_gradients_that_each_computed_become_those_of_the_first(size: int) -> None:
    on_processes(size, take)
