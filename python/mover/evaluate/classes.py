"""What an embedding space knows of classes: silhouettes, neighbours, clusters, texts as their centres.

All functions take unit rows in float64, (n, d), and classes as integers 0..K-1; docs/analysis.md has the formulas.
None: not defined for these rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mover.evaluate.points import directions_of, sums_by

SEEDS = (0, 1, 2)
"""Of k-means, which is run once with each."""
STARTS = 4
"""Of k-means for each seed; the best counts."""

_BLOCK_ELEMENTS = 1 << 23
_SAME = 1e-12
"""Mean distances below it are rounding."""


def silhouette(x: np.ndarray, group: np.ndarray) -> float | None:
    """Mean silhouette coefficient of the rows by group, with the cosine distance 1 - x·y.

    The mean distance of a row to a group is 1 minus its product with the group's mean, so this is exact in one pass,
    without the n x n distances. A row that is alone in its group counts 0. None unless there are at least two groups
    and one of them has two rows.

    Source: Rousseeuw 1987.
    """
    _, group, counts = np.unique(group, return_inverse=True, return_counts=True)
    if len(counts) < 2 or counts.max() < 2:
        return None
    sums = sums_by(x, group, len(counts))
    total = 0.0
    for rows in _blocks(len(x), len(counts)):
        own = group[rows]
        every = np.arange(len(own))
        products = x[rows] @ sums.T  # (b, groups)
        within = (counts[own] - products[every, own]) / np.maximum(counts[own] - 1, 1)
        distances = 1 - products / counts
        distances[every, own] = np.inf
        within, nearest = (np.where(d < _SAME, 0, d) for d in (within, distances.min(1)))
        larger = np.maximum(within, nearest)
        values = np.where(larger > 0, (nearest - within) / np.where(larger > 0, larger, 1), 0)
        total += float(values[counts[own] > 1].sum())
    return total / len(x)


def neighbours(
    x: np.ndarray, x_clips: np.ndarray, y: np.ndarray, y_clips: np.ndarray, group: np.ndarray, ks: Sequence[int]
) -> dict[str, float | None]:
    """Mean share, in percent, of the k rows of y nearest to a row of x that have its class.

    Rows of the same clip are never its neighbours. Among rows that tie for the last places, each is equally likely to
    take one.

    Args:
        x, y: questions (n, d) and candidates (m, d).
        x_clips, y_clips: int64, the clips of their rows, no clip twice in either.
        group: int64, the class of each clip.
        ks: numbers of neighbours, ascending; one that some question cannot have gets None.
    """
    there = np.isin(x_clips, y_clips)
    candidates = len(y) - int(there.any())  # of the question that has the fewest
    possible = [k for k in ks if k <= candidates] if len(x) else []
    place = {int(clip): i for i, clip in enumerate(y_clips)}
    totals = np.zeros(len(possible))
    for rows in _blocks(len(x), len(y)):
        if not possible:
            break
        # Products in float64, rounded once: equal vectors get equal scores wherever they stand.
        scores = (x[rows] @ y.T).astype(np.float32)  # (b, m)
        own = [(i, place[int(clip)]) for i, clip in enumerate(x_clips[rows]) if int(clip) in place]
        scores[tuple(np.array(own).T) if own else ([], [])] = -np.inf
        alike = group[x_clips[rows]][:, None] == group[y_clips]
        most = possible[-1]
        best = -np.sort(-np.partition(scores, -most, axis=1)[:, -most:], axis=1)  # (b, most), descending
        for column, k in enumerate(possible):
            last = best[:, k - 1 : k]
            better, tied = scores > last, scores == last
            share = (tied & alike).sum(1) / tied.sum(1)
            totals[column] += float((((better & alike).sum(1) + (k - better.sum(1)) * share) / k).sum())
    found = dict(zip(possible, (100 * totals / max(len(x), 1)).tolist(), strict=True))
    return {str(k): found.get(k) for k in ks}


def chance(group: np.ndarray) -> float | None:
    """Percent of pairs of different rows that share a class: `neighbours` of embeddings that know nothing."""
    n, counts = len(group), np.bincount(group)
    return 100 * float((counts * (counts - 1)).sum() / (n * (n - 1))) if n > 1 else None


def clusters(x: np.ndarray, group: np.ndarray) -> dict[str, Any] | None:
    """How well k-means finds the classes: normalised mutual information and adjusted Rand index, over `SEEDS`.

    As many clusters as classes, or as different rows where there are fewer. None unless there are two classes and two
    different rows.

    Returns:
        {"nmi": {"mean", "low", "high"}, "ari": {...}, "clusters", "rows"}: of the seeds the mean and the extremes.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    classes = len(np.unique(group))
    count = min(classes, len(np.unique(x.astype(np.float32), axis=0)))
    if classes < 2 or count < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # rows that differ by rounding count as one
        with threadpool_limits(1, "openmp"):  # the sums of several threads come in any order
            found = [KMeans(count, n_init=STARTS, random_state=seed).fit_predict(x) for seed in SEEDS]
    scores = {
        "nmi": [float(normalized_mutual_info_score(group, labels)) for labels in found],
        "ari": [float(adjusted_rand_score(group, labels)) for labels in found],
    }
    spread = {name: {"mean": sum(v) / len(v), "low": min(v), "high": max(v)} for name, v in scores.items()}
    return {**spread, "clusters": count, "rows": len(x)}


