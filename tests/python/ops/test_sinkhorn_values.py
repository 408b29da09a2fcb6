"""Entropic plans with values known in closed form, and the invariants of the problem."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.special import ive

from cases.operators import masses, unit_rows
from mover import ops, reference

SOLVE = {"max_iter": 100000, "tol": 0.0}


def t(values):
    return torch.tensor(values, dtype=torch.float64)


def close(value, expected, tolerance=1e-9):
    value = float(value.detach()) if isinstance(value, torch.Tensor) else value
    assert value == pytest.approx(expected, abs=tolerance, rel=tolerance)


def value_of(result, epsilon, a=None, b=None):
    """<f, a> + <g, b>."""
    n, m = result.plan.shape[-2:]
    a = torch.full((n,), 1 / n, dtype=torch.float64) if a is None else a
    b = torch.full((m,), 1 / m, dtype=torch.float64) if b is None else b
    return (result.f * a).sum() + (result.g * b).sum()


def test_two_points():
    cost = t([[0, 1], [1, 0]])
    result = ops.sinkhorn(cost, epsilon=1.0, **SOLVE)
    torch.testing.assert_close(result.plan, t([[0.3655292893, 0.1344707107], [0.1344707107, 0.3655292893]]))
    close((result.plan * cost).sum(), 0.2689414214)
    close(value_of(result, 1.0), 0.3798854930)


def test_two_points_on_a_line():
    x = t([[0.0], [1.0]])
    result = ops.transport(x, x, epsilon=0.1, **SOLVE)
    close(result.plan[0, 0], 0.49997730107, 1e-10)
    close(result.plan[0, 1], 2.269893435e-05, 1e-14)


@pytest.mark.parametrize(
    ("n", "epsilon", "share", "transported", "value"),
    [
        (64, 0.5, 0.464277286826, 1.07144542635, 1.69580488951),
        (1024, 0.25, 0.744502813638, 0.510994372724, 1.65910828949),
    ],
)
def test_orthonormal_rows(n, epsilon, share, transported, value):
    x = torch.eye(n, dtype=torch.float64)
    result = ops.transport(x, x, epsilon=epsilon, **SOLVE)
    close(n * result.plan[0, 0], share)
    close((result.plan * result.cost).sum(), transported)
    close(ops.transport_value(x, x, epsilon=epsilon, **SOLVE), value)
    z = 1 + (n - 1) * math.exp(-2 / epsilon)
    close(result.plan[3, 3], 1 / (n * z), 1e-12)


def test_gradient_of_the_trace_for_orthonormal_rows():
    x = torch.eye(64, dtype=torch.float64)
    cost = ops.cost(x, x).requires_grad_()
    ops.sinkhorn(cost, epsilon=0.5, **SOLVE).plan.trace().backward()
    off = cost.grad[~torch.eye(64, dtype=torch.bool)]
    torch.testing.assert_close(cost.grad.diagonal(), torch.full((64,), -7.77262149261e-03, dtype=torch.float64))
    torch.testing.assert_close(off, torch.full_like(off, 1.23374944327e-04))


@pytest.mark.parametrize(("epsilon", "value", "transported"), [
    (1.0, 1.17600645851704, 0.604450684071984),
    (0.1, 0.241038957175572, 0.0506589842203859),
])  # fmt: skip
@pytest.mark.parametrize("turn", [0.0, 0.4])
def test_circle(epsilon, value, transported, turn):
    angle = 2 * math.pi * torch.arange(96, dtype=torch.float64) / 96
    x = torch.stack([angle.cos(), angle.sin()], dim=1)
    y = torch.stack([(angle + turn).cos(), (angle + turn).sin()], dim=1)
    result = ops.transport(x, y, epsilon=epsilon, **SOLVE)
    close((result.plan * result.cost).sum(), transported)
    close(ops.transport_value(x, y, epsilon=epsilon, **SOLVE), value)
    argument = 2 / epsilon
    close(value, 2 - epsilon * (math.log(ive(0, argument)) + argument), 1e-12)


def test_orbits_of_the_cyclic_group():
    d, epsilon = 12, 0.3
    x0, y0 = unit_rows(d, seed=1), unit_rows(d, seed=2)
    x, y = (torch.stack([v.roll(s) for s in range(d)]) for v in (x0, y0))
    cost = ops.cost(x, y).requires_grad_()
    plan = ops.sinkhorn(cost, epsilon=epsilon, **SOLVE).plan
    torch.testing.assert_close(plan, torch.softmax(-cost / epsilon, dim=1) / d, rtol=1e-11, atol=1e-14)
    weights = ops.cost(x, y).sin()  # invariant under the group
    (plan * weights).sum().backward()
    mean = (plan * weights).sum().detach()
    torch.testing.assert_close(cost.grad, -plan.detach() * (weights - mean) / epsilon, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.01])
def test_manufactured_solution(epsilon):
    torch.manual_seed(0)
    n, m = 7, 9
    f, g = 0.2 * torch.rand(n, dtype=torch.float64), 0.2 * torch.rand(m, dtype=torch.float64)
    plan = masses(n * m).reshape(n, m)
    a, b = plan.sum(1), plan.sum(0)
    cost = f[:, None] + g - epsilon * (plan / (a[:, None] * b)).log()
    result = ops.sinkhorn(cost, a, b, epsilon=epsilon, **SOLVE)
    torch.testing.assert_close(result.plan, plan, rtol=1e-9, atol=1e-12)
    shift = ((f * a).sum() - (g * b).sum()) / 2
    torch.testing.assert_close(result.f, f - shift, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(result.g, g + shift, rtol=1e-8, atol=1e-9)


def test_two_by_two_with_masses():
    a, b = t([0.3, 0.7]), t([0.6, 0.4])
    cost = t([[0.2, 1.1], [0.9, 0.4]]).requires_grad_()
    result = ops.sinkhorn(cost, a, b, epsilon=0.25, **SOLVE)
    close(result.plan[0, 0], 0.2985405214070)
    close((result.plan * cost).sum(), 0.4920432700302)
    close(value_of(result, 0.25, a, b), 0.5383766864228)
    result.plan[0, 0].backward()
    close(cost.grad[0, 0], -0.00576076536235)


def test_four_points_on_the_circle():
    i = torch.arange(4, dtype=torch.float64)
    x = torch.stack([i.cos(), i.sin()], dim=1)
    y = torch.stack([(2 * i + 0.5).cos(), (2 * i + 0.5).sin()], dim=1)
    result = ops.transport(x, y, epsilon=1.0, **SOLVE)
    close((result.plan * result.cost).sum(), 0.981510815)
    close(ops.transport_value(x, y, epsilon=1.0, **SOLVE), 1.33341989182)


def test_tiny_epsilon():
    x, y = t([[0, 0], [0, 2]]), t([[2, 1], [2, 2]])
    result = ops.transport(x, y, epsilon=0.001, **SOLVE)
    torch.testing.assert_close(result.plan, 0.5 * torch.eye(2, dtype=torch.float64))
    close(ops.transport_value(x, y, epsilon=0.001, **SOLVE), 4.50069314718, 1e-8)


def test_small_epsilon_is_the_assignment():
    torch.manual_seed(3)
    cost = torch.rand(8, 8, dtype=torch.float64)
    plan = ops.sinkhorn(cost, epsilon=0.005, max_iter=20000, tol=1e-6).plan
    _, columns = linear_sum_assignment(cost.numpy())
    assert np.array_equal(plan.argmax(1).numpy(), columns)


def test_one_point():
    result = ops.transport(t([[1.0, 2.0]]), t([[4.0, 6.0]]), epsilon=0.01)
    assert result.plan.item() == 1.0
    assert result.cost.item() == 25.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rows_give_the_product_of_the_masses(dtype):
    x, y = unit_rows(1, 8, dtype=dtype).expand(5, 8), unit_rows(6, 8, dtype=dtype, seed=1)
    a, b = masses(5, dtype=dtype), masses(6, dtype=dtype, seed=1)
    plan = ops.transport(x, y, a, b, epsilon=0.05, **SOLVE).plan
    torch.testing.assert_close(plan, a[:, None] * b, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=0)


def test_single_masses():
    cost = t([[0.3, 0.1, 0.9], [0.5, 0.2, 0.8], [0.1, 0.4, 0.3], [0.6, 0.5, 0.2]])
    result = ops.sinkhorn(cost, t([0, 1, 0, 0]), t([1, 0, 0]), epsilon=0.1)
    expected = torch.zeros(4, 3, dtype=torch.float64)
    expected[1, 0] = 1
    torch.testing.assert_close(result.plan, expected, rtol=0, atol=1e-15)
    assert bool(torch.isfinite(result.f).all())
    assert bool(torch.isfinite(result.g).all())


def test_zero_masses_are_padding():
    cost = torch.rand(6, 7, dtype=torch.float64)
    a, b = masses(5), masses(4, seed=1)
    zero = torch.zeros(3, dtype=torch.float64)
    padded = ops.sinkhorn(cost, torch.cat([a, zero[:1]]), torch.cat([b, zero]), epsilon=0.1, **SOLVE)
    small = ops.sinkhorn(cost[:5, :4], a, b, epsilon=0.1, **SOLVE)
    torch.testing.assert_close(padded.plan[:5, :4], small.plan, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(padded.f[:5], small.f, rtol=1e-9, atol=1e-10)
    assert torch.equal(padded.plan[5], torch.zeros(7, dtype=torch.float64))
    assert torch.equal(padded.plan[:, 4:], torch.zeros(6, 3, dtype=torch.float64))
    full = reference.sinkhorn(cost, torch.cat([a, zero[:1]]), torch.cat([b, zero]), epsilon=0.1)
    torch.testing.assert_close(padded.f, full.f, rtol=1e-8, atol=1e-9)  # the soft c-transform of the empty row
    torch.testing.assert_close(padded.g, full.g, rtol=1e-8, atol=1e-9)


class TestInvariants:
    cost = torch.rand(9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    a, b = masses(9, seed=6), masses(11, seed=7)

    def solve(self, cost, a, b):
        return ops.sinkhorn(cost, a, b, epsilon=0.1, **SOLVE).plan

    def test_permutation(self):
        rows, columns = torch.randperm(9), torch.randperm(11)
        plan = self.solve(self.cost[rows][:, columns], self.a[rows], self.b[columns])
        expected = self.solve(self.cost, self.a, self.b)[rows][:, columns]
        torch.testing.assert_close(plan, expected, rtol=1e-9, atol=1e-13)

    def test_transposition(self):
        plan = self.solve(self.cost.T, self.b, self.a)
        torch.testing.assert_close(plan, self.solve(self.cost, self.a, self.b).T, rtol=1e-9, atol=1e-13)

    def test_row_and_column_constants(self):
        shifted = self.cost + torch.rand(9, 1, dtype=torch.float64) + torch.rand(11, dtype=torch.float64)
        plan = self.solve(shifted, self.a, self.b)
        torch.testing.assert_close(plan, self.solve(self.cost, self.a, self.b), rtol=1e-9, atol=1e-13)

    def test_rotation(self):
        x, y = unit_rows(9, 5, seed=1), unit_rows(11, 5, seed=2)
        rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
        one = ops.transport(x, y, epsilon=0.2, **SOLVE).plan
        other = ops.transport(x @ rotation, y @ rotation, epsilon=0.2, **SOLVE).plan
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-13)

    def test_rows_and_columns_of_the_gradient_sum_to_zero(self):
        cost = self.cost.clone().requires_grad_()
        upstream = torch.randn(9, 11, dtype=torch.float64)
        (self.solve(cost, self.a, self.b) * upstream).sum().backward()
        scale = cost.grad.abs().max()
        assert cost.grad.sum(0).abs().max() < 1e-10 * scale
        assert cost.grad.sum(1).abs().max() < 1e-10 * scale

    def test_the_total_mass_has_no_gradient(self):
        cost = self.cost.clone().requires_grad_()
        self.solve(cost, self.a, self.b).sum().backward()
        assert cost.grad.abs().max() < 1e-10
