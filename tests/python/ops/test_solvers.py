"""The three solvers of transport: one plan, one gradient, and an end where alternating updates crawl."""

import math

import pytest
import torch
import torch.nn.functional as F

from cases.operators import masses, unit_rows
from mover import ops, reference

SOLVERS = ["sinkhorn", "newton", "auto"]
F64 = torch.float64


def pair(kind, n, m, d=64, seed=0):
    """Unit rows x (n, d), y (m, d) of embeddings that are unrelated, aligned (y_i from x_i), or also a gap apart."""
    x, noise = unit_rows(n, d, seed=seed), unit_rows(m, d, seed=seed + 1)
    y = noise if kind == "random" else F.normalize(0.5 * x[torch.arange(m) % n] + noise, dim=-1)
    if kind == "gap":
        x, y = (F.normalize(z + unit_rows(1, d, seed=seed + 2 + i), dim=-1) for i, z in enumerate((x, y)))
    return x, y


def errors(plan, a=None, b=None):
    n, m = plan.shape
    a = torch.full((n,), 1 / n, dtype=F64) if a is None else a
    b = torch.full((m,), 1 / m, dtype=F64) if b is None else b
    return float((plan.double().sum(1) - a).abs().sum() + (plan.double().sum(0) - b).abs().sum())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.03])
@pytest.mark.parametrize("kind", ["random", "aligned", "gap"])
def test_every_solver_finds_the_plan(kind, epsilon, solver):
    x, y = pair(kind, 37, 50)
    a, b = masses(37, seed=3), masses(50, seed=4)
    exact = reference.transport(x, y, a, b, epsilon=epsilon, tol=1e-12, max_iter=3000)
    ours = ops.transport(x, y, a, b, epsilon=epsilon, max_iter=20000, tol=1e-11, solver=solver)
    assert float(ours.marginal_error) <= 2e-11
    torch.testing.assert_close(ours.plan, exact.plan, rtol=1e-4, atol=1e-11)
    torch.testing.assert_close(ours.f, exact.f, rtol=0, atol=1e-6)
    value = ops.transport_value(x, y, a, b, epsilon=epsilon, max_iter=20000, tol=1e-11, solver=solver)
    torch.testing.assert_close(value, (ours.f * a).sum() + (ours.g * b).sum(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 5, 12])
