"""Sinkhorn and transport against the reference: both types, gradients, stopping, masses, NaN."""

import pytest
import torch

from cases.operators import masses, unit_rows
from cases.tolerance import relative_error
from mover import ops, reference

F64 = torch.float64
SOLVE = {"max_iter": 50000, "tol": 0.0}


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.05])
def test_double_agrees_with_the_reference(epsilon):
    x, y, a, b = unit_rows(2, 8, 5), unit_rows(2, 6, 5, seed=1), masses(2, 8), masses(6, seed=1)
    ours = ops.transport(x, y, a, b, epsilon=epsilon, **SOLVE)
    exact = reference.transport(x, y, a, b, epsilon=epsilon)
    for name in ("plan", "cost", "f", "g"):
        torch.testing.assert_close(getattr(ours, name), getattr(exact, name), rtol=1e-8, atol=1e-10)
    assert ours.n_iter.dtype == torch.int32
    value = ops.transport_value(x, y, a, b, epsilon=epsilon, **SOLVE)
    expected = reference.transport_value(x, y, a, b, epsilon=epsilon)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("epsilon", "tolerance"), [(1.0, 1e-5), (0.1, 1e-5), (0.05, 1e-5), (0.02, 1e-4), (0.005, 1e-4)]
)
def test_single_agrees_with_double_after_as_many_iterations(epsilon, tolerance):
    x = unit_rows(65, 48, dtype=torch.float32)
    y = torch.nn.functional.normalize(x + 0.7 * unit_rows(65, 48, dtype=torch.float32, seed=1), dim=-1)
    plain = {"epsilon": epsilon, "tol": 0.0, "solver": "sinkhorn"}
    single = ops.transport(x, y, max_iter=30, **plain)
    double = ops.transport(x.double(), y.double(), max_iter=int(single.n_iter), **plain)
    assert int(double.n_iter) == int(single.n_iter)
    assert relative_error(single.plan, double.plan) <= tolerance
    value = ops.transport_value(x, y, max_iter=30, **plain)
    expected = ops.transport_value(x.double(), y.double(), max_iter=30, **plain)
    assert abs(float(value) - float(expected)) <= 1e-5


@pytest.mark.parametrize("epsilon", [0.1, 0.05])
def test_single_reaches_its_clamped_tolerance(epsilon):
    x, y = unit_rows(64, 32, dtype=torch.float32), unit_rows(64, 32, dtype=torch.float32, seed=1)
    result = ops.transport(x, y, epsilon=epsilon, **SOLVE)
    assert int(result.n_iter) < 50000
    floor = max(2e-6, 4e-8 / epsilon)
    # the error is known before the last half of an iteration; writing the plan rounds once more
    assert float(result.marginal_error) <= 2 * floor
    plan = result.plan.double()
    measured = (plan.sum(0) - 1 / 64).abs().sum() + (plan.sum(1) - 1 / 64).abs().sum()
    assert float(measured) <= 2 * floor


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_marginal_error_is_that_of_the_returned_plan(dtype):
    x, y, a, b = unit_rows(3, 20, 8, dtype=dtype), unit_rows(3, 30, 8, dtype=dtype, seed=1), masses(20), masses(30)
    result = ops.transport(x, y, a.to(dtype), b.to(dtype), epsilon=0.05, max_iter=3, tol=0.0)
    plan = result.plan.double()
    error = (plan.sum(-1) - a).abs().sum(-1) + (plan.sum(-2) - b).abs().sum(-1)
    torch.testing.assert_close(result.marginal_error.double(), error, rtol=1e-3, atol=1e-6)
    assert result.n_iter.tolist() == [3, 3, 3]


def test_each_problem_stops_by_itself():
    easy, hard = torch.zeros(6, 6, dtype=F64), torch.rand(6, 6, dtype=F64)
    result = ops.sinkhorn(torch.stack([easy, hard]), epsilon=0.1, max_iter=5000, tol=1e-9)
    assert int(result.n_iter[0]) < int(result.n_iter[1]) < 5000
    assert bool((result.marginal_error <= 1e-9).all())


