"""An embedding space in numbers, in the space itself: what a picture like Figure 2 of the paper only suggests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np

from mover.evaluate import classes, geometry
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.points import Points, directions_of, points_of
from mover.losses.embeddings import MOST_MODALITIES

NEIGHBOURS = (1, 5, 10)
SAMPLE = 5000
"""Clips that the numbers of quadratic cost are computed on, by default."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Classes:
    """The clips that have a label. group: int64 (N,), the class of each clip, -1 without one; names: of the classes."""

    group: np.ndarray
    names: list[str]

    @property
    def counts(self) -> np.ndarray:
        """int64 (K,): the clips of each class."""
        return np.bincount(self.group[self.group >= 0], minlength=len(self.names))


def classes_of(embeddings: Embeddings) -> Classes:
    """The classes of the labels, by name; a clip with an empty label has none."""
    labels = embeddings.labels or ("",) * len(embeddings.ids)
    names = sorted({label for label in labels if label})
    place = {name: i for i, name in enumerate(names)}
    return Classes(np.array([place.get(label, -1) for label in labels], dtype=np.int64), names)


def analyse(
    embeddings: Embeddings, *, sample: int = SAMPLE, seed: int = 0, progress: Progress = lambda what: None
) -> dict[str, Any]:
    """The numbers of docs/analysis.md, of unit rows and cosines; every value is exact unless it says `sample`.

    Args:
        embeddings: labels are optional; what needs them is left out without.
        sample: how many clips, at most, the numbers of quadratic cost are computed on: uniformity and k-means; of the
            neighbours it bounds the questions, never the candidates.
        seed: of that sample and of the clips that are put together at random.
        progress: called with what is computed next.

    Returns:
        a dictionary that JSON can hold. None stands for what is not defined for these embeddings, and "notes" has a
        sentence for each thing that was left out.
    """
    points, labels = points_of(embeddings), classes_of(embeddings)
    notes: list[str] = []
    result: dict[str, Any] = {
        "clips": len(embeddings.ids),
        "captions": len(embeddings.text_owner),
        "rows": {m: len(rows) for m, rows in points.rows.items()},
        "without": {m: len(embeddings.missing(m)) for m in embeddings.modalities},
        "unusable": points.unusable,
        "settings": {"sample": sample, "seed": seed, "neighbours": list(NEIGHBOURS), "uniformity_t": 2.0,
                     "kmeans_seeds": list(classes.SEEDS), "kmeans_starts": classes.STARTS},
        "classes": _about(labels),
    }  # fmt: skip
    for modality in [m for m, rows in points.rows.items() if not len(rows)]:
        notes.append(f"No clip has a usable row of {modality}: it is left out.")
    points = _without_empty(points)
    if not points.rows:
        return {**result, "notes": notes}
    progress("modalities")
    result["modalities"] = _modalities(points, sample, seed)
    result["silhouette_by_modality"] = classes.silhouette(points.pooled()[0], points.pooled()[2])
    result["pairs"] = _pairs(points)
    result["volume"] = _volume(points, seed, notes)
    progress("texts")
    result["text_to_clip"] = _text_to_clip(points, notes)
    if not labels.names:
        notes.append(
            "No clip has a label: silhouettes by class, neighbours, k-means and texts of classes are left out."
        )
        return {**result, "notes": notes}
    known = _without_empty(points.among(labels.group >= 0))
    progress("silhouettes")
    result["silhouette_by_class"] = _by_modality_and_pooled(known, labels, classes.silhouette)
    progress("neighbours")
    result["neighbours"] = _neighbours(known, labels, sample, seed)
    progress("texts of classes")
    result["text_to_class"] = _text_to_class(known, labels)
    progress("k-means")
    result["kmeans"] = _by_modality_and_pooled(known.sampled(sample, seed), labels, classes.clusters)
    if len(labels.names) == 1:
        notes.append(f"All labelled clips are of one class, '{labels.names[0]}': nothing tells classes apart.")
    return {**result, "notes": notes}


def _about(labels: Classes) -> dict[str, Any]:
    """How many classes there are, of which sizes."""
    counts = labels.counts
    order = np.lexsort((np.arange(len(counts)), -counts))
    return {
        "labelled": int(counts.sum()),
        "unlabelled": int((labels.group < 0).sum()),
        "count": len(labels.names),
        "of_one_clip": int((counts == 1).sum()),
        "largest": {labels.names[i]: int(counts[i]) for i in order[:10]},
    }


