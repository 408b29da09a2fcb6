"""The scores of rows with columns, in tiles: as many as fit at once, never all of them.

Rows are the vectors of one modality (captions, where there is text), columns those of one or several others. Larger is
better. Every score is the same number whatever the tiles and the threads, so equal vectors tie:

- Cosines are exact. Unit rows are rounded to multiples of 2^-26, products of two such numbers are multiples of 2^-52,
  and no sum of them that occurs exceeds 2, so float64 holds all of them without rounding, in any order of summation.
- Volumes and distances from a span are those of `mover.ops.volume_scores` in float32, on tiles of at least `LEAST`
  rows and columns: below that matrix products take other paths, which sum in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

GRID = 2.0**26
LEAST = 32
LOWEST_TEMPERATURE = 0.003
"""Below it, exponentials of cosines leave the range of float64."""
_ROWS_AT_ONCE = 1 << 10
"""Few enough for a cache."""
_DIAGONAL = 64
"""Columns of the tiles from which the scores of right pairs are first taken."""
_KEPT_BITS = 2.0**27 + 1


class Space:
    """Memory that is taken once and used again: new pages for every tile would cost a good part of the time."""

    def __init__(self) -> None:
        self._held: Tensor | None = None

    def take(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """A tensor whose content is not defined, and which is lost when the next one is taken."""
        size = shape[0] * shape[1]
        if self._held is None or self._held.numel() < size or self._held.dtype != like.dtype:
            self._held = torch.empty(size, dtype=like.dtype, device=like.device)
        return self._held[:size].view(shape)


class Scores(Protocol):
    """Scores (rows, columns), computed where they are asked for."""

    shape: tuple[int, int]
    device: torch.device

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """The scores of some rows with some columns. The caller may write into them; the next tile may, too."""
        ...

    def right(self, column: Tensor) -> Tensor:
        """The score of each row with its `column`, int64 (rows,), NaN where that is -1.

        Where the bits may differ from those of `tile`, the caller has to compare.
        """
        ...


class CosineScores:
    """Exact cosines, float64, of rows (R, d) and columns (n, d) on the grid, of length 1 or less."""

    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        self.rows, self.columns = rows, columns
        self.shape, self.device = (len(rows), len(columns)), rows.device
        self._space = Space()

    def tile(self, rows: slice, columns: slice) -> Tensor:
        return _product(self.rows[rows], self.columns[columns], self._space)

    def rows_at(self, places: Tensor) -> CosineScores:
        """The scores of some rows."""
        return CosineScores(self.rows[places], self.columns)

    def columns_at(self, places: Tensor) -> CosineScores:
        """The scores of some columns."""
        return CosineScores(self.rows, self.columns[places])

    def pairs(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The scores of rows[i] with columns[i], both int64 (P,)."""
        found = torch.empty(len(rows), dtype=torch.float64, device=self.device)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = slice(start, start + _ROWS_AT_ONCE)
            found[some] = torch.linalg.vecdot(self.rows[rows[some]], self.columns[columns[some]])
        return found

    def right(self, column: Tensor) -> Tensor:
        scores = torch.full((len(column),), torch.nan, dtype=torch.float64, device=self.device)
        there = torch.nonzero(column >= 0)[:, 0]
        scores[there] = self.pairs(there, column[there])
        return scores


class NearCosines:
    """Cosines in float32, twice as fast on a CPU, and how far they are from the exact ones at the most.

    A product of d terms and its sum, in any order, err by at most d u / (1 - d u) times the sum of the magnitudes,
    which is at most 1, where u = 2^-24; rounding the rows adds 2 u, and what the score is compared with another u.
    """

    def __init__(self, exact: CosineScores) -> None:
        self.exact = exact
        self._rows, self._columns = exact.rows.float(), exact.columns.float()
        d = self._rows.shape[1]
        self._space = Space()
        self.slack = 1.01 * (d + 8) * 2.0**-24

    @staticmethod
    def hold(exact: CosineScores) -> bool:
        """Whether products of float32 are that, and faster: on a CPU, with torch's default precision."""
        return exact.device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"

    def tile(self, rows: slice, columns: slice) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return _product(self._rows[rows], self._columns[columns], self._space)


