"""How much memory calls take, and sizes whose offsets do not fit 32 bits."""

import pytest
import torch

from cases.operators import unit_rows
from mover import ops

pytestmark = pytest.mark.gpu
GIBIBYTE = 1 << 30


def needs(gibibytes):
    """Skips where the device has not that much memory free."""
    free, _ = torch.cuda.mem_get_info()
    if free < gibibytes * GIBIBYTE:
        pytest.skip(f"needs {gibibytes} GiB of free device memory, {free / GIBIBYTE:.0f} are")


def peak(function):
    """Bytes that a call takes above what is allocated before it, at its highest, and what it returns."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before, result


@pytest.fixture
def transported(device):
    """Rows of 4096 x 256, and a call whose first run is over: torch keeps cuBLAS's workspace from it."""
    x, y = (unit_rows(4096, 256, dtype=torch.float32, seed=seed).to(device).requires_grad_() for seed in range(2))
    small = ops.transport(x[:256], y[:256])
    torch.autograd.grad(small.plan.sum(), (x, y))
    return x, y


@pytest.mark.parametrize("max_iter", [10, 200])
@pytest.mark.parametrize("solver", ["sinkhorn", "auto"])
def test_transport_takes_plan_and_cost(solver, max_iter, transported):
    """Forward: the two and a little for every row; backward: one more; whatever the number of iterations."""
    x, y = transported
    square = 4 * 4096**2
    little = square // 6  # of the order of a row: column sums of 16 rows at a time, of two kinds in the backward
    options = {"epsilon": 0.05, "max_iter": max_iter, "tol": 0.0, "solver": solver}
    forward, result = peak(lambda: ops.transport(x, y, **options))
    assert forward <= 2 * square + little
    upstream = torch.rand_like(result.plan)
    backward, _ = peak(lambda: torch.autograd.grad(result.plan, (x, y), upstream))
    assert backward <= square + 2 * x.numel() * 4 + little


def test_values_of_transport_keep_no_matrix(transported):
    x, y = transported
    square = 4 * 4096**2
    before = torch.cuda.memory_allocated()
    forward, value = peak(lambda: ops.transport_value(x, y))  # costs and kernel, while it iterates
    assert forward <= 2 * square * 9 // 8
    assert torch.cuda.memory_allocated() - before < square // 8
    backward, _ = peak(lambda: torch.autograd.grad(value, (x, y)))
    assert backward <= square * 9 // 8 + 2 * x.numel() * 4


def test_expected_volume_grows_with_the_squares(device):
    sets = [unit_rows(600, 64, dtype=torch.float32, seed=seed).to(device) for seed in range(3)]
    costs = [torch.cdist(sets[i], sets[j]).square().requires_grad_() for i, j in ((0, 1), (0, 2), (1, 2))]
    ops.expected_volume(*costs)
    forward, value = peak(lambda: ops.expected_volume(*costs))
    assert forward <= 8 * 4 * 600**2
    backward, _ = peak(lambda: torch.autograd.grad(value, costs))
    assert backward <= 8 * 4 * 600**2


def test_scores_keep_the_alphas(device):
    """k - 1 arrays for the backward, and their products in the backward."""
    anchor = unit_rows(4096, 64, dtype=torch.float32).to(device).requires_grad_()
    others = unit_rows(4096, 2, 64, dtype=torch.float32, seed=1).to(device).requires_grad_()
    ops.volume_scores(anchor[:256], others[:256]).sum().backward()
    square = 4 * 4096**2
    forward, scores = peak(lambda: ops.volume_scores(anchor, others))
    assert forward <= (1 + 2) * square * 9 // 8
    upstream = torch.rand_like(scores)
    backward, _ = peak(lambda: torch.autograd.grad(scores, (anchor, others), upstream))
    assert backward <= (2 + 1) * square


def test_ranks_need_no_matrix(device):
    anchor = unit_rows(20_000, 64, dtype=torch.float32).to(device)
    others = unit_rows(20_000, 2, 64, dtype=torch.float32, seed=1).to(device)
    target = torch.arange(20_000, device=device)
    ops.volume_rank(anchor[:100], others[:100], target[:100])
    matrix = 4 * 20_000**2
    for call in (lambda: ops.volume_rank(anchor, others, target), lambda: ops.volume_topk(anchor, others, 10)):
        assert peak(call)[0] <= matrix // 4


# ---- more than 2^31 elements in one array ----


def test_many_vectors(device):
    needs(26)
    groups = (1 << 31) // 1024 + 3  # of 2 x 512
    v = torch.empty(groups, 2, 512, device=device)
    v.normal_(generator=torch.Generator(device).manual_seed(0))
    last = v[-5:].clone()
    assert torch.equal(ops.gram(v)[-5:], ops.gram(last))
    assert torch.equal(ops.volume(v)[-5:], ops.volume(last))


def test_many_scores(device):
    needs(40)
    n = 46_500  # 2.16e9 scores
    anchor, others = torch.rand(n, 8, device=device), torch.rand(n, 1, 8, device=device)
    anchor, others = torch.nn.functional.normalize(anchor, dim=-1), torch.nn.functional.normalize(others, dim=-1)
    scores = ops.volume_scores(anchor, others)
    torch.testing.assert_close(scores[-3:], ops.volume_scores(anchor[-3:], others), rtol=1e-4, atol=1e-4)
    _, rows, columns = torch.ops.mover.contrast(scores, torch.tensor(-5.0, device=device))
    torch.testing.assert_close(rows[-3:], torch.logsumexp(-5 * scores[-3:], 1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(columns[-3:], torch.logsumexp(-5 * scores[:, -3:], 0), rtol=1e-5, atol=1e-5)


def test_many_costs(device):
    needs(60)
    n = 46_500
    x, y = unit_rows(n, 4, dtype=torch.float32).to(device), unit_rows(n, 4, dtype=torch.float32, seed=1).to(device)
    result = ops.transport(x, y, epsilon=1.0, max_iter=8, tol=0.0, solver="sinkhorn")
    exact = (x[-3:].double()[:, None] - y.double()).square().sum(-1)
    torch.testing.assert_close(result.cost[-3:].double(), exact, rtol=1e-5, atol=1e-6)
    sums = result.plan[-1000:].sum(1, dtype=torch.float64), result.plan[:, -1000:].sum(0, dtype=torch.float64)
    for total in sums:
        torch.testing.assert_close(total * n, torch.ones_like(total), rtol=1e-2, atol=0)
