"""Where the right answers stand among the wrong ones, and what is expected of it under a random order of ties.

A rank is a triple of counts per query: how many wrong candidates score better than the best right one, how many wrong
ones tie with it, and how many right ones share that score (more than one only where a clip has several captions of the
same score). The order within a tie is random, and every number here is its expectation under that order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DEPTH = 10
"""The K of mAP@K: how many of the places are looked at."""


@dataclass(frozen=True)
class Standing:
    """Counts that fix the rank of each query's best right answer; int64 arrays of shape (Q,).

    average_precision: float64 (Q,), the expected average precision of the first DEPTH places. It depends on all right
        answers; where each query has one, it follows from the counts and is None.
    """

    better: np.ndarray
    tied: np.ndarray
    own: np.ndarray
    average_precision: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.better)

    @property
    def expected_rank(self) -> np.ndarray:
        """Mean 0-based rank, float64 (Q,): better + tied / (own + 1)."""
        return self.better + self.tied / (self.own + 1)

    def recall_at(self, k: int) -> np.ndarray:
        """Probability that the rank is below `k`, float64 (Q,).

        Of T tied wrong and o tied right candidates in random order, the first right one stands behind at least r
        wrong ones with probability prod over q < o of (T + o - r - q) / (T + o - q). For o = 1 the complement is
        clip((k - better) / (tied + 1), 0, 1).
        """
        places = np.clip(k - self.better, 0, self.tied + 1)  # r
        total = self.tied + self.own
        behind = np.ones(len(self), dtype=np.float64)
        for q in range(int(self.own.max(initial=0))):
            factor = (total - places - q) / np.maximum(total - q, 1)
            behind *= np.where(q < self.own, factor, 1.0)
        return 1.0 - behind

    def reciprocal_rank(self) -> np.ndarray:
        """Mean of 1 / (rank + 1), float64 (Q,).

        For o = 1 the mean of 1 / (better + 1), ..., 1 / (better + tied + 1); else weighted by the probability that i
        of the T wrong ones precede the first right one, C(T - i + o - 1, o - 1) / C(T + o, o).
        """
        result = 1.0 / (self.better + 1)
        several = np.flatnonzero((self.tied > 0) & (self.own > 1))
        single = np.flatnonzero((self.tied > 0) & (self.own == 1))
        if len(single):
            better, tied = self.better[single], self.tied[single]
            most = int((better + tied).max()) + 1
            harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, most + 1))])
            result[single] = (harmonic[better + tied + 1] - harmonic[better]) / (tied + 1)
        if len(several):
            triples = np.stack([self.better[several], self.tied[several], self.own[several]], axis=1)
            kinds, which = np.unique(triples, axis=0, return_inverse=True)
            result[several] = np.array([_reciprocal(*map(int, kind)) for kind in kinds])[which.reshape(-1)]
        return result

    def precision(self) -> np.ndarray:
        """The expected average precision of the first DEPTH places, float64 (Q,).

        With one right answer: 1 / (rank + 1) where the rank is below DEPTH, else 0.
        """
        if self.average_precision is not None:
            return self.average_precision
        result = np.zeros(len(self), dtype=np.float64)
        for place in range(DEPTH):
            reached = (self.better <= place) & (place <= self.better + self.tied)
            result += np.where(reached, 1.0 / ((place + 1) * (self.tied + 1)), 0.0)
        return result


def average_precision(clip: np.ndarray, scores: np.ndarray, better: np.ndarray, tied: np.ndarray) -> np.ndarray:
    """The expected average precision of the first DEPTH places, all right answers of a query being relevant.

    Average precision is the sum over the places k <= DEPTH that hold a right answer of the share of right ones among
    the first k, divided by min(number of right answers, DEPTH). A tie of r right and w wrong answers behind R right and
    W wrong ones fills the places R + W + 1 to R + W + r + w; the p-th of them holds a right answer with probability
    r / (r + w), and then expects R + 1 + (p - 1) (r - 1) / (r + w - 1) right ones up to there.

    Args:
        clip: int64 (A,), the query of each right answer, sorted; every query from 0 has one.
        scores: (A,), sorted from the best to the worst within a query, NaN last: those share the last places.
        better, tied: int64 (A,), wrong answers that score better than, and the same as, each of them; read for the
            first DEPTH of a query only.

    Source: McSherry & Najork, Computing information retrieval performance measures efficiently in the presence of tied
        scores, 2008.
    """
    start = np.searchsorted(clip, np.arange(clip[-1] + 1 if len(clip) else 0))
    count = np.diff(np.append(start, len(clip)))
    before = np.arange(len(clip)) - start[clip]  # right answers ahead, where this is the first of its score
    same = (scores[1:] == scores[:-1]) | (np.isnan(scores[1:]) & np.isnan(scores[:-1]))
    first = np.concatenate([[True], (clip[1:] != clip[:-1]) | ~same])[: len(clip)]
    heads = np.flatnonzero(first)
    right = np.diff(np.append(heads, len(clip)))  # r
    chosen = before[heads] < DEPTH
    heads, right = heads[chosen], right[chosen]
    ahead, wrong = before[heads], tied[heads]
    total = right + wrong
    gained = np.zeros(len(heads), dtype=np.float64)
    for p in range(1, DEPTH + 1):
        place = ahead + better[heads] + p
        expected = ahead + 1 + (p - 1) * (right - 1) / np.maximum(total - 1, 1)
        gained += np.where((place <= DEPTH) & (p <= total), right / total * expected / place, 0.0)
    return np.bincount(clip[heads], weights=gained, minlength=len(start)) / np.minimum(count, DEPTH)


def _reciprocal(better: int, tied: int, own: int) -> float:
    """The mean of 1 / (better + i + 1) over the number i of the tied wrong ones that precede the first right one."""
    i = np.arange(tied)
    shrink = (tied - i) / (tied + own - 1 - i)  # P(i + 1) / P(i)
    chance = own / (tied + own) * np.concatenate([[1.0], np.cumprod(shrink)])
    return float((chance / (better + 1 + np.arange(tied + 1))).sum())
