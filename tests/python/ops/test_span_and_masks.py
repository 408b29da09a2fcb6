"""The distance from the span, and members that are missing: values against pinv, dependent members, exact gradients."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from cases.operators import unit_rows
from mover import ops, reference

DTYPES = [torch.float32, torch.float64]
SCORES = ["volume", "span"]


def all_masks(members):
    """Every choice of members, (2^members, members)."""
    return torch.tensor(list(itertools.product([True, False], repeat=members)))


def problem(k, n=6, dtype=torch.float64, d=17):
    """Anchors, one group for every mask of its k - 1 members, and the masks."""
    mask = all_masks(k - 1)
    return unit_rows(n, d, dtype=dtype), unit_rows(len(mask), k - 1, d, dtype=dtype, seed=1), mask


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", range(2, 9))
def test_values(k, dtype, score):
    anchor, others, mask = problem(k, dtype=dtype)
    scores = ops.volume_scores(anchor, others, mask, score=score)
    exact = reference.volume_scores(anchor, others, mask, score)
    tolerance = 4e-6 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(scores.double(), exact, rtol=0, atol=tolerance, equal_nan=True)
    assert bool(scores[:, -1].isnan().all())  # the group without members
    everyone = ops.volume_scores(anchor, others, score=score)
    exact = reference.volume_scores(anchor, others, score=score)
    torch.testing.assert_close(everyone.double(), exact, rtol=0, atol=tolerance)
    assert torch.equal(ops.volume_scores(anchor, others, torch.ones_like(mask), score=score), everyone)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", range(2, 9))
def test_one_member_has_one_score(k, dtype):
    """Volume and span of a single member are equal, whichever it is, and those of a group of two."""
    anchor, others = unit_rows(7, 20, dtype=dtype), unit_rows(40, k - 1, 20, dtype=dtype, seed=1)
    which = torch.arange(40) % (k - 1)
    mask = F.one_hot(which, k - 1).bool()
    volume, span = (ops.volume_scores(anchor, others, mask, score=score) for score in SCORES)
    assert torch.equal(volume, span)
    alone = ops.volume_scores(anchor, others[torch.arange(40), which][:, None])
    torch.testing.assert_close(volume, alone, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=0)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("k", range(2, 9))
def test_gradient(k, score):
    anchor, others, mask = problem(k, n=2, d=10)
    some = torch.randperm(len(mask), generator=torch.Generator().manual_seed(k))[:6]
    anchor, others = anchor.requires_grad_(), others[some].clone().requires_grad_()
    for present in (mask[some], None):
        keep = slice(None) if present is None else present.any(1)

        def scores(anchor, others, present=present, keep=keep):
            rows = F.normalize(anchor, dim=-1), F.normalize(others, dim=-1)
            return ops.volume_scores(*rows, present, score=score)[:, keep]

        assert torch.autograd.gradcheck(scores, (anchor, others))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("k", [2, 3, 4, 6])
def test_missing_members_are_not_read_and_get_no_gradient(k, score):
    anchor, others, mask = problem(k)
    clean = [anchor.clone().requires_grad_(), others.clone().requires_grad_()]
    scores = ops.volume_scores(*clean, mask, score=score)
    scores.nan_to_num(0).square().sum().backward()
    assert torch.equal(clean[1].grad[~mask], torch.zeros_like(clean[1].grad[~mask]))
    assert bool((clean[1].grad[mask] != 0).any(-1).all())
    for foreign in (torch.nan, torch.inf, 0.0, 1e30, None):
        spoilt = others.clone()
        spoilt[~mask] = anchor[0] if foreign is None else foreign
        inputs = [anchor.clone().requires_grad_(), spoilt.requires_grad_()]
        again = ops.volume_scores(*inputs, mask, score=score)
        assert torch.equal(again.nan_to_num(7), scores.nan_to_num(7))
        again.nan_to_num(0).square().sum().backward()
        assert all(torch.equal(one.grad, other.grad) for one, other in zip(inputs, clean, strict=True))


@pytest.mark.parametrize("k", [2, 3, 5])
def test_groups_without_members_have_no_gradient_whatever_arrives(k):
    anchor, others = unit_rows(4, 9).requires_grad_(), unit_rows(5, k - 1, 9, seed=1).requires_grad_()
    mask = torch.ones(5, k - 1, dtype=torch.bool)
    mask[2] = False
    upstream = torch.ones(4, 5, dtype=torch.float64)
    grads = []
    for value in (1.0, torch.nan):
        upstream[:, 2] = value
        grads.append(torch.autograd.grad(ops.volume_scores(anchor, others, mask), (anchor, others), upstream))
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))
    assert torch.equal(grads[0][1][2], torch.zeros(k - 1, 9, dtype=torch.float64))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", range(3, 9))
def test_dependent_members_add_nothing_to_the_span(k, dtype):
    """Duplicates, opposites and combinations: the distance is that from what remains."""
    anchor = unit_rows(5, 24, dtype=dtype)
    rows = unit_rows(k - 1, 24, dtype=dtype, seed=1)
    expected = reference.volume_scores(anchor, rows[None, : k - 2], score="span")
    combination = F.normalize(rows[: k - 2].sum(0), dim=0)
    tolerance = 2e-6 if dtype == torch.float32 else 1e-13
    for last in (rows[0], rows[k - 3], -rows[0], combination if dtype == torch.float64 else rows[0]):
        for order in (range(k - 1), reversed(range(k - 1))):
            others = torch.cat([rows[: k - 2], last[None]])[list(order)].clone().requires_grad_()
            spans = ops.volume_scores(anchor, others[None], score="span")
            torch.testing.assert_close(spans.double(), expected, rtol=0, atol=tolerance)
            spans.sum().backward()
            assert bool(others.grad.isfinite().all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", range(3, 9))
def test_an_anchor_inside_the_span_scores_zero_without_gradient(k, dtype):
    others = unit_rows(30, k - 1, 32, seed=1)
    weights = torch.rand(30, k - 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.3
    anchor = F.normalize((weights[..., None] * others).sum(1), dim=-1).to(dtype).requires_grad_()
    others = others.to(dtype).requires_grad_()
    scores = ops.volume_scores(anchor, others, score="span").diagonal()
    assert torch.equal(scores, torch.zeros_like(scores))
    scores.sum().backward()
    assert torch.equal(anchor.grad, torch.zeros_like(anchor))
    assert torch.equal(others.grad, torch.zeros_like(others))


@pytest.mark.parametrize("scale", [1e1, 1e3, 1e5])
@pytest.mark.parametrize("k", [3, 4, 8])
def test_near_parallel_members(k, scale):
    base = unit_rows(1, 1, 40, seed=1)
    others = F.normalize(base + unit_rows(6, k - 1, 40, seed=2) / scale, dim=-1)
    anchor = unit_rows(8, 40)
    spans = ops.volume_scores(anchor, others, score="span")
    exact = reference.volume_scores(anchor, others, score="span")
    torch.testing.assert_close(spans, exact, rtol=0, atol=1e-15 * scale**2 + 1e-13)


@pytest.mark.parametrize("scale", [16.0, 128.0, 1024.0])
@pytest.mark.parametrize("k", [2, 3, 4, 8])
def test_near_parallel_rows_in_single(k, scale):
    """An anchor close to all members: nothing is lost to cancellation, as with the volume."""
    rows = F.normalize(unit_rows(1, 256) + unit_rows(k, 256, seed=1) / scale, dim=1).float()
    again = F.normalize(rows.double(), dim=1)
    exact = float(reference.volume_scores(again[:1], again[None, 1:], score="span"))
    span = float(ops.volume_scores(rows[:1], rows[None, 1:], score="span"))
    assert span == pytest.approx(exact, rel=2e-4 * scale / 1024 * k + 1e-6)


@pytest.mark.parametrize("k", [2, 3, 4, 8])
def test_the_volume_is_the_span_times_the_volume_of_the_others(k):
    anchor, others = unit_rows(5, 20), unit_rows(7, k - 1, 20, seed=1)
    volume, span = (ops.volume_scores(anchor, others, score=score) for score in SCORES)
    torch.testing.assert_close(volume, span * ops.volume(others))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("k", [3, 5])
def test_gradient_in_single(k, score):
    anchor, others, mask = problem(k, n=40, d=32)
    upstream = torch.randn(40, len(mask), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grads = []
    for dtype in DTYPES:
        inputs = [tensor.to(dtype).detach().requires_grad_() for tensor in (anchor, others)]
        ops.volume_scores(*inputs, mask, score=score).backward(upstream.to(dtype))
        grads.append([tensor.grad for tensor in inputs])
    for single, double in zip(*grads, strict=True):
        assert float((single - double).abs().max()) <= 1e-5 * float(double.abs().max())


@pytest.mark.parametrize("k", [2, 3, 4])
def test_nan_stays_in_its_row_or_column(k):
    anchor, others = unit_rows(5, 8), unit_rows(6, k - 1, 8, seed=1)
    clean = ops.volume_scores(anchor, others, score="span")
    for bad in (torch.nan, torch.inf):
        spoilt_anchor, spoilt_others = anchor.clone(), others.clone()
        spoilt_anchor[2, 1] = bad
        spoilt_others[3, k - 2, 1] = bad
        scores = ops.volume_scores(spoilt_anchor, spoilt_others, score="span")
        assert bool(scores[2].isnan().all() and scores[:, 3].isnan().all())
        scores[2], scores[:, 3] = clean[2], clean[:, 3]
        assert torch.equal(scores, clean)


def test_sizes_beyond_a_panel():
    anchor, others = unit_rows(9, 6), unit_rows(2100, 2, 6, seed=1)
    mask = torch.rand(2100, 2, generator=torch.Generator().manual_seed(0)) < 0.7
    for score in SCORES:
        inputs = [anchor.clone().requires_grad_(), others.clone().requires_grad_()]
        scores = ops.volume_scores(*inputs, mask, score=score)
        weights = torch.rand(scores.shape, dtype=torch.float64)
        (scores.nan_to_num(0) * weights).sum().backward()
        total = torch.zeros_like(anchor)
        for begin in range(0, 2100, 500):
            part = slice(begin, begin + 500)
            pieces = [anchor.clone().requires_grad_(), others[part].clone().requires_grad_()]
            piece = ops.volume_scores(*pieces, mask[part], score=score)
            torch.testing.assert_close(piece, scores[:, part], equal_nan=True)
            (piece.nan_to_num(0) * weights[:, part]).sum().backward()
            torch.testing.assert_close(pieces[1].grad, inputs[1].grad[part])
            total += pieces[0].grad
        torch.testing.assert_close(total, inputs[0].grad)
