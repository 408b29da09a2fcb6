"""The contrastive matrix of volumes: values, close rows, gradients."""

import pytest
import torch
import torch.nn.functional as F

from cases.operators import unit_rows
from cases.volumes import VOLUME_CASES
from mover import ops, reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", range(2, 9))
def test_values(k, dtype):
    anchor, others = unit_rows(9, 33, dtype=dtype), unit_rows(7, k - 1, 33, dtype=dtype, seed=1)
    scores = ops.volume_scores(anchor, others)
    exact = reference.volume_scores(anchor, others)
    # the rows are unit vectors up to rounding only, which the reference sees and the formula in alpha does not
    assert (scores - exact).abs().max() <= k * 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize(("n", "m"), [(1, 1), (31, 33), (32, 32), (129, 127), (3, 200)])
def test_sizes(n, m):
    anchor, others = unit_rows(n, 20), unit_rows(m, 2, 20, seed=1)
    torch.testing.assert_close(ops.volume_scores(anchor, others), reference.volume_scores(anchor, others))


@pytest.mark.parametrize("case", VOLUME_CASES, ids=lambda case: case.name)
def test_known_volumes(case):
    unit = case.vectors / case.vectors.norm(dim=1, keepdim=True)
    score = float(ops.volume_scores(unit[:1], unit[None, 1:]))
    tolerance = 1e-5 if case.name == "coplanar S=65536" else 1e-8
    assert score == pytest.approx(case.volume, rel=tolerance, abs=0)


@pytest.mark.parametrize("scale", [16.0, 128.0, 1024.0])
@pytest.mark.parametrize("k", [2, 3, 4, 8])
def test_near_parallel_rows_in_single(k, scale):
    """Against the exact volume of the very rows that were passed: nothing is lost to cancellation."""
    base = unit_rows(1, 256)
    rows = F.normalize(base + unit_rows(k, 256, seed=1) / scale, dim=1)
    single = rows.float()
    again = F.normalize(single.double(), dim=1)
    exact = float(reference.volume(again))
    score = float(ops.volume_scores(single[:1], single[None, 1:]))
    assert score == pytest.approx(exact, rel=2e-4 * scale / 1024 * k + 1e-6)


def test_perfect_and_orthogonal_groups():
    x = torch.eye(4)
    scores = ops.volume_scores(x, torch.stack([x, x], dim=1))
    assert torch.equal(scores.diagonal(), torch.zeros(4))
    scores = ops.volume_scores(x[:1], torch.stack([x[1], x[2]])[None])
    assert float(scores) == 1.0


@pytest.mark.parametrize("k", [2, 3, 4, 8])
def test_gradient(k):
    anchor, others = unit_rows(3, 10).requires_grad_(), unit_rows(4, k - 1, 10, seed=1).requires_grad_()

    def scores(anchor, others):  # of rows that stay unit vectors
        return ops.volume_scores(F.normalize(anchor, dim=-1), F.normalize(others, dim=-1))

    assert torch.autograd.gradcheck(scores, (anchor, others))


def test_gradient_of_the_others_only():
    anchor, others = unit_rows(3, 10), unit_rows(4, 2, 10, seed=1).requires_grad_()
    both = anchor.clone().requires_grad_()
    one = torch.autograd.grad(ops.volume_scores(anchor, others).sum(), others)[0]
    other = torch.autograd.grad(ops.volume_scores(both, others).sum(), (both, others))[1]
    assert torch.equal(one, other)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_gradient_in_single(k):
    anchor, others = unit_rows(40, 32), unit_rows(50, k - 1, 32, seed=1)
    upstream = torch.randn(40, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grads = []
    for dtype in (torch.float32, torch.float64):
        inputs = [tensor.to(dtype).detach().requires_grad_() for tensor in (anchor, others)]
        ops.volume_scores(*inputs).backward(upstream.to(dtype))
        grads.append([tensor.grad for tensor in inputs])
    for single, double in zip(*grads, strict=True):
        assert float((single - double).abs().max()) <= 1e-5 * float(double.abs().max())


@pytest.mark.parametrize("k", [2, 3, 4])
def test_aligned_groups_have_a_finite_gradient(k):
    x = unit_rows(6, 12, dtype=torch.float32).requires_grad_()
    scores = ops.volume_scores(x, x.unsqueeze(1).expand(6, k - 1, 12))
    scores.diagonal().sum().backward()
    assert bool(torch.isfinite(x.grad).all())
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("k", [2, 3, 4])
def test_nan_stays_in_its_row_or_column(k):
    anchor, others = unit_rows(5, 8), unit_rows(6, k - 1, 8, seed=1)
    clean = ops.volume_scores(anchor, others)
    spoilt_anchor, spoilt_others = anchor.clone(), others.clone()
    spoilt_anchor[2, 1] = torch.nan
    spoilt_others[3, 0, 1] = torch.inf
    scores = ops.volume_scores(spoilt_anchor, others)
    assert bool(torch.isnan(scores[2]).all())
    assert torch.equal(scores[[0, 1, 3, 4]], clean[[0, 1, 3, 4]])
    scores = ops.volume_scores(anchor, spoilt_others)
    assert bool(torch.isnan(scores[:, 3]).all())
    keep = [0, 1, 2, 4, 5]
    assert torch.equal(scores[:, keep], clean[:, keep])


def test_empty():
    assert ops.volume_scores(torch.ones(0, 4), torch.ones(3, 2, 4)).shape == (0, 3)
    anchor = torch.ones(3, 4, requires_grad=True)
    ops.volume_scores(anchor, torch.ones(0, 2, 4)).sum().backward()
    assert torch.equal(anchor.grad, torch.zeros(3, 4))
