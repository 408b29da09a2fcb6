"""t-SNE: the rows of a few classes in the plane, as in Figure 2 of the paper. A picture, not a measurement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mover.errors import UserError
from mover.evaluate.analysis import classes_of
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.points import points_of

CLASSES = 3
CLIPS = 1000
"""Clips drawn at most."""
PERPLEXITY = 30.0

_FEWEST = 4


@dataclass(frozen=True)
class Projection:
    """n points in the plane, one per clip and modality.

    points: float64 (n, 2). modality, label: (n,) names; labels are "" where none are used. clip: int64 (n,), positions.
    perplexity: the one used. clips: how many are drawn, of how many `listed`: those of the classes shown.
    """

    points: np.ndarray
    modality: np.ndarray
    label: np.ndarray
    clip: np.ndarray
    perplexity: float
    clips: int
    listed: int


def project(embeddings: Embeddings, *, classes: int | None = CLASSES, clips: int = CLIPS, seed: int = 0) -> Projection:
    """t-SNE of unit rows with the cosine distance, started from their principal components.

    Args:
        embeddings: with labels, their most frequent classes are drawn; without, all clips.
        classes: how many classes, the most frequent ones, equal counts by name; None: all. Clips without a label are
            drawn only where there are no labels at all.
        clips: at most so many; more are sampled.
        seed: of the sample and of t-SNE. Equal input gives equal output on one machine: it runs on one thread.

    The perplexity is 30, or a third of the points less one where that is smaller.

    Raises:
        UserError: fewer than four points, or rows of one dimension.
    """
    points, labels = points_of(embeddings), classes_of(embeddings)
    names = np.array([*labels.names, ""], dtype=object)
    chosen = np.ones(points.count, dtype=bool)
    if labels.names:
        there = np.isin(np.arange(points.count), points.occupied()) & (labels.group >= 0)
        counts = np.bincount(labels.group[there], minlength=len(labels.names))
        order = np.lexsort((np.arange(len(counts)), -counts))[:classes]
        chosen = there & np.isin(labels.group, order)
    points = points.among(chosen)
    listed = len(points.occupied())
    drawn = points.sampled(clips, seed)
    rows, owners, modality = drawn.pooled()
    if len(rows) < _FEWEST or rows.shape[1] < 2:
        raise UserError(
            f"t-SNE needs at least {_FEWEST} rows of at least two dimensions: here are {len(rows)} of {rows.shape[1]}."
        )
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    plane = _plane(rows, perplexity, seed)
    return Projection(
        plane, np.array(list(drawn.rows))[modality], names[labels.group[owners]].astype(np.str_), owners,
        perplexity, len(drawn.occupied()), listed,
    )  # fmt: skip


def _plane(rows: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if np.ptp(rows, axis=0).max() < 1e-9:
        return np.zeros((len(rows), 2))  # all rows are one, and its principal components are 0 / 0
    with threadpool_limits(1):  # the sums of several threads come in any order
        tsne = TSNE(2, perplexity=perplexity, metric="cosine", init="pca", random_state=seed)
        return np.asarray(tsne.fit_transform(rows), dtype=np.float64)


def classes_shown(projection: Projection) -> list[str]:
    """The classes of a projection, the most frequent first, equal counts by name."""
    clips = dict(zip(projection.clip.tolist(), projection.label.tolist(), strict=True))
    names, counts = np.unique(list(clips.values()), return_counts=True)
    return [str(names[i]) for i in np.lexsort((names, -counts)) if names[i]]