def texts_as_centres(
    text: np.ndarray, text_clips: np.ndarray, x: np.ndarray, x_clips: np.ndarray, group: np.ndarray
) -> dict[str, float | int | None]:
    """Whether the texts of a class lie where the rows x of another modality of the class have their centre.

    Returns:
        classes: with a centre both of texts and of rows. cosine: between the two centres of a class, mean over the
        classes. others: the same between the centres of different classes. margin: the mean over the classes of how
        far the cosine of their own texts is above the largest of other classes. nearest: percent of the rows that lie
        nearer to the texts of their own class than to those of any other; the texts of the row's own clip do not
        count, and rows whose class has no other text are left out. rows: how many that leaves.
    """
    classes = int(group.max(initial=-1)) + 1
    sums = sums_by(text, group[text_clips], classes)
    texts, known = directions_of(sums)
    centres, seen = directions_of(sums_by(x, group[x_clips], classes))
    both = np.flatnonzero(known & seen)
    cosines = texts[both] @ centres[both].T  # (text, x)
    own = np.diagonal(cosines)
    apart = np.where(np.eye(len(both), dtype=bool), -np.inf, cosines)
    several = len(both) > 1
    hits, rows = _nearest_texts(sums, texts, known, text, text_clips, x, x_clips, group)
    return {
        "classes": len(both),
        "cosine": float(own.mean()) if len(both) else None,
        "others": float(apart[np.isfinite(apart)].mean()) if several else None,
        "margin": float((own - apart.max(0)).mean()) if several else None,
        "nearest": 100 * hits / rows if rows and several else None,
        "rows": rows,
    }


def _nearest_texts(
    sums: np.ndarray,
    texts: np.ndarray,
    known: np.ndarray,
    text: np.ndarray,
    text_clips: np.ndarray,
    x: np.ndarray,
    x_clips: np.ndarray,
    group: np.ndarray,
) -> tuple[float, int]:
    """How many rows of x are nearest to the texts of their class, ties by their expectation, and how many count."""
    hits, counted = 0.0, 0
    place = np.full(len(group), -1, dtype=np.int64)
    place[text_clips] = np.arange(len(text_clips))
    for rows in _blocks(len(x), len(texts) + x.shape[1]):
        mine = group[x_clips[rows]]
        at = place[x_clips[rows]]
        without = sums[mine] - np.where(at[:, None] >= 0, text[at], 0)
        rest, usable = directions_of(without)
        scores = np.where(known, x[rows] @ texts.T, -np.inf)
        every = np.arange(len(mine))
        scores[every, mine] = np.einsum("nd,nd->n", x[rows], rest)
        scores = scores[usable].astype(np.float32)
        best = scores == scores.max(1, keepdims=True, initial=-np.inf)
        right = best[np.arange(len(scores)), mine[usable]]
        hits += float((right / np.maximum(best.sum(1), 1)).sum())
        counted += len(scores)
    return hits, counted


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    size = max(1, _BLOCK_ELEMENTS // max(columns, 1))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
