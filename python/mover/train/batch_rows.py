"""The rows of a batch, and which of them are of one clip: what diagnostics are computed from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mover.losses.embeddings import Clips

Values = dict[str, Any]
"""Part of a line of the log: numbers, and None for what this batch cannot tell."""


@dataclass(frozen=True)
class BatchRows:
    """Rows of k modalities. clips: (B, d) each. there: bool (k, B). owner: int64 (k, B), the clip of each row."""

    modalities: list[str]
    clips: Clips
    there: np.ndarray
    owner: np.ndarray

    def from_row(self, first: int) -> BatchRows:
        """The same without the rows before `first`."""
        return BatchRows(self.modalities, self.clips.part(first), self.there[:, first:], self.owner[:, first:])

    def same(self, p: int, q: int) -> np.ndarray:
        """bool (B, B): whether row i of modality p and row j of modality q are of one clip, and there."""
        one = self.owner[p][:, None] == self.owner[q][None, :]
        return np.asarray(one & self.there[p][:, None] & self.there[q][None, :])

    def true_groups(self) -> np.ndarray:
        """int64 (T, k): the rows of each clip that has every modality in the batch."""
        matches = [self.same(0, m) for m in range(len(self.there))]
        whole = np.logical_and.reduce([same.any(1) for same in matches])
        return np.stack([same.argmax(1)[whole] for same in matches], axis=1)

    def random_groups(self, among: Sequence[int], draws: int, random: np.random.Generator) -> np.ndarray:
        """int64 (T, len(among)): rows of as many different clips, T at most `draws`; none where a modality has none."""
        rows = [np.flatnonzero(self.there[m]) for m in among]
        if min(map(len, rows)) == 0:
            return np.empty((0, len(among)), dtype=np.int64)
        drawn = np.stack([own[random.integers(len(own), size=draws)] for own in rows], axis=1)
        owners = np.sort(np.stack([self.owner[m][drawn[:, i]] for i, m in enumerate(among)], axis=1), axis=1)
        return drawn[(np.diff(owners, axis=1) > 0).all(1)]

    def pick(self, m: int, rows: np.ndarray) -> Tensor:
        """Rows of modality m, int64 (T,) -> (T, d)."""
        vectors = self.clips.rows[m]
        return vectors[torch.from_numpy(np.ascontiguousarray(rows)).to(vectors.device)]

    def stack(self, members: np.ndarray) -> Tensor:
        """Groups, int64 (T, k), the row of each modality -> (T, k, d)."""
        return torch.stack([self.pick(m, members[:, m]) for m in range(len(self.modalities))], dim=1)


def first_right(scores: np.ndarray, same: np.ndarray) -> float | None:
    """The share of the rows of scores (n, m) whose largest entry is right by same (n, m), of those that have a right
    one; a largest entry that others equal counts in part. None where no row has one."""
    rows = np.flatnonzero(same.any(1))
    if len(rows) == 0:
        return None
    largest = scores[rows] == scores[rows].max(1, keepdims=True)
    return float(((largest & same[rows]).sum(1) / largest.sum(1)).mean())


def number(value: float | None) -> float | None:
    """Six digits of a number; None for what is none."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
