"""Ranks under ties: by hand, against an independent brute force, and against simulated random orders."""

import itertools

import numpy as np
import pytest
import torch

from mover.evaluate import rank as rank_module
from mover.evaluate.rank import Standing, rank_best_of, rank_single


def standing(better: list[int], tied: list[int], own: list[int] | None = None) -> Standing:
    return Standing(np.array(better), np.array(tied), np.array(own or [1] * len(better)))


def block_of(scores: torch.Tensor) -> rank_module.ScoreBlock:
    return lambda rows: scores[rows]


def ranks_over_all_orders(scores: list[float], mine: set[int]) -> list[int]:
    """0-based ranks of the best right candidate for every order of the candidates: sort by score, then by order."""
    ranks = []
    for order in itertools.permutations(range(len(scores))):
        key = [-np.inf if np.isnan(s) else s for s in scores]
        ahead = 0
        for candidate in sorted(range(len(scores)), key=lambda c: (-key[c], order[c])):
            if candidate in mine and not np.isnan(scores[candidate]):
                break
            ahead += candidate not in mine
        ranks.append(ahead)
    return ranks


def test_ranks_by_hand() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.5], [0.7, 0.2, 0.7], [0.3, 0.3, 0.3]])
    got = rank_single(block_of(scores), torch.tensor([0, 1, 2]), 3)
    assert got.better.tolist() == [0, 2, 0]
    assert got.tied.tolist() == [0, 0, 2]
    assert got.expected_rank.tolist() == [0, 2, 1]
    assert got.recall_at(1) == pytest.approx([1, 0, 1 / 3])
    assert got.recall_at(2) == pytest.approx([1, 0, 2 / 3])
    assert got.recall_at(3) == pytest.approx([1, 1, 1])


def test_recall_of_a_single_answer_is_the_clipped_line() -> None:
    better, tied = (grid.ravel() for grid in np.meshgrid(np.arange(12), np.arange(12)))
    for k in (1, 5, 10):
        expected = np.clip((k - better) / (tied + 1), 0, 1)
        assert standing(list(better), list(tied)).recall_at(k) == pytest.approx(expected, abs=1e-14)


def test_two_own_captions_tied_with_one_other_by_hand() -> None:
    # Orders of {own, own, wrong}: the wrong one comes first in 1 of 3.
    got = standing([0], [1], [2])
    assert got.recall_at(1) == pytest.approx([2 / 3])
    assert got.recall_at(2) == pytest.approx([1])
    assert got.expected_rank == pytest.approx([1 / 3])
    # One better: never at rank 0.
    assert standing([1], [1], [2]).recall_at(1) == pytest.approx([0])
    assert standing([1], [1], [2]).recall_at(2) == pytest.approx([2 / 3])


@pytest.mark.parametrize("own", [1, 2, 3, 5])
@pytest.mark.parametrize("tied", [0, 1, 4, 9])
def test_ties_against_simulated_orders(own: int, tied: int) -> None:
    random = np.random.default_rng(7)
    trials = 20000
    first = random.permuted(np.tile(np.arange(tied + own) < own, (trials, 1)), axis=1).argmax(1)
    better = 2
    got = standing([better], [tied], [own])
    assert got.expected_rank[0] == pytest.approx((better + first).mean(), abs=0.06)
    for k in (1, 3, 5, 10):
        assert got.recall_at(k)[0] == pytest.approx((better + first < k).mean(), abs=0.02)


@pytest.mark.parametrize("seed", range(8))
def test_one_right_answer_against_all_orders(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 3, (4, 6)).astype(np.float64)
    scores[random.random(scores.shape) < 0.1] = np.nan
    target = random.integers(0, 6, 4)
    got = rank_single(block_of(torch.from_numpy(scores)), torch.from_numpy(target), 6)
    for row in range(4):
        right = int(target[row])
        if np.isnan(scores[row, right]):
            assert (got.better[row], got.tied[row]) == (5, 0)
            continue
        ranks = np.array(ranks_over_all_orders(list(scores[row]), {right}))
        assert got.expected_rank[row] == pytest.approx(ranks.mean())
        for k in (1, 2, 4):
            assert got.recall_at(k)[row] == pytest.approx((ranks < k).mean())


@pytest.mark.parametrize("seed", range(8))
def test_several_right_answers_against_all_orders(seed: int) -> None:
    random = np.random.default_rng(100 + seed)
    owner = np.array([0, 0, 0, 1, 2, 2, 1])  # ragged, not sorted
    scores = random.integers(0, 3, (3, 7)).astype(np.float64)
    scores[random.random(scores.shape) < 0.15] = np.nan
    got = rank_best_of(block_of(torch.from_numpy(scores)), torch.from_numpy(owner), 3)
    for row in range(3):
        mine = {int(c) for c in np.flatnonzero(owner == row)}
        if all(np.isnan(scores[row, c]) for c in mine):
            assert (got.better[row], got.tied[row]) == (7 - len(mine), 0)
            continue
        ranks = np.array(ranks_over_all_orders(list(scores[row]), mine))
        assert got.expected_rank[row] == pytest.approx(ranks.mean())
        for k in (1, 2, 4):
            assert got.recall_at(k)[row] == pytest.approx((ranks < k).mean())


def test_scores_of_others_that_are_nan_count_neither_way() -> None:
    scores = torch.tensor([[0.5, float("nan"), 0.9]])
    got = rank_single(block_of(scores), torch.tensor([0]), 3)
    assert (got.better[0], got.tied[0]) == (1, 0)


def test_blocks_do_not_change_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.randint(0, 5, (37, 23)).double()
    target = torch.randint(0, 23, (37,))
    owner = torch.cat([torch.arange(37), torch.randint(0, 37, (20,))])
    wide = torch.randint(0, 5, (37, 57)).double()
    whole = rank_single(block_of(scores), target, 23), rank_best_of(block_of(wide), owner, 37)
    seen: list[int] = []

    def watched(table: torch.Tensor) -> rank_module.ScoreBlock:
        def block(rows: slice) -> torch.Tensor:
            seen.append(table[rows].numel())
            return table[rows]

        return block

    monkeypatch.setattr(rank_module, "BLOCK_ELEMENTS", 120)
    pieces = rank_single(watched(scores), target, 23), rank_best_of(watched(wide), owner, 37)
    assert max(seen) <= 120
    for one, other in zip(whole, pieces, strict=True):
        assert one.better.tolist() == other.better.tolist()
        assert one.tied.tolist() == other.tied.tolist()
        assert one.own.tolist() == other.own.tolist()


def test_a_query_without_a_right_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one right candidate"):
        rank_best_of(block_of(torch.zeros(2, 2)), torch.tensor([0, 0]), 2)
