"""Squared distances: values, digits of close rows, gradients."""

import pytest
import torch

from cases.operators import unit_rows
from cases.tolerance import assert_accurate
from mover import ops, reference

SIZES = [(1, 1, 1), (3, 2, 5), (31, 33, 17), (32, 32, 64), (129, 127, 31)]


def plain(x, y):
    """What one would write in torch: differences where they fit in memory."""
    return (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "m", "d"), SIZES)
def test_values(n, m, d, dtype):
    x, y = unit_rows(n, d, dtype=dtype), unit_rows(m, d, dtype=dtype, seed=1) * 3
    assert_accurate(ops.cost(x, y), plain(x, y), reference.cost(x, y))


@pytest.mark.parametrize("angle", [1e-1, 1e-2, 1e-3, 1e-4])
def test_close_rows_keep_their_digits(angle):
    x = unit_rows(40, 256, dtype=torch.float32)
    y = x + angle * unit_rows(40, 256, dtype=torch.float32, seed=1)
    exact = reference.cost(x, y)
    error = ((ops.cost(x, y).double() - exact) / exact).abs().max()
    assert error <= 1e-5


def test_equal_rows_give_exactly_zero():
    x = unit_rows(33, 65, dtype=torch.float32) * 7
    cost = ops.cost(x, x.clone())
    assert torch.equal(cost.diagonal(), torch.zeros(33))
    assert bool((cost >= 0).all())


def test_gradient():
    x, y = unit_rows(2, 4, 3).requires_grad_(), unit_rows(2, 5, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(ops.cost, (x, y))


def test_gradient_of_one_input_only():
    x, y = unit_rows(4, 3), unit_rows(5, 3, seed=1).requires_grad_()
    ops.cost(x, y).sum().backward()
    torch.testing.assert_close(y.grad, 2 * (4 * y.detach() - x.sum(0)))


@pytest.mark.parametrize("shape", [((0, 3), (4, 3)), ((4, 3), (0, 3)), ((0, 4, 3), (0, 5, 3)), ((2, 4, 0), (2, 5, 0))])
def test_empty(shape):
    x, y = (torch.ones(size, requires_grad=True) for size in shape)
    cost = ops.cost(x, y)
    assert cost.shape == (*shape[0][:-1], shape[1][-2])
    assert torch.equal(cost, torch.zeros_like(cost))
    cost.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))
    assert torch.equal(y.grad, torch.zeros_like(y))