@pytest.mark.parametrize("epsilon", [0.1, 0.01, 0.005])
def test_sinkhorn_is_the_textbook_iteration(epsilon, count):
    """At the smaller epsilons the kernel is made again between iterations."""
    x, y = pair("random", 40, 33, d=8)
    a, b = masses(40, seed=3), masses(33, seed=4)
    ours = ops.transport(x, y, a, b, epsilon=epsilon, max_iter=count, tol=0.0, solver="sinkhorn")
    exact = reference.transport(x, y, a, b, epsilon=epsilon, max_iter=count, tol=0.0)
    assert int(ours.n_iter) == count
    torch.testing.assert_close(ours.plan, exact.plan, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(ours.f, exact.f, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours.marginal_error, exact.marginal_error, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("solver", ["newton", "auto"])
@pytest.mark.parametrize(("kind", "epsilon"), [("aligned", 0.05), ("gap", 0.03), ("gap", 0.02), ("aligned", 0.02)])
def test_newton_ends_where_sinkhorn_crawls(kind, epsilon, solver, dtype):
    x, y = (z.to(dtype) for z in pair(kind, 96, 96, d=96, seed=7))
    cost = ops.cost(x, y) + 0.2 * torch.rand(96, 96, dtype=dtype, generator=torch.Generator().manual_seed(1))
    crawling = ops.sinkhorn(cost, epsilon=epsilon, max_iter=300, tol=1e-7, solver="sinkhorn")
    assert float(crawling.marginal_error) > 1e-5
    result = ops.sinkhorn(cost, epsilon=epsilon, max_iter=300, tol=1e-7, solver=solver)
    assert int(result.n_iter) < 150
    assert errors(result.plan) <= (1e-7 if dtype == F64 else 2 * max(2e-6, 4e-8 / epsilon))


@pytest.mark.parametrize("solver", ["newton", "auto"])
def test_newton_with_zero_masses(solver):
    x, y = pair("aligned", 40, 44, d=96, seed=7)
    a, b = masses(40, seed=3), masses(44, seed=4)
    a[[0, 17]], b[[3, 43]] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    result = ops.transport(x, y, a, b, epsilon=0.02, max_iter=500, tol=1e-9, solver=solver)
    assert errors(result.plan, a, b) <= 2e-9
    assert result.plan[[0, 17]].abs().sum() == result.plan[:, [3, 43]].abs().sum() == 0
    assert bool(torch.isfinite(result.f).all() and torch.isfinite(result.g).all())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("most", [1, 2, 6, 9])
def test_max_iter_bounds_iterations_and_newton_steps(most, solver):
    x, y = pair("gap", 64, 64, d=96, seed=7)
    result = ops.transport(x, y, epsilon=0.01, max_iter=most, tol=0.0, solver=solver)
    assert int(result.n_iter) == most
    columns = (result.plan.sum(0) - 1 / 64).abs().sum()
    assert float(columns) < 1e-12  # the last update is that of the columns


@pytest.mark.parametrize("solver", SOLVERS)
def test_unequal_sums_end_at_the_bound(solver):
    cost, a = torch.rand(6, 5, dtype=F64), torch.full((6,), 0.5, dtype=F64)
    result = ops.sinkhorn(cost, a, epsilon=0.1, max_iter=60, tol=1e-9, solver=solver)
    assert int(result.n_iter) <= 60
    assert float(result.marginal_error) == pytest.approx(2.0, rel=1e-6)
    assert bool(torch.isfinite(result.plan).all())


def test_the_gradient_does_not_depend_on_the_solver():
    x, y = pair("aligned", 48, 48, d=96, seed=7)
    upstream = torch.randn(48, 48, dtype=F64, generator=torch.Generator().manual_seed(2))
    grads = []
    for solver in ("auto", "newton"):
        inputs = x.clone().requires_grad_(), y.clone().requires_grad_()
        plan = ops.transport(*inputs, epsilon=0.05, max_iter=5000, tol=1e-12, solver=solver).plan
        grads.append(torch.autograd.grad(plan, inputs, upstream))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8 * float(one.abs().max()))


@pytest.mark.parametrize(("tol", "share"), [(1e-3, 0.7), (1e-6, 0.5)])
def test_over_relaxation_takes_fewer_iterations(tol, share):
    """So few remain at any time that Newton is not called for."""
    x, y = pair("aligned", 256, 256, d=256, seed=1)
    plain, auto = (ops.transport(x, y, epsilon=0.12, max_iter=2000, tol=tol, solver=s) for s in ("sinkhorn", "auto"))
    assert 5 < int(auto.n_iter) <= share * int(plain.n_iter) < 120
    assert errors(auto.plan) <= tol


@pytest.mark.parametrize("kind", ["random", "aligned", "gap"])
def test_auto_stops_at_its_tolerance(kind):
    for n in (20, 50, 90):
        for epsilon in (0.2, 0.1, 0.07, 0.05):
            x, y = pair(kind, n, n + 7, d=48, seed=n)
            for tol in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5):
                result = ops.transport(x, y, epsilon=epsilon, max_iter=1000, tol=tol)
                assert errors(result.plan) <= tol
                assert float(result.marginal_error) == pytest.approx(errors(result.plan), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("epsilon", [0.01, 0.003, 1e-3])
def test_costs_of_a_wide_range(epsilon, dtype, solver):
    """Far beyond what exponentials hold at once: costs up to 4000 epsilon."""
    cost = 4 * torch.rand(70, 50, dtype=F64, generator=torch.Generator().manual_seed(5)).to(dtype)
    result = ops.sinkhorn(cost, epsilon=epsilon, max_iter=40, solver=solver)
    assert all(bool(torch.isfinite(output).all()) for output in result)
    assert float((result.plan.double().sum(0) - 1 / 50).abs().sum()) < 1e-5
    if dtype == torch.float32:
        double = ops.sinkhorn(cost.double(), epsilon=epsilon, max_iter=int(result.n_iter), tol=0.0, solver="sinkhorn")
        same = ops.sinkhorn(cost, epsilon=epsilon, max_iter=int(result.n_iter), tol=0.0, solver="sinkhorn")
        assert float((same.plan - double.plan).abs().sum()) < 2e-7 * math.ceil(1 / epsilon) * 10


@pytest.mark.parametrize("solver", SOLVERS)
def test_large_and_small_problems_are_solved_alike(solver):
    """A problem is divided among threads, several smaller ones are solved one a thread: same bits either way."""
    x, y = pair("gap", 2 * 270, 2 * 250, d=16)
    x, y = x.reshape(2, 270, 16), y.reshape(2, 250, 16)
    both = ops.transport(x, y, epsilon=0.02, max_iter=30, tol=1e-9, solver=solver)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        again = ops.transport(x, y, epsilon=0.02, max_iter=30, tol=1e-9, solver=solver)
    finally:
        torch.set_num_threads(threads)
    for i in range(2):
        one = ops.transport(x[i], y[i], epsilon=0.02, max_iter=30, tol=1e-9, solver=solver)
        assert torch.equal(one.plan, both.plan[i])
        assert torch.equal(one.f, both.f[i])
    assert torch.equal(ops.sinkhorn(both.cost, epsilon=0.02, max_iter=30, tol=1e-9, solver=solver).plan, both.plan)
    torch.testing.assert_close(again.plan, both.plan)  # the products may be divided otherwise


def test_a_batch_of_problems_that_are_divided_among_threads():
    x, y = pair("gap", 2 * 515, 2 * 520, d=8)
    x, y = x.reshape(2, 515, 8).float(), y.reshape(2, 520, 8).float()
    both = ops.transport(x.requires_grad_(), y, epsilon=0.1, max_iter=4, tol=0.0)
    value = ops.transport_value(x, y, epsilon=0.1, max_iter=4, tol=0.0)
    weight = torch.rand(2, 515, 520, generator=torch.Generator().manual_seed(1))
    (both.plan * weight).sum().backward()
    for i in range(2):
        alone = x[i].detach().requires_grad_()
        one = ops.transport(alone, y[i], epsilon=0.1, max_iter=4, tol=0.0)
        assert torch.equal(one.plan, both.plan[i])
        assert torch.equal(ops.transport_value(alone, y[i], epsilon=0.1, max_iter=4, tol=0.0), value[i])
        (one.plan * weight[i]).sum().backward()
        torch.testing.assert_close(alone.grad, x.grad[i], rtol=1e-4, atol=1e-9)
