"""Counts of what scores better than the right answer, and of what ties with it: both ways of a comparison in one pass.

The right pairs of rows and columns are the same in both directions. Going through the tiles once, each row is compared
with the score of its own column, and each column with the scores of its own rows. The matrix is never held, and the
memory beyond the vectors grows with rows + columns.

A right answer that cannot be used (a vector that is zero or not finite) stands last; others that cannot be used are
neither better nor tied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mover.evaluate.scores import CosineScores, NearCosines, Scores, Space
from mover.evaluate.standing import DEPTH, Standing, average_precision

TILE = (1024, 2048)
"""Rows and columns of a tile on a CPU: large enough for products to run at full speed, small enough for caches."""
TILE_ON_GPU = (8192, 8192)
_REFINED = 64
"""A tile with more scores near the thresholds than one in so many is computed in float64 as a whole."""

Step = Callable[[int, int], None]
"""Told how many scores were computed since the last call, and how many there are in all."""


@dataclass(frozen=True)
class Usable:
    """Which rows and columns take part in scores, and the column that belongs to each row.

    owner: int64 (C,), the column of each row; every column owns at least one. rows: bool (C,). columns: bool (n,).
    """

    owner: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def __post_init__(self) -> None:
        counts = np.bincount(self.owner, minlength=len(self.columns))
        if len(counts) != len(self.columns) or (counts < 1).any():
            raise ValueError("every column needs at least one row of its own, and every owner must be a column")

    def right_column(self) -> np.ndarray:
        """int64: of each usable row the place of its column among the usable ones, -1 if that is not usable."""
        place = np.where(self.columns, np.cumsum(self.columns) - 1, -1)
        return place[self.owner[self.rows]]


def both_ways(scores: Scores, usable: Usable, step: Step | None = None) -> tuple[Standing, Standing]:
    """The standing of each row's column among all columns, and of each column's best row among the rows of others.

    Args:
        scores: of the usable rows with the usable columns.
        usable: all rows and columns.
        step: called after every tile.

    Returns:
        of the rows (C,), of the columns (n,).
    """
    column = torch.from_numpy(usable.right_column()).to(scores.device)
    right = scores.right(column)
    tally = _Tally(scores, column, right, usable, step)
    for _ in range(2):
        if torch.equal(torch.nan_to_num(tally.seen), torch.nan_to_num(right)):
            break
        right = tally.seen  # tiles of these shapes have other bits: what is compared must come from one of them
        tally = _Tally(scores, column, right, usable, step)
    else:
        raise RuntimeError(f"{scores.device} computes other scores each time: ranks would mean nothing.")
    return _rows_standing(tally, right, usable), _columns_standing(tally, right, usable)


def tiles(shape: tuple[int, int], device: torch.device) -> Iterator[tuple[slice, slice]]:
    """The tiles that cover a matrix, as slices of rows and of columns."""
    rows, columns = TILE if device.type == "cpu" else TILE_ON_GPU
    for first in range(0, shape[0], rows):
        for start in range(0, shape[1], columns):
            yield slice(first, min(first + rows, shape[0])), slice(start, min(start + columns, shape[1]))


class _Tally:
    """Counts over all tiles, of usable rows and columns.

    row_better, row_tied: int64 (R,). column_better, column_tied: int64 (L, n), with each of the first L of a column's
    own rows, best first. seen: (R,), the scores of the right pairs in the tiles.
    """

    def __init__(self, scores: Scores, column: Tensor, right: Tensor, usable: Usable, step: Step | None) -> None:
        self._scores, self._column, self._right = scores, column, right
        self.own = _sorted_own(usable, right)
        self._levels = self._column_levels(usable).to(scores.device)
        self.row_better, self.row_tied = (
            torch.zeros(scores.shape[0], dtype=torch.int64, device=scores.device) for _ in range(2)
        )
        self.column_better, self.column_tied = (torch.zeros_like(self._levels, dtype=torch.int64) for _ in range(2))
        self.seen = torch.full_like(right, torch.nan)
        self._near = NearCosines(scores) if isinstance(scores, CosineScores) and NearCosines.hold(scores) else None
        self._flags, self._apart = Space(), Space()
        self._exact_tiles = self._near_tiles = 0
        for rows, columns in tiles(scores.shape, scores.device):
            self._count(rows, columns)
            if step is not None:
                step((rows.stop - rows.start) * (columns.stop - columns.start), scores.shape[0] * scores.shape[1])

    def _column_levels(self, usable: Usable) -> Tensor:
        """(L, n): the scores of the first L own rows of each column, best first, +inf where there are fewer."""
        clip, place, right = self.own
        kept = np.flatnonzero((place < DEPTH) & ~np.isnan(right))
        among = np.cumsum(usable.columns) - 1
        levels = np.full((int(place[kept].max(initial=0)) + 1, self._scores.shape[1]), np.inf)
        levels[place[kept], among[clip[kept]]] = right[kept]
        return torch.from_numpy(levels).to(self._right.dtype)

    def _count(self, rows: slice, columns: slice) -> None:
        if self._near is not None and 2 * self._exact_tiles <= self._near_tiles:
            self._near_tiles += 1
            if self._count_near(self._near, rows, columns):
                return
            self._exact_tiles += 1
        tile = self._scores.tile(rows, columns)
        own, at = self._right_pairs(rows, columns)
        self.seen[rows.start + own] = tile[own, at]
        tile[own, at] = -torch.inf
        flags = self._flags.take(tile.shape, tile)
        limit = self._right[rows, None]
        self.row_better[rows] += torch.gt(tile, limit, out=flags).sum(1).long()
        self.row_tied[rows] += torch.eq(tile, limit, out=flags).sum(1).long()
        for level, limits in enumerate(self._levels[:, columns]):
            self.column_better[level, columns] += torch.gt(tile, limits, out=flags).sum(0).long()
            self.column_tied[level, columns] += torch.eq(tile, limits, out=flags).sum(0).long()

    def _count_near(self, near: NearCosines, rows: slice, columns: slice) -> bool:
        """Count by float32 what is clear, by float64 the rest; False, and nothing counted, where that is too much."""
        tile = near.tile(rows, columns)
        own, at = self._right_pairs(rows, columns)
        tile[own, at] = -torch.inf
        limits = [self._right[rows, None], *self._levels[:, None, columns]]
        flags, apart = self._flags.take(tile.shape, tile), self._apart.take(tile.shape, tile)
        clear, unclear, budget = [], [], tile.numel() // _REFINED
        for index, limit in enumerate(limits):
            torch.sub(tile, limit.float(), out=apart)
            clear.append(torch.gt(apart, near.slack, out=flags).sum(1 if index == 0 else 0).long())
            close = np.flatnonzero(np.less_equal(apart.abs_().numpy(), near.slack))
            budget -= len(close)
            if budget < 0:
                return False
            unclear.append(torch.from_numpy(close))
        self.row_better[rows] += clear[0]
        self.column_better[:, columns] += torch.stack(clear[1:])
        self.seen[rows.start + own] = self._right[rows.start + own]
        for index, places in enumerate(unclear):
            i, j = places // tile.shape[1] + rows.start, places % tile.shape[1] + columns.start
            limit = self._right[i] if index == 0 else self._levels[index - 1, j]
            difference = near.exact.pairs(i, j) - limit
            better = self.row_better if index == 0 else self.column_better[index - 1]
            tied = self.row_tied if index == 0 else self.column_tied[index - 1]
            better.index_add_(0, i if index == 0 else j, (difference > 0).long())
            tied.index_add_(0, i if index == 0 else j, (difference == 0).long())
        return True

    def _right_pairs(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """The places in a tile of the rows' own columns."""
        at = self._column[rows] - columns.start
        own = torch.nonzero((at >= 0) & (at < columns.stop - columns.start))[:, 0]
        return own, at[own]


