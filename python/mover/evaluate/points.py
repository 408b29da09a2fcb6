"""One unit row per clip and modality: what the analysis of an embedding space looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mover.evaluate.embeddings import Embeddings

_NO_DIRECTION = 1e-9
"""Length below which a mean of unit rows points nowhere."""


@dataclass(frozen=True)
class Points:
    """The usable rows of N clips, length 1, float64.

    A clip's text is the mean of its captions' unit rows, brought back to length 1. Left out are modalities that a clip
    does not have and rows without a direction: not finite, all zero, or captions that cancel out.

    rows: modality to (n_m, d). clips: modality to int64 (n_m,), whose rows these are, ascending. count: N.
    unusable: modality to the number of clips that have it and are left out all the same.
    """

    rows: dict[str, np.ndarray]
    clips: dict[str, np.ndarray]
    count: int
    unusable: dict[str, int]

    def of(self, modality: str, clips: np.ndarray) -> np.ndarray:
        """(len(clips), d): the rows of a modality of clips that all have it."""
        return self.rows[modality][np.searchsorted(self.clips[modality], clips)]

    def among(self, chosen: np.ndarray) -> Points:
        """The same, of the clips where `chosen`, bool (N,), is true."""
        kept = {m: chosen[clips] for m, clips in self.clips.items()}
        rows = {m: self.rows[m][kept[m]] for m in self.rows}
        return Points(rows, {m: self.clips[m][kept[m]] for m in self.rows}, self.count, self.unusable)

    def sampled(self, size: int, seed: int) -> Points:
        """The same, of at most `size` clips with a row, drawn by `seed`."""
        there = self.occupied()
        if len(there) <= size:
            return self
        chosen = np.zeros(self.count, dtype=bool)
        chosen[np.random.default_rng(seed).choice(there, size, replace=False)] = True
        return self.among(chosen)

    def occupied(self) -> np.ndarray:
        """int64: the clips with a row of any modality, ascending."""
        return np.unique(np.concatenate(list(self.clips.values())))

    def pooled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All rows, one modality after the other, (n, d); their clips, int64 (n,); their modalities by position."""
        sizes = [len(clips) for clips in self.clips.values()]
        rows, clips = np.concatenate(list(self.rows.values())), np.concatenate(list(self.clips.values()))
        return rows, clips, np.repeat(np.arange(len(sizes)), sizes)


def points_of(embeddings: Embeddings) -> Points:
    """The points of all clips and modalities."""
    rows: dict[str, np.ndarray] = {}
    clips: dict[str, np.ndarray] = {}
    unusable: dict[str, int] = {}
    for modality in embeddings.modalities:
        unit, usable = unit_rows(embeddings.vectors[modality])
        present = embeddings.present[modality]
        if modality == "text":
            unit, usable = directions_of(sums_by(unit, embeddings.text_owner, len(embeddings.ids)))
        clips[modality] = np.flatnonzero(present & usable)
        rows[modality] = unit[clips[modality]]
        unusable[modality] = int((present & ~usable).sum())
    return Points(rows, clips, len(embeddings.ids), unusable)


def unit_rows(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length 1, float64 (n, d), and bool (n,): which have a direction; the others are 0."""
    finite = np.isfinite(vectors).all(1)
    rows = np.where(finite[:, None], vectors, 0).astype(np.float64)
    largest = np.abs(rows).max(1, keepdims=True)
    usable = largest[:, 0] > 0
    rows /= np.where(largest > 0, largest, 1)  # the squares of very long and very short rows would leave the range
    rows[usable] /= np.linalg.norm(rows[usable], axis=1, keepdims=True)
    return rows, usable


def directions_of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums or means of unit rows brought to length 1, and bool (n,): which point anywhere; the others are 0."""
    length = np.linalg.norm(rows, axis=1)
    usable = length > _NO_DIRECTION
    return np.where(usable[:, None], rows / np.where(usable, length, 1)[:, None], 0), usable


def sums_by(rows: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """(groups, d): the sum of the rows (n, d) of each group, `group` int64 (n,)."""
    sums = np.zeros((groups, rows.shape[1]))
    np.add.at(sums, group, rows)
    return sums
