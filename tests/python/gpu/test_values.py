"""Outputs and gradients of every operator on a GPU against the CPU."""

import pytest
import torch
import torch.nn.functional as F

from cases.on_device import assert_agree, assert_same_bits, moved, outputs_and_gradients
from cases.operators import (
    FORWARD_OPERATORS,
    OPERATORS,
    differentiable_outputs,
    map_floating,
    masses,
    operator,
    outputs_of,
    tensors_of,
    unit_rows,
)
from mover import ops

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.float64]
SOLVED = ("sinkhorn", "transport", "transport_value")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATORS)
def test_outputs_and_gradients(name, dtype, device):
    exact = outputs_and_gradients(name, OPERATORS[name](torch.float64))
    cpu = outputs_and_gradients(name, OPERATORS[name](dtype))
    found = outputs_and_gradients(name, moved(OPERATORS[name](dtype), device))
    assert all(tensor.device == device for part in found for tensor in part)
    for ours, theirs, truth in zip(found, cpu, exact, strict=True):
        assert_agree(ours, theirs, truth, name in SOLVED)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORWARD_OPERATORS)
def test_outputs_of_operators_without_a_backward_of_their_own(name, dtype, device):
    arguments = FORWARD_OPERATORS[name](dtype)
    found = outputs_of(operator(name)(*moved(arguments, device)))
    exact = outputs_of(operator(name)(*FORWARD_OPERATORS[name](torch.float64)))
    assert_agree(found, outputs_of(operator(name)(*arguments)), exact, False)


@pytest.mark.parametrize("name", OPERATORS)
def test_gradcheck(name, device):
    """Through the raw operators: masses and symmetric matrices enter through a parametrisation."""
    arguments = moved(OPERATORS[name](torch.float64), device)
    tensors = [tensor.clone().requires_grad_() for tensor in tensors_of(arguments)]

    def function(*values):
        values = list(values)
        if name in SOLVED:
            first = 1 if name == "sinkhorn" else 2
            values[first:] = [torch.softmax(value, dim=-1) for value in values[first:]]
        if name == "logdet":
            values = [(values[0] + values[0].mT) / 2]
        if name == "volume_scores":
            values = [F.normalize(value, dim=-1) for value in values]
        remaining = iter(values)
        full = map_floating(lambda _: next(remaining), arguments)
        return differentiable_outputs(name, operator(name)(*full))

    assert torch.autograd.gradcheck(function, tensors)


# ---- sizes that need more than one block, and that are no multiple of anything ----


def both(function, tensors, device):
    """(outputs and gradients on the device, on the CPU, on the CPU in float64) of a function of tensors."""
    results = []
    for place, dtype in ((device, None), ("cpu", None), ("cpu", torch.float64)):
        leaves = [tensor.to(place, dtype or tensor.dtype).requires_grad_() for tensor in tensors]
        ends = outputs_of(function(*leaves))
        generator = torch.Generator().manual_seed(3)
        upstream = [torch.rand(end.shape, dtype=torch.float64, generator=generator).to(end) for end in ends]
        gradients = torch.autograd.grad(ends, leaves, upstream)
        results.append(([end.detach() for end in ends], list(gradients)))
    return results


def check(function, tensors, device, solved=False):
    for ours, theirs, truth in zip(*both(function, tensors, device), strict=True):
        assert_agree(ours, theirs, truth, solved)


def aligned(n, d, dtype, batch=(), shift=0):
    """y near x, as matched modalities are: where Sinkhorn takes long."""
    x = unit_rows(*batch, n, d, seed=shift)
    y = F.normalize(x / 2 + unit_rows(*batch, n, d, seed=shift + 1), dim=-1)
    return x.to(dtype), y.to(dtype)


