"""Retrieval without the matrix: the same bits, order and counts as from the matrix that volume_scores returns."""

import pytest
import torch
import torch.nn.functional as F

from cases.operators import unit_rows
from mover import ops, reference
from mover.reference.scores import rank_of, topk_of

DTYPES = [torch.float32, torch.float64]
SCORES = ["volume", "span", "cosine"]


def problem(k=3, n=31, m=200, d=12, dtype=torch.float64):
    """Anchors and groups, of which some are equal, some lack members and one has none; an anchor of NaN."""
    anchor, others = unit_rows(n, d, dtype=dtype), unit_rows(m, k - 1, d, dtype=dtype, seed=1)
    others[m // 2 :: 7] = others[3]
    mask = torch.rand(m, k - 1, generator=torch.Generator().manual_seed(0)) < 0.8
    mask[m // 2 :: 7] = True
    mask[3] = True
    mask[5] = False
    anchor[n // 2] = torch.nan
    return anchor, others, mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("score", ["volume", "span"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_very_bits_of_the_scores(k, dtype, score, masked):
    anchor, others, mask = problem(k, n=530, m=300, dtype=dtype)
    mask = mask if masked else None
    target = torch.arange(530) % 300
    scores = ops.volume_scores(anchor, others, mask, score=score)
    values, indices = ops.volume_topk(anchor, others, 17, mask, score=score)
    expected = topk_of(scores, 17)
    assert torch.equal(indices, expected.indices)
    assert torch.equal(values.nan_to_num(9), expected.values.nan_to_num(9))
    rank = ops.volume_rank(anchor, others, target, mask, score=score)
    assert all(torch.equal(one, other) for one, other in zip(rank, rank_of(scores, target), strict=True))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("k", [2, 3, 4, 8])
def test_against_the_reference(k, score):
    anchor, others, mask = problem(k)
    target = torch.arange(31) * 3 % 200
    exact = reference.volume_scores(anchor, others, mask, score)
    values, indices = ops.volume_topk(anchor, others, 200, mask, score=score)
    torch.testing.assert_close(values, exact.gather(1, indices), equal_nan=True)
    torch.testing.assert_close(values, topk_of(exact, 200, score).values, equal_nan=True)
    better, tied = ops.volume_rank(anchor, others, target, mask, score=score)
    own = exact.gather(1, target[:, None])
    keys, own = (-exact, -own) if score == "cosine" else (exact, own)
    slack = 1e-12
    known = ~own[:, 0].isnan()
    assert bool((better >= (keys < own - slack).sum(1))[known].all())
    assert bool((better + tied + 1 <= (keys <= own + slack).sum(1))[known].all())
    assert torch.equal(better[~known], torch.full_like(better[~known], 199))
    assert torch.equal(tied[~known], torch.zeros_like(tied[~known]))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("topk", [1, 2, 3, 8, 255, 256, 257, 600])
def test_topk_of_any_size_is_in_order(topk, score):
    anchor, others, mask = problem(n=5, m=600)
    values, indices = ops.volume_topk(anchor, others, topk, mask, score=score)
    full = ops.volume_topk(anchor, others, 600, mask, score=score)
    assert torch.equal(indices, full.indices[:, :topk])
    assert torch.equal(values.nan_to_num(9), full.values[:, :topk].nan_to_num(9))
    assert torch.equal(full.indices.sort(1).values, torch.arange(600).expand(5, 600))
    assert bool(values[2].isnan().all())  # the anchor of NaN: in the order of the indices
    assert torch.equal(indices[2], torch.arange(topk))


def test_ties_go_by_index():
    x = torch.eye(4, dtype=torch.float64)
    others = x[[1, 0, 1, 0, 2]][:, None]
    assert ops.volume_topk(x[:1], others, 5).indices.tolist() == [[1, 3, 0, 2, 4]]
    assert ops.volume_topk(x[:1], others, 3, score="cosine").indices.tolist() == [[1, 3, 0]]
    better, tied = ops.volume_rank(x[[0, 0, 1, 3]], others, torch.tensor([1, 0, 2, 4]))
    assert better.tolist() == [0, 2, 0, 0]
    assert tied.tolist() == [1, 2, 1, 4]
    better, tied = ops.volume_rank(x[[0, 0]], others, torch.tensor([3, 4]), score="cosine")
    assert (better.tolist(), tied.tolist()) == ([0, 2], [1, 2])


def test_nan_is_worse_than_every_number():
    x = torch.eye(4, dtype=torch.float64)
    others = x[[1, 0, 2]][:, None].clone()
    mask = torch.tensor([[False], [True], [True]])
    assert ops.volume_topk(x[:1], others, 3, mask).indices.tolist() == [[1, 2, 0]]
    better, tied = ops.volume_rank(x[[0, 0, 2]], others, torch.tensor([0, 2, 1]), mask)
    assert (better.tolist(), tied.tolist()) == ([2, 1, 1], [0, 0, 0])
    for score in SCORES:
        others[0, 0, 1] = torch.nan
        assert ops.volume_topk(x[:1], others, 3, score=score).indices.tolist() == [[1, 2, 0]]


def test_cosine_is_the_sum_over_the_members_present():
    anchor, others, mask = problem(4, dtype=torch.float32)
    others[~mask] = torch.nan
    values, indices = ops.volume_topk(anchor, others, 200, mask, score="cosine")
    present = torch.where(mask[..., None], others, 0)
    expected = torch.einsum("nd,mkd->nm", anchor.double(), present.double())
    expected[:, ~mask.any(1)] = torch.nan
    torch.testing.assert_close(values.double(), expected.gather(1, indices), rtol=0, atol=1e-6, equal_nan=True)
    assert bool(values[15].isnan().all())
    clean = values[torch.arange(31) != 15, : int(mask.any(1).sum())]
    assert bool((clean.diff(dim=1) <= 0).all())


def test_threads_and_repetition_change_nothing():
    anchor, others, mask = problem(n=600, m=700, d=32, dtype=torch.float32)
    target = torch.arange(600)
    runs = []
    for threads in (1, 1, 2):
        torch.set_num_threads(threads)
        runs.append(
            [
                *ops.volume_topk(anchor, others, 5, mask, score="span"),
                *ops.volume_rank(anchor, others, target, mask),
            ]
        )
    assert all(torch.equal(one.nan_to_num(9), other.nan_to_num(9)) for one, other in zip(*runs[:2], strict=True))
    torch.testing.assert_close(runs[0][0], runs[2][0], equal_nan=True, rtol=1e-5, atol=1e-6)


def test_empty():
    others = F.normalize(torch.ones(3, 2, 4), dim=-1)
    values, indices = ops.volume_topk(torch.ones(0, 4), others, 2)
    assert values.shape == indices.shape == (0, 2)
    better, tied = ops.volume_rank(torch.ones(0, 4), others, torch.zeros(0, dtype=torch.int64))
    assert better.shape == tied.shape == (0,)
    with pytest.raises(RuntimeError, match=r"target\[0\] must be a group from 0 to -1, got 0"):
        ops.volume_rank(torch.ones(2, 4), others[:0], torch.zeros(2, dtype=torch.int64))


def test_results_have_names():
    anchor, others, mask = problem()
    assert ops.volume_topk(anchor, others, 2)._fields == ("values", "indices")
    assert ops.volume_rank(anchor, others, torch.zeros(31, dtype=torch.int64), mask)._fields == ("better", "tied")