def _without_empty(points: Points) -> Points:
    kept = [m for m, rows in points.rows.items() if len(rows)]
    return Points({m: points.rows[m] for m in kept}, {m: points.clips[m] for m in kept}, points.count, points.unusable)


def _modalities(points: Points, sample: int, seed: int) -> dict[str, dict[str, Any]]:
    """Of each modality, how far its rows fill the space."""
    drawn = points.sampled(sample, seed)
    return {
        m: {
            "rows": len(rows),
            "centroid": float(np.linalg.norm(rows.mean(0))),
            "effective_rank": geometry.effective_rank(rows),
            "uniformity": geometry.uniformity(drawn.rows[m]),
            "uniformity_sample": len(drawn.rows[m]),
        }
        for m, rows in points.rows.items()
    }


def _pairs(points: Points) -> dict[str, dict[str, Any]]:
    found = {}
    for m, n in combinations(points.rows, 2):
        both = np.intersect1d(points.clips[m], points.clips[n], assume_unique=True)
        if len(both):
            found[f"{m}-{n}"] = geometry.pair(points.of(m, both), points.of(n, both))
    return found


def _volume(points: Points, seed: int, notes: list[str]) -> dict[str, Any] | None:
    """Volumes of the clips that have every modality."""
    names = list(points.rows)
    if not 2 <= len(names) <= MOST_MODALITIES:
        notes.append(f"Volumes are of two to {MOST_MODALITIES} modalities; here are {len(names)}.")
        return None
    clips = points.occupied()
    for m in names:
        clips = np.intersect1d(clips, points.clips[m], assume_unique=True)
    if not len(clips):
        notes.append(f"No clip has all of {', '.join(names)}: there is no volume.")
        return None
    return {"modalities": names, **geometry.volumes([points.of(m, clips) for m in names], seed)}


def _text_to_clip(points: Points, notes: list[str]) -> dict[str, Any] | None:
    """The cosine of a clip's text with the mean of its other modalities."""
    if "text" not in points.rows or len(points.rows) < 2:
        notes.append("There is no text beside another modality: cosines of texts with centres are left out.")
        return None
    sums = np.zeros((points.count, points.rows["text"].shape[1]))
    for m, rows in points.rows.items():
        if m != "text":
            sums[points.clips[m]] += rows
    centres, usable = directions_of(sums)
    clips = points.clips["text"][usable[points.clips["text"]]]
    cosines = np.einsum("nd,nd->n", points.of("text", clips), centres[clips])
    if not len(clips):
        notes.append("No clip has text and another modality: cosines of texts with their clips are left out.")
        return None
    return {"clips": len(clips), "mean": float(cosines.mean()), "std": float(cosines.std())}


def _by_modality_and_pooled(
    points: Points, labels: Classes, measure: Callable[[np.ndarray, np.ndarray], Any]
) -> dict[str, Any]:
    """A measure of rows and their classes, of each modality and, where there are several, of all rows as one set."""
    found = {m: measure(rows, labels.group[points.clips[m]]) for m, rows in points.rows.items()}
    if len(points.rows) > 1:
        rows, clips, _ = points.pooled()
        found["all"] = measure(rows, labels.group[clips])
    return found


def _neighbours(points: Points, labels: Classes, sample: int, seed: int) -> dict[str, Any]:
    """Label consistency of the nearest neighbours, of each modality among each."""
    asking = points.sampled(sample, seed)
    found: dict[str, Any] = {}
    for m, n in product(asking.rows, points.rows):
        found[f"{m}-{n}"] = {
            **classes.neighbours(
                asking.rows[m], asking.clips[m], points.rows[n], points.clips[n], labels.group, NEIGHBOURS
            ),
            "chance": classes.chance(labels.group[points.clips[n]]),
            "questions": len(asking.rows[m]),
            "candidates": len(points.rows[n]),
        }
    return found


def _text_to_class(points: Points, labels: Classes) -> Mapping[str, Any] | None:
    if "text" not in points.rows:
        return None
    text, clips = points.rows["text"], points.clips["text"]
    return {
        m: classes.texts_as_centres(text, clips, rows, points.clips[m], labels.group)
        for m, rows in points.rows.items()
        if m != "text"
    }
