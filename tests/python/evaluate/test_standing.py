"""Expectations under random orders of ties: by hand, over all orders, by simulation, and against other libraries."""

import itertools

import numpy as np
import pytest

from mover.evaluate.standing import DEPTH, Standing, average_precision


def standing(better: list[int], tied: list[int], own: list[int] | None = None) -> Standing:
    return Standing(np.array(better), np.array(tied), np.array(own or [1] * len(better)))


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
    assert got.reciprocal_rank() == pytest.approx([2 / 3 + 1 / 3 / 2])
    # One better: never at rank 0.
    assert standing([1], [1], [2]).recall_at(1) == pytest.approx([0])
    assert standing([1], [1], [2]).recall_at(2) == pytest.approx([2 / 3])


def test_one_right_answer_by_hand() -> None:
    # Places 3, 4 and 5, each with chance 1 / 3; places 10 and 11, of which only the first counts.
    got = standing([2, 9, 10, 0], [2, 1, 0, 0])
    assert got.reciprocal_rank() == pytest.approx([(1 / 3 + 1 / 4 + 1 / 5) / 3, (1 / 10 + 1 / 11) / 2, 1 / 11, 1])
    assert got.precision() == pytest.approx([(1 / 3 + 1 / 4 + 1 / 5) / 3, 1 / 10 / 2, 0, 1])
    assert got.expected_rank.tolist() == [3, 9.5, 10, 0]
    assert got.recall_at(5).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("own", [1, 2, 3, 5])
@pytest.mark.parametrize("tied", [0, 1, 4, 9])
def test_ties_against_simulated_orders(own: int, tied: int) -> None:
    random = np.random.default_rng(7)
    first = random.permuted(np.tile(np.arange(tied + own) < own, (20000, 1)), axis=1).argmax(1)
    better = 2
    got = standing([better], [tied], [own])
    assert got.expected_rank[0] == pytest.approx((better + first).mean(), abs=0.06)
    assert got.reciprocal_rank()[0] == pytest.approx((1 / (better + first + 1)).mean(), abs=0.003)
    for k in (1, 3, 5, 10):
        assert got.recall_at(k)[0] == pytest.approx((better + first < k).mean(), abs=0.02)


def test_many_queries_of_few_kinds_and_ties_without_end() -> None:
    got = standing([0, 5, 0, 5] * 50, [100000, 3, 100000, 0] * 50, [3, 2, 3, 4] * 50).reciprocal_rank()
    one = [float(standing([b], [t], [o]).reciprocal_rank()[0]) for b, t, o in ((0, 100000, 3), (5, 3, 2), (5, 0, 4))]
    assert got == pytest.approx([one[0], one[1], one[0], one[2]] * 50)
    # the first of three right among T wrong ones: about a Beta(1, 3) share of T, E[1 / (i + 1)] ~ 3 ln T / T
    assert one[0] == pytest.approx(3 * (np.log(1e5) - 1) / 1e5, rel=0.08)


def precision_of_order(right: list[bool]) -> float:
    hits = [(sum(right[: k + 1]) / (k + 1)) for k in range(min(DEPTH, len(right))) if right[k]]
    return sum(hits) / min(sum(right), DEPTH)


def expected_by_orders(scores: list[float], mine: list[bool]) -> float:
    """The mean over all orders of the candidates, NaN of right ones last."""
    found = []
    for order in itertools.permutations(range(len(scores))):
        key = [np.inf if np.isnan(s) else -s for s in scores]
        ranked = sorted(range(len(scores)), key=lambda c: (key[c], order[c]))
        found.append(precision_of_order([mine[c] for c in ranked]))
    return float(np.mean(found))


def by_counts(scores: np.ndarray, mine: np.ndarray) -> float:
    right = np.array(sorted(scores[mine], key=lambda s: np.inf if np.isnan(s) else -s))
    wrong = scores[~mine]
    better = np.array([len(wrong) if np.isnan(s) else (wrong > s).sum() for s in right])
    tied = np.array([(wrong == s).sum() for s in right])
    return float(average_precision(np.zeros(len(right), dtype=np.int64), right, better, tied)[0])


@pytest.mark.parametrize("seed", range(12))
def test_average_precision_over_all_orders(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 3, 7).astype(np.float64)
    mine = np.arange(7) < random.integers(1, 5)
    scores[mine & (random.random(7) < 0.2)] = np.nan
    assert by_counts(scores, mine) == pytest.approx(expected_by_orders(list(scores), list(mine)), abs=1e-12)


def test_average_precision_by_hand() -> None:
    # right at places 1 and 3 of right, wrong, right, wrong: (1/1 + 2/3) / 2
    got = by_counts(np.array([9.0, 7.0, 8.0, 6.0]), np.array([True, True, False, False]))
    assert got == pytest.approx((1 + 2 / 3) / 2)
    # two right and one wrong, all tied: orders rrw, rwr, wrr: (1 + 5/6 + (1/2 + 2/3) / 2) / 3
    got = by_counts(np.zeros(3), np.array([True, True, False]))
    assert got == pytest.approx((1 + 5 / 6 + 7 / 12) / 3)
    # twelve right ones ahead of all others fill the ten places
    assert by_counts(np.arange(14.0)[::-1].copy(), np.arange(14) < 12) == pytest.approx(1)
    # one right at place 11 is not seen
    assert by_counts(np.arange(12.0), np.arange(12) == 1) == 0


@pytest.mark.parametrize("own", [2, 3, 11, 15])
def test_long_ties_against_simulated_orders(own: int) -> None:
    random = np.random.default_rng(own)
    mine = np.arange(40) < own
    scores = np.where(np.arange(40) % 2, 1.0, 2.0)
    scores[20:25] = 3.0
    got = by_counts(scores, mine)
    found = []
    for _ in range(3000):
        order = np.lexsort((random.random(40), -scores))
        found.append(precision_of_order(list(mine[order])))
    assert got == pytest.approx(np.mean(found), abs=4 * np.std(found) / np.sqrt(len(found)))


def test_one_right_answer_has_the_same_average_precision_either_way() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        scores = random.integers(0, 6, 20).astype(np.float64)
        counts = standing([int((scores[1:] > scores[0]).sum())], [int((scores[1:] == scores[0]).sum())])
        assert by_counts(scores, np.arange(20) == 0) == pytest.approx(float(counts.precision()[0]), abs=1e-14)


def test_several_queries_at_once_are_kept_apart() -> None:
    clip = np.array([0, 0, 1, 2, 2, 2])
    scores = np.array([2.0, 2.0, 2.0, 3.0, 1.0, np.nan])
    better, tied = np.array([0, 0, 1, 0, 1, 4]), np.array([1, 1, 0, 0, 2, 0])
    whole = average_precision(clip, scores, better, tied)
    alone = [average_precision(np.zeros(n, dtype=np.int64), scores[s], better[s], tied[s])[0]
             for n, s in ((2, slice(0, 2)), (1, slice(2, 3)), (3, slice(3, 6)))]  # fmt: skip
    assert whole.tolist() == alone
    none = np.zeros(0, dtype=np.int64)
    assert average_precision(none, np.zeros(0), none, none).tolist() == []
