"""95 % intervals by the bootstrap over clips.

A resample draws as many clips as there are, with replacement; the captions of a clip stay together. It is held as a
weight of each clip, the number of times it was drawn, so that a mean over queries is a ratio of two weighted sums, and
everything that is computed under the same weights is paired. The interval is that between the 2.5th and the 97.5th
percentile of the resamples (the percentile method).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
_AT_ONCE = 1 << 22
"""Bound on the weights held at once."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""From weights (b, clips) to numbers (b, s), NaN where none is defined."""


def resamples(clips: int, count: int = RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """Weights of the clips, int32 blocks (b, clips) of `count` rows in all; the same ones for the same arguments."""
    random = np.random.default_rng(seed)
    size = max(1, _AT_ONCE // max(clips, 1))
    for start in range(0, count, size):
        rows = min(size, count - start)
        drawn = random.integers(0, clips, (rows, clips))
        drawn += clips * np.arange(rows)[:, None]
        yield np.bincount(drawn.reshape(-1), minlength=rows * clips).reshape(rows, clips).astype(np.int32)


def bootstrap(statistic: Statistic, clips: int, count: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """The statistic under every resample, float64 (count, s)."""
    return np.concatenate([statistic(weights) for weights in resamples(clips, count, seed)])


def interval(values: np.ndarray) -> np.ndarray:
    """The percentiles (2, s) of what `bootstrap` returns; resamples without a number do not count, NaN without any."""
    tail = 100 * (1 - LEVEL) / 2
    found = np.full((2, values.shape[1]), np.nan)
    some = ~np.isnan(values).all(axis=0)
    found[:, some] = np.nanpercentile(values[:, some], [tail, 100 - tail], axis=0)
    return found


def means(groups: Sequence[tuple[np.ndarray, np.ndarray]], clips: int) -> Statistic:
    """The means over the queries of the clips drawn, of several groups of queries, one beside the other.

    Args:
        groups: each the clip of every query, int64 (Q,), and its values (Q, s).
        clips: how many there are.
    """
    sums, counts = [], []
    for clip, values in groups:
        sums += [np.bincount(clip, weights=column, minlength=clips) for column in values.T]
        counts.append(np.bincount(clip, minlength=clips))
    both = np.stack([*sums, *counts], axis=1).astype(np.float64)  # (clips, all s, groups)
    group = np.repeat(np.arange(len(groups)), [values.shape[1] for _, values in groups])

    def statistic(weights: np.ndarray) -> np.ndarray:
        found = weights.astype(np.float64) @ both
        with np.errstate(invalid="ignore"):
            return found[:, : len(group)] / found[:, len(group) + group]

    return statistic


def medians(clip: np.ndarray, values: np.ndarray) -> Statistic:
    """The median over the queries of the clips drawn, (b, 1); clip and values (Q,)."""
    order = np.argsort(values, kind="stable")
    ordered, clip = values[order], clip[order]
    # Medians of resamples lie close to that of all: only if one does not, the queries far from it are looked at, too.
    away = int(4 * len(clip) / np.sqrt(np.count_nonzero(np.bincount(clip)) or 1))
    near = max(0, len(clip) // 2 - away), min(len(clip), len(clip) // 2 + away + 1)
    below = np.bincount(clip[: near[0]], minlength=clip.max(initial=0) + 1).astype(np.float64)
    counts = np.bincount(clip, minlength=len(below)).astype(np.float64)

    def statistic(weights: np.ndarray) -> np.ndarray:
        before, total = (weights[:, : len(below)].astype(np.float64) @ np.stack([below, counts], axis=1)).T.astype(
            np.int64
        )
        halves = (total - 1) // 2, total // 2
        found, known = _places(weights, clip, near, before, halves)
        if not known.all():
            every = np.zeros_like(before[~known])
            found[:, ~known] = _places(weights[~known], clip, (0, len(clip)), every, [h[~known] for h in halves])[0]
        middle = ordered.take(found, mode="clip").mean(axis=0)
        return np.where(total > 0, middle, np.nan)[:, None]

    return statistic


def _places(
    weights: np.ndarray, clip: np.ndarray, window: tuple[int, int], before: np.ndarray, wanted: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The queries at which so many of those drawn are passed, looked for in a window; and whether they are in it.

    before: (b,), how many of those drawn come before the window. wanted: each (b,), the numbers to pass.
    """
    reached = before[:, None] + np.cumsum(weights[:, clip[slice(*window)]], axis=1, dtype=np.int32)
    found = np.stack([window[0] + (reached <= number[:, None]).sum(1) for number in wanted])
    known = (before <= wanted[0]) & (found[-1] < window[1])
    return found, known


def together(statistics: Sequence[Statistic]) -> Statistic:
    """Several statistics under the same weights, one beside the other."""
    return lambda weights: np.concatenate([statistic(weights) for statistic in statistics], axis=1)