class JointScores:
    """Minus the volume or the distance from the span, float32, of unit rows (R, d) with groups (n, k-1, d).

    members: bool (n, k-1), which rows of a group are there; None: all. Nothing that is there is NaN.
    """

    def __init__(self, rows: Tensor, groups: Tensor, members: Tensor | None, score: str) -> None:
        self._rows, self._groups, self._members, self._score = rows, groups, members, score
        self.shape, self.device = (len(rows), len(groups)), rows.device

    def tile(self, rows: slice, columns: slice) -> Tensor:
        return self._tile(self._rows[rows], columns)

    def rows_at(self, places: Tensor) -> JointScores:
        """The scores of some rows."""
        return JointScores(self._rows[places], self._groups, self._members, self._score)

    def columns_at(self, places: Tensor) -> JointScores:
        """The scores of some columns."""
        members = None if self._members is None else self._members[places]
        return JointScores(self._rows, self._groups[places], members, self._score)

    def right(self, column: Tensor) -> Tensor:
        scores = torch.full((len(column),), torch.nan, device=self.device)
        order = torch.argsort(column, stable=True)
        ordered = column[order]
        for start in range(0, self.shape[1], _DIAGONAL):
            bounds = torch.tensor([start, start + _DIAGONAL], device=self.device)
            first, last = torch.searchsorted(ordered, bounds).tolist()
            if first < last:
                own = order[first:last]
                tile = self._tile(self._rows[own], slice(start, start + _DIAGONAL))
                scores[own] = tile.gather(1, (column[own] - start)[:, None])[:, 0]
        return scores

    def _tile(self, rows: Tensor, columns: slice) -> Tensor:
        from mover.ops import volume_scores  # loads the C library, which cosines do not need

        groups, members = self._groups[columns], None if self._members is None else self._members[columns]
        count = len(rows), len(groups)
        members = None if members is None else _whole(members)
        return volume_scores(_whole(rows), _whole(groups), members, score=self._score).neg_()[: count[0], : count[1]]


class DualSoftmax:
    """Scores times their softmax over the queries: a candidate that many queries come close to counts for less.

    s' = s exp(s / t) / sum over queries of exp(s / t), with s the cosine, or 1 - volume, 1 - distance. The queries are
    the rows, or with `of_columns` the columns. In float64, rounded to 26 binary digits, so that equal vectors tie.

    Source: Cheng et al., Improving video-text retrieval by multi-stream corpus alignment and dual softmax loss, 2021.
    """

    def __init__(self, base: CosineScores | JointScores, temperature: float, of_columns: bool) -> None:
        self._base, self._temperature, self._of_columns = base, temperature, of_columns
        self.shape, self.device = base.shape, base.device
        self._sums = torch.zeros(base.shape[0 if of_columns else 1], dtype=torch.float64, device=base.device)

    def gather(self, rows: slice, columns: slice) -> None:
        """Add a tile to the sums over the queries. Every tile has to be added before `tile` is called."""
        weights = self._weights(self._similarity(self._base.tile(rows, columns)))
        self._sums[rows if self._of_columns else columns] += weights.sum(1 if self._of_columns else 0)

    def tile(self, rows: slice, columns: slice) -> Tensor:
        similarity = self._similarity(self._base.tile(rows, columns))
        sums = self._sums[rows][:, None] if self._of_columns else self._sums[columns]
        return _rounded(similarity * (self._weights(similarity) / sums))

    def right(self, column: Tensor) -> Tensor:
        scores = torch.full((len(column),), torch.nan, dtype=torch.float64, device=self.device)
        there = torch.nonzero(column >= 0)[:, 0]
        similarity = self._similarity(self._base.right(column)[there])
        sums = self._sums[there if self._of_columns else column[there]]
        scores[there] = _rounded(similarity * (self._weights(similarity) / sums))
        return scores

    def _similarity(self, scores: Tensor) -> Tensor:
        return scores.double() if isinstance(self._base, CosineScores) else 1 + scores.double()

    def _weights(self, similarity: Tensor) -> Tensor:
        return torch.exp((similarity - 1) / self._temperature)


def unit_rows(vectors: np.ndarray, device: torch.device) -> Tensor:
    """Rows of length 1 on the grid, float64; a row that is zero or not finite becomes NaN and so stands last."""
    unit = torch.empty(vectors.shape, dtype=torch.float64, device=device)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        rows = unit[some]
        rows.copy_(torch.from_numpy(np.ascontiguousarray(vectors[some])))
        rows.div_(rows.abs().amax(1, keepdim=True))  # squares of large and of small numbers stay in range
        on_grid(rows.div_(rows.norm(dim=1, keepdim=True)))
    return unit


def on_grid(rows: Tensor) -> Tensor:
    """Rows of length 1 or less rounded to multiples of 1 / GRID, in place."""
    return rows.mul_(GRID).round_().div_(GRID)


def _product(rows: Tensor, columns: Tensor, space: Space) -> Tensor:
    return torch.mm(rows, columns.T, out=space.take((len(rows), len(columns)), rows))


def _whole(rows: Tensor) -> Tensor:
    """The rows, and the last one as often as makes them a multiple of LEAST."""
    short = -len(rows) % LEAST
    return torch.cat([rows, rows[-1:].expand(short, *rows.shape[1:])]) if short else rows


def _rounded(scores: Tensor) -> Tensor:
    """float64 rounded to 26 binary digits, whatever the exponent."""
    large = scores * _KEPT_BITS
    return large - (large - scores)
