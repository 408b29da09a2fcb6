"""The bootstrap over clips: what is drawn, statistics under weights against repeated clips, coverage."""

import numpy as np
import pytest

from mover.evaluate import intervals
from mover.evaluate.intervals import bootstrap, interval, means, medians, resamples, together


def drawn(weights: np.ndarray, clip: np.ndarray) -> np.ndarray:
    """The queries of a resample, each as often as its clip was drawn."""
    return np.repeat(np.arange(len(clip)), weights[clip])


def test_weights_are_counts_of_draws_and_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(resamples(7, 50, seed=3)))
    assert whole.shape == (50, 7) and whole.dtype == np.int32 and (whole.sum(1) == 7).all()
    assert np.array_equal(np.concatenate(list(resamples(7, 50, seed=3))), whole)
    assert not np.array_equal(np.concatenate(list(resamples(7, 50, seed=4))), whole)
    for bound in (1, 20, 77, 10**6):
        monkeypatch.setattr(intervals, "_AT_ONCE", bound)
        blocks = list(resamples(7, 50, seed=3))
        assert max(len(block) for block in blocks) == max(1, min(50, bound // 7))
        assert np.array_equal(np.concatenate(blocks), whole)
    many = np.concatenate(list(resamples(20, 4000)))
    assert many.mean(axis=0) == pytest.approx(np.ones(20), abs=0.06)
    assert many.var() == pytest.approx(1 - 1 / 20, abs=0.03)


def test_means_and_medians_are_those_of_the_queries_drawn() -> None:
    random = np.random.default_rng(0)
    clip, other = random.integers(0, 9, 30), np.arange(9)
    values, more = random.integers(0, 4, (30, 3)).astype(float), random.random((9, 1))
    statistic = together([means([(clip, values), (other, more)], 9), medians(clip, values[:, 0])])
    for weights in resamples(9, 200, seed=1):
        for row, got in zip(weights, statistic(weights), strict=True):
            some = drawn(row, clip)
            expected = [*values[some].mean(axis=0), more[drawn(row, other)].mean(), np.median(values[some, 0])]
            assert got == pytest.approx(expected)


def test_resamples_without_a_query_have_no_number() -> None:
    clip = np.array([2, 2])
    statistic = together([means([(clip, np.array([[1.0], [3.0]]))], 3), medians(clip, np.array([1.0, 3.0]))])
    got = statistic(np.array([[3, 0, 0], [1, 1, 1]], dtype=np.int32))
    assert np.isnan(got[0]).all() and got[1].tolist() == [2, 2]
    found = interval(np.array([[np.nan, np.nan], [2.0, np.nan], [4.0, np.nan]]))
    assert found[:, 0] == pytest.approx([2.05, 3.95]) and np.isnan(found[:, 1]).all()


def test_percentiles_by_hand() -> None:
    assert interval(np.arange(1.0, 42.0)[:, None])[:, 0] == pytest.approx([2, 40])


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    """R@1 of clips with three captions that fare alike: what would be too narrow if captions were drawn alone."""
    random = np.random.default_rng(5)
    clip, covered, narrow = np.repeat(np.arange(80), 3), 0, 0
    for seed in range(150):
        values = np.repeat((random.random(80) < 0.4).astype(float), 3)[:, None]
        low, high = interval(bootstrap(means([(clip, values)], 80), 80, 400, seed))[:, 0]
        covered += low <= 0.4 <= high
        low, high = interval(bootstrap(means([(np.arange(240), values)], 240), 240, 400, seed))[:, 0]
        narrow += low <= 0.4 <= high
    assert 0.89 <= covered / 150 <= 0.99
    assert narrow / 150 < 0.85


def test_differences_of_what_is_drawn_together_are_narrow() -> None:
    random = np.random.default_rng(6)
    one = (random.random((200, 1)) < 0.5).astype(float)
    two = np.where(random.random((200, 1)) < 0.05, 1.0, one)
    clip = np.arange(200)
    found = bootstrap(means([(clip, one), (clip, two)], 200), 200, 1000)
    paired = np.diff(interval((found[:, 1] - found[:, 0])[:, None]), axis=0)
    apart = np.diff(interval((found[:, 1] - found[::-1, 0])[:, None]), axis=0)
    assert paired < apart / 2