LARGE = [(257, 64), (1025, 96), (2048, 128)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d"), LARGE)
def test_large_cost(n, d, dtype, device):
    check(ops.cost, [unit_rows(n, d, dtype=dtype), unit_rows(n + 3, d, dtype=dtype, seed=1)], device)


@pytest.mark.parametrize("precision_digits", [1e-2, 1e-4])
def test_close_rows_keep_their_digits(precision_digits, device):
    x = unit_rows(300, 256, dtype=torch.float32)
    y = x + precision_digits * unit_rows(300, 256, dtype=torch.float32, seed=1)
    exact = (x.double()[:, None] - y.double()).square().sum(-1)
    found = ops.cost(x.to(device), y.to(device)).cpu().double()
    assert ((found - exact) / exact).abs().max() <= 1e-5
    assert torch.equal(ops.cost(x.to(device), x.to(device)).diagonal().cpu(), torch.zeros(300))


@pytest.mark.parametrize("epsilon", [0.1, 0.05, 0.01])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d"), LARGE)
def test_large_transport_for_a_fixed_number_of_iterations(n, d, dtype, epsilon, device):
    """The plan after as many full iterations, to 1e-5 (1e-4 for a small epsilon) in float32."""
    x, y = aligned(n, d, dtype, (2,))
    arguments = {"epsilon": epsilon, "max_iter": 10, "tol": 0.0, "solver": "sinkhorn"}
    found = ops.transport(x.to(device), y.to(device), **arguments)
    exact = ops.transport(x.double(), y.double(), **arguments)
    assert found.n_iter.tolist() == exact.n_iter.tolist()
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5 if epsilon >= 0.05 else 1e-4
    error = (found.plan.cpu().double() - exact.plan).norm() / exact.plan.norm()
    assert error <= tolerance
    reached = (found.plan.double().sum(-1) - 1 / n).abs().sum(-1) + (found.plan.double().sum(-2) - 1 / n).abs().sum(-1)
    torch.testing.assert_close(found.marginal_error.double(), reached, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("solver", ["auto", "newton", "sinkhorn"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_transport_to_convergence(dtype, solver, device):
    """Plans and gradients that no longer depend on the path; problems of a batch end at different iterations."""
    easy, hard = unit_rows(2, 300, 48, dtype=dtype), aligned(300, 48, dtype, shift=5)
    x, y = torch.stack([easy[0], hard[0]]), torch.stack([easy[1], hard[1]])
    arguments = {"epsilon": 0.2, "max_iter": 3000, "tol": 0.0 if dtype == torch.float32 else 1e-12, "solver": solver}
    iterations = ops.transport(x.to(device), y.to(device), **arguments).n_iter
    assert iterations[0] <= iterations[1]

    def function(x, y):
        result = ops.transport(x, y, **arguments)
        return result.plan, result.cost

    (outputs, gradients), _, (exact, exact_gradients) = both(function, [x, y], device)
    for found, truth in zip([*outputs, *gradients], [*exact, *exact_gradients], strict=True):
        error = (found.cpu().double() - truth).norm() / truth.norm()
        assert error <= (1e-8 if dtype == torch.float64 else 2e-3)
    assert (outputs[0].cpu().double() - exact[0]).norm() / exact[0].norm() <= (1e-9 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_of_one_plan(dtype, device):
    """At the very same plan the linear solve gives the same gradient."""
    plan = ops.sinkhorn(torch.rand(2, 257, 300).double() * 2, epsilon=0.1, max_iter=500, tol=1e-9).plan.to(dtype)
    upstream = torch.rand(2, 257, 300, dtype=dtype)
    needs = [True, True, True]
    exact = operator("sinkhorn_backward")(upstream.double(), plan.double(), 0.1, needs)
    found = operator("sinkhorn_backward")(upstream.to(device), plan.to(device), 0.1, needs)
    for ours, truth in zip(found, exact, strict=True):
        error = (ours.cpu().double() - truth).norm() / truth.norm()
        assert error <= (1e-9 if dtype == torch.float64 else 1e-5)


def test_masses_of_zero(device):
    x, y = unit_rows(40, 8).to(device), unit_rows(33, 8, seed=1).to(device)
    a, b = masses(40), masses(33, seed=1)
    a[::3], b[5] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    found = ops.transport(x, y, a.to(device), b.to(device), epsilon=0.2, max_iter=500, tol=1e-12)
    exact = ops.transport(x.cpu(), y.cpu(), a, b, epsilon=0.2, max_iter=500, tol=1e-12)
    torch.testing.assert_close(found.plan.cpu(), exact.plan, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.f.cpu(), exact.f, rtol=1e-9, atol=1e-10)
    assert bool((found.plan[::3] == 0).all()) and bool((found.plan[:, 5] == 0).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [257, 513])
def test_large_expected_volume(n, dtype, device):
    sets = [unit_rows(size, 64, seed=seed) for seed, size in enumerate((n, n + 2, n - 6))]
    costs = [torch.cdist(sets[i], sets[j]).square().to(dtype) for i, j in ((0, 1), (0, 2), (1, 2))]
    plans = [masses(*cost.shape, dtype=dtype, seed=i) / cost.shape[0] for i, cost in enumerate(costs)]
    check(ops.expected_volume, [*costs, *plans], device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [2, 3, 5, 8])
@pytest.mark.parametrize("score", ["volume", "span"])
def test_large_volume_scores(score, k, dtype, device):
    anchor, others = unit_rows(700, 96, dtype=dtype), unit_rows(513, k - 1, 96, dtype=dtype, seed=1)
    check(lambda anchor, others: ops.volume_scores(anchor, others, score=score), [anchor, others], device)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_contrast(dtype, device):
    scores = unit_rows(1025, 1025).to(dtype)
    check(
        lambda scores, scale: ops.contrast(scores, scale, label_smoothing=0.1),
        [scores, torch.tensor(-14.0, dtype=dtype)],
        device,
    )


@pytest.mark.parametrize("score", ["volume", "span", "cosine"])
def test_large_ranking(score, device):
    """In the very bits of `volume_scores`, and all but the closest calls as on the CPU."""
    anchor, others = unit_rows(3000, 64, dtype=torch.float32), unit_rows(4097, 2, 64, dtype=torch.float32, seed=1)
    target = torch.arange(3000) % 4097
    here = [tensor.to(device) for tensor in (anchor, others, target)]
    rank, top = ops.volume_rank(*here, score=score), ops.volume_topk(*here[:2], 10, score=score)
    cpu_rank = ops.volume_rank(anchor, others, target, score=score)
    assert (rank.better.cpu() - cpu_rank.better).abs().max() <= 2
    if score == "cosine":
        return
    scores = ops.volume_scores(*here[:2], score=score)
    own = scores.gather(1, here[2][:, None])
    assert torch.equal(rank.better, (scores < own).sum(1))
    assert torch.equal(rank.tied, (scores == own).sum(1) - 1)
    values, indices = scores.sort(dim=1, stable=True)
    assert_same_bits([top.values, top.indices], [values[:, :10], indices[:, :10]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
def test_many_groups(k, dtype, device):
    v = unit_rows(20_011, k, 24, dtype=dtype)
    check(ops.gram, [v], device)
    check(lambda v: ops.volume(v, 1e-3), [v], device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [2, 3, 5, 8])
def test_many_listed_groups(k, dtype, device):
    sets = [unit_rows(50, 32, seed=m) for m in range(k)]
    pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
    costs = torch.stack([torch.cdist(sets[i], sets[j]).square() for i, j in pairs]).to(dtype)
    groups = torch.randint(50, (30_000, k), generator=torch.Generator().manual_seed(0))
    check(lambda costs: ops.group_volume(costs, groups.to(costs.device)), [costs], device)