def test_fused_equals_the_two_steps():
    x, y, a, b = unit_rows(2, 7, 5), unit_rows(2, 9, 5, seed=1), masses(7), masses(2, 9)
    fused = ops.transport(x, y, a, b, epsilon=0.1, max_iter=50, tol=1e-6)
    steps = ops.sinkhorn(ops.cost(x, y), a, b, epsilon=0.1, max_iter=50, tol=1e-6)
    torch.testing.assert_close(fused.plan, steps.plan, rtol=1e-12, atol=1e-14)
    assert torch.equal(fused.n_iter, steps.n_iter)


def test_plan_gradient_against_the_dense_solve():
    cost = torch.rand(7, 9, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    a, b = masses(7).requires_grad_(), masses(9, seed=1).requires_grad_()
    upstream = torch.randn(7, 9, dtype=F64, generator=torch.Generator().manual_seed(1))
    plan = ops.sinkhorn(cost, a, b, epsilon=0.07, **SOLVE).plan
    grads = torch.autograd.grad(plan, (cost, a, b), upstream)
    expected = reference.plan_gradient(plan.detach(), upstream, 0.07)
    for ours, exact in zip(grads, expected, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-7, atol=1e-9)


def test_plan_gradient_against_unrolled_iterations():
    cost = torch.rand(6, 5, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    a, b = masses(6), masses(5, seed=1)
    upstream = torch.randn(6, 5, dtype=F64, generator=torch.Generator().manual_seed(1))
    plan = ops.sinkhorn(cost, a, b, epsilon=0.1, **SOLVE).plan
    ours = torch.autograd.grad(plan, cost, upstream)[0]
    unrolled = torch.autograd.grad(reference.sinkhorn(cost, a, b, epsilon=0.1).plan, cost, upstream)[0]
    torch.testing.assert_close(ours, unrolled, rtol=1e-7, atol=1e-9)


def test_single_gradient_against_double():
    x, y = unit_rows(40, 16), unit_rows(40, 16, seed=1)
    upstream = torch.randn(40, 40, dtype=F64, generator=torch.Generator().manual_seed(1))
    grads = {}
    for dtype in (torch.float32, F64):
        inputs = x.to(dtype).requires_grad_(), y.to(dtype).requires_grad_()
        plan = ops.transport(*inputs, epsilon=0.1, max_iter=1000, tol=0.0).plan
        grads[dtype] = torch.autograd.grad(plan, inputs, upstream.to(dtype))
    for single, double in zip(grads[torch.float32], grads[F64], strict=True):
        assert relative_error(single, double) < 1e-4


def softmax(parameters):
    return torch.softmax(parameters, dim=-1)


def test_gradcheck_sinkhorn():
    cost = torch.rand(2, 4, 3, dtype=F64).requires_grad_()
    a, b = torch.randn(4, dtype=F64).requires_grad_(), torch.randn(2, 3, dtype=F64).requires_grad_()

    def plan(cost, a, b):
        return ops.sinkhorn(cost, softmax(a), softmax(b), epsilon=0.3, **SOLVE).plan

    assert torch.autograd.gradcheck(plan, (cost, a, b))


def test_gradcheck_transport():
    x, y = unit_rows(2, 4, 3).requires_grad_(), unit_rows(2, 5, 3, seed=1).requires_grad_()
    a, b = torch.randn(2, 4, dtype=F64).requires_grad_(), torch.randn(5, dtype=F64).requires_grad_()

    def plan_and_cost(x, y, a, b):
        return ops.transport(x, y, softmax(a), softmax(b), epsilon=0.3, **SOLVE)[:2]

    assert torch.autograd.gradcheck(plan_and_cost, (x, y, a, b))


def test_gradcheck_transport_value():
    x, y = unit_rows(2, 4, 3).requires_grad_(), unit_rows(2, 5, 3, seed=1).requires_grad_()
    a, b = torch.randn(2, 4, dtype=F64).requires_grad_(), torch.randn(5, dtype=F64).requires_grad_()

    def value(x, y, a, b):
        return ops.transport_value(x, y, softmax(a), softmax(b), epsilon=0.3, **SOLVE)

    assert torch.autograd.gradcheck(value, (x, y, a, b))


def test_marginal_gradients_are_centred():
    x, y = unit_rows(2, 4, 3), unit_rows(2, 5, 3, seed=1)
    a, b = masses(2, 4).requires_grad_(), masses(2, 5, seed=1).requires_grad_()
    result = ops.transport(x, y, a, b, epsilon=0.3, **SOLVE)
    outputs = [(result.plan * torch.rand_like(result.plan)).sum(), ops.transport_value(x, y, a, b, epsilon=0.3).sum()]
    for output in outputs:
        for masses_, grad in zip((a, b), torch.autograd.grad(output, (a, b)), strict=True):
            assert (masses_ * grad).sum(-1).abs().max() < 1e-9
            assert grad.abs().max() > 1e-3


def test_shared_masses_get_the_sum_of_the_gradients():
    x, y = unit_rows(3, 4, 3), unit_rows(3, 5, 3, seed=1)
    a = masses(4)
    upstream = torch.rand(3, 4, 5, dtype=F64)
    shared, single = a.clone().requires_grad_(), a.expand(3, 4).clone().requires_grad_()
    for masses_ in (shared, single):
        ops.transport(x, y, masses_, epsilon=0.3, **SOLVE).plan.backward(upstream)
    torch.testing.assert_close(shared.grad, single.grad.sum(0))


def test_costs_that_nothing_depends_on_cost_nothing():
    """The gradient of a loss on the cost alone does not go through the linear system."""
    x, y = unit_rows(4, 3).requires_grad_(), unit_rows(5, 3, seed=1).requires_grad_()
    upstream = torch.rand(4, 5, dtype=F64)
    ours = torch.autograd.grad(ops.transport(x, y).cost, (x, y), upstream)
    exact = torch.autograd.grad(reference.cost(x, y), (x, y), upstream)
    for one, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(one, other)


def test_potentials_and_counts_carry_no_gradient():
    result = ops.transport(unit_rows(4, 3).requires_grad_(), unit_rows(5, 3, seed=1))
    assert [output.requires_grad for output in result] == [True, True, False, False, False, False]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_bad_problem_leaves_the_others_alone(bad, dtype):
    x, y = unit_rows(3, 9, 5, dtype=dtype), unit_rows(3, 8, 5, dtype=dtype, seed=1)
    clean = ops.transport(x, y, epsilon=0.1)
    x[1, 4, 2] = bad
    result = ops.transport(x, y, epsilon=0.1)
    for name in ("plan", "f", "g", "marginal_error"):
        ours, expected = getattr(result, name), getattr(clean, name)
        assert bool(torch.isnan(ours[1]).all()), name
        assert torch.equal(ours[[0, 2]], expected[[0, 2]]), name
    value, expected = ops.transport_value(x, y, epsilon=0.1), ops.transport_value(*[x[[0, 2]], y[[0, 2]]], epsilon=0.1)
    assert bool(torch.isnan(value[1]))
    assert torch.equal(value[[0, 2]], expected)


@pytest.mark.parametrize("bad", [float("nan"), -0.1])
def test_bad_masses_make_their_problem_nan(bad):
    x, y, a = unit_rows(2, 5, 3), unit_rows(2, 5, 3, seed=1), masses(2, 5)
    a[1, 2] = bad
    result = ops.transport(x, y, a)
    assert bool(torch.isnan(result.plan[1]).all())
    assert bool(torch.isfinite(result.plan[0]).all())


def test_unequal_sums_show_in_the_marginal_error():
    result = ops.sinkhorn(torch.rand(4, 5, dtype=F64), torch.full((4,), 0.5, dtype=F64))
    assert 0.9 < float(result.marginal_error) < 1.1


@pytest.mark.parametrize("epsilon", [1e-3, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_epsilon_is_finite(epsilon, dtype):
    x, y = unit_rows(33, 16, dtype=dtype), unit_rows(31, 16, dtype=dtype, seed=1)
    result = ops.transport(x.requires_grad_(), y, epsilon=epsilon, max_iter=50)
    assert all(bool(torch.isfinite(output).all()) for output in result)
    result.plan.square().sum().backward()
    assert bool(torch.isfinite(x.grad).all())


def test_an_empty_batch():
    x, y = torch.ones(0, 3, 2, requires_grad=True), torch.ones(0, 4, 2, requires_grad=True)
    result = ops.transport(x, y)
    assert result.plan.shape == (0, 3, 4)
    assert result.n_iter.shape == (0,)
    (result.plan.sum() + result.cost.sum() + ops.transport_value(x, y).sum()).backward()
    assert x.grad.shape == x.shape
    assert ops.sinkhorn(torch.ones(0, 3, 4)).f.shape == (0, 3)
