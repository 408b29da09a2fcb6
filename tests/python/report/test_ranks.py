"""Histograms of ranks: bins that miss nothing, shares by hand, chance by counting."""

import numpy as np
import pytest

from mover.evaluate.standing import Standing
from mover.report.ranks import by_chance, rank_bins, rank_chart, rank_shares


@pytest.mark.parametrize("candidates", [1, 2, 3, 5, 6, 10, 64, 1000, 1001, 99999])
def test_bins_cover_every_rank_once(candidates: int) -> None:
    bins = rank_bins(candidates)
    assert [rank for first, last in bins for rank in range(first, last + 1)] == list(range(1, candidates + 1))


def test_bins_by_hand() -> None:
    assert rank_bins(64) == [(1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, 64)]


def test_shares_by_hand() -> None:
    better, tied = np.array([0, 1, 9, 0]), np.array([0, 0, 0, 1])  # the last is first or second, equally likely
    standing = Standing(better, tied, np.ones(4, dtype=np.int64))
    assert rank_shares(standing, rank_bins(20)) == pytest.approx([37.5, 37.5, 0, 25, 0])


def test_chance_of_one_right_answer_is_even() -> None:
    chance = by_chance(20, np.ones(3, dtype=np.int64))
    assert rank_shares(chance, rank_bins(20)) == pytest.approx([5, 5, 15, 25, 50])


def test_chance_of_several_right_answers_is_that_of_the_best() -> None:
    random = np.random.default_rng(0)
    own, candidates = 3, 12
    best = np.array([random.permutation(candidates)[:own].min() for _ in range(40000)])
    bins = rank_bins(candidates)
    expected = [100 * ((best + 1 >= first) & (best + 1 <= last)).mean() for first, last in bins]
    assert rank_shares(by_chance(candidates, np.array([own])), bins) == pytest.approx(expected, abs=1)


def test_the_label_tells_the_gist() -> None:
    better = np.array([0, 0, 0, 15])
    standing = Standing(better, np.zeros_like(better), np.ones_like(better))
    found = rank_chart("depth+notes2A", standing, by_chance(20, np.ones(4, dtype=np.int64)), 20)
    assert found.label == (
        "depth+notes2A, 4 queries among 20 candidates: the right answer is first for 75.0 %, beyond the tenth place "
        "for 25.0 %."
    )
    assert 'id="rank-depth_2bnotes2A' in found.svg
