"""Where the right answer stands: exact ranks under ties, for one caption per clip or many.

A rank is a triple of counts per query, `Standing`: how many wrong candidates score better than the right one, how
many wrong ones tie with it, and how many right ones share that score (more than one only where a clip has several
captions of the same score). The order within a tie is random, and what is reported is the expectation under it.

A NaN score of the right answer stands last; NaN scores of others are neither better nor tied.
Scores come in blocks of queries, so the whole queries x candidates matrix is never held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 24
"""Bound on the scores held at once."""

ScoreBlock = Callable[[slice], Tensor]
"""From a slice of the queries to their scores (queries in the slice, candidates), higher is better."""


@dataclass(frozen=True)
class Standing:
    """Counts that fix the rank of each query's right answer; three int64 arrays of shape (Q,)."""

    better: np.ndarray
    tied: np.ndarray
    own: np.ndarray

    def __len__(self) -> int:
        return len(self.better)

    @property
    def expected_rank(self) -> np.ndarray:
        """Mean 0-based rank under a random order of the tied, float64 (Q,): better + tied / (own + 1)."""
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


def rank_single(scores: ScoreBlock, target: Tensor, candidates: int) -> Standing:
    """Standing of one right candidate per query.

    Args:
        scores: block of queries to scores (q, candidates).
        target: int64 (Q,), the right candidate of each query.
        candidates: how many there are.
    """
    better = np.zeros(len(target), dtype=np.int64)
    tied = np.zeros(len(target), dtype=np.int64)
    for rows in _blocks(len(target), candidates):
        block = scores(rows)  # (q, candidates)
        right = block.gather(1, target[rows].to(block.device)[:, None])  # (q, 1)
        better[rows] = (block > right).sum(1).cpu().numpy()
        tied[rows] = (block == right).sum(1).cpu().numpy() - 1
        lost = torch.isnan(right[:, 0]).cpu().numpy()
        better[rows] = np.where(lost, candidates - 1, better[rows])
        tied[rows] = np.where(lost, 0, tied[rows])
    return Standing(better, tied, np.ones(len(target), dtype=np.int64))


def rank_best_of(scores: ScoreBlock, owner: Tensor, queries: int) -> Standing:
    """Standing of the best of several right candidates, the query's others not counted against it.

    Args:
        scores: block of queries to scores (q, C).
        owner: int64 (C,), the query to which each candidate belongs; every query owns at least one.
        queries: how many there are, Q.
    """
    candidates = len(owner)
    counts = torch.bincount(owner, minlength=queries)
    if len(counts) != queries or int(counts.min()) < 1:
        raise ValueError("every query needs at least one right candidate, and every owner must be a query")
    better = np.zeros(queries, dtype=np.int64)
    tied = np.zeros(queries, dtype=np.int64)
    own = np.ones(queries, dtype=np.int64)
    for rows in _blocks(queries, candidates):
        block = scores(rows)  # (q, C)
        numbers = torch.arange(rows.start, rows.stop, device=block.device)
        mine = owner.to(block.device)[None, :] == numbers[:, None]  # (q, C)
        best = torch.where(mine & ~torch.isnan(block), block, -torch.inf).amax(1, keepdim=True)  # (q, 1)
        lost = (~(mine & ~torch.isnan(block)).any(1)).cpu().numpy()
        better[rows] = (block > best).sum(1).cpu().numpy()
        tied[rows] = ((block == best) & ~mine).sum(1).cpu().numpy()
        own[rows] = np.maximum(((block == best) & mine).sum(1).cpu().numpy(), 1)
        wrong = candidates - counts[rows].cpu().numpy()
        better[rows] = np.where(lost, wrong, better[rows])
        tied[rows] = np.where(lost, 0, tied[rows])
        own[rows] = np.where(lost, 1, own[rows])
    return Standing(better, tied, own)


def _blocks(queries: int, candidates: int) -> Iterator[slice]:
    size = max(1, BLOCK_ELEMENTS // max(candidates, 1))
    for start in range(0, queries, size):
        yield slice(start, min(start + size, queries))