def _sorted_own(usable: Usable, right: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All rows by column, the best first and the lost last: their column, their place within it, their score."""
    scores = np.full(len(usable.owner), np.nan)
    scores[usable.rows] = right.double().cpu().numpy()
    order = np.lexsort((-scores, usable.owner))
    clip = usable.owner[order]
    start = np.searchsorted(clip, np.arange(len(usable.columns)))
    return clip, np.arange(len(clip)) - start[clip], scores[order]


def _rows_standing(tally: _Tally, right: Tensor, usable: Usable) -> Standing:
    better = np.full(len(usable.owner), len(usable.columns) - 1, dtype=np.int64)
    tied = np.zeros(len(usable.owner), dtype=np.int64)
    found = ~torch.isnan(right).cpu().numpy()
    rows = np.flatnonzero(usable.rows)[found]
    better[rows] = tally.row_better.cpu().numpy()[found]
    tied[rows] = tally.row_tied.cpu().numpy()[found]
    return Standing(better, tied, np.ones_like(better))


def _columns_standing(tally: _Tally, right: Tensor, usable: Usable) -> Standing:
    clip, place, scores = tally.own
    counts = np.bincount(usable.owner)
    better, tied = (len(clip) - counts)[clip], np.zeros_like(clip)
    among = np.cumsum(usable.columns) - 1
    found = np.flatnonzero((place < DEPTH) & ~np.isnan(scores))
    better[found] = tally.column_better.cpu().numpy()[place[found], among[clip[found]]]
    tied[found] = tally.column_tied.cpu().numpy()[place[found], among[clip[found]]]
    best = np.flatnonzero(place == 0)
    own = np.maximum(np.bincount(clip, weights=scores == scores[best][clip]), 1).astype(np.int64)
    several = (counts > 1).any()
    precision = average_precision(clip, scores, better, tied) if several else None
    return Standing(better[best], tied[best], own, precision)
