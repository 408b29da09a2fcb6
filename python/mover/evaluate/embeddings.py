"""The embeddings of a set of clips with their captions, and what is done with rows that are missing or unusable.

Evaluation, analysis, comparison and the report start from here, whoever made the rows: `embeddings_file` reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mover.config import BUILT_IN
from mover.errors import UserError

UNUSABLE = ("fail", "last", "missing")
"""The policies for rows that are there but zero or not finite."""
_UNIT = 0.01
"""How far from 1 the length of a unit row may be: half precision is within it."""
_BLOCK = 1 << 18
"""Numbers looked at together."""
_SMALL, _LARGE = 1e-250, 1e300
"""Between these, a sum of squares has lost nothing."""


@dataclass(frozen=True)
class Lengths:
    """Rows of a modality that are not of length 1: how many `off` of how many `rows`, the `least` and the `most`."""

    off: int
    rows: int
    least: float
    most: float


@dataclass(frozen=True)
class Embeddings:
    """N clips with their captions.

    ids: N unique names.
    vectors: modality to an array of float16, float32 or float64 rows of one width; text (C, d), others (N, d). Rows
        need not have length 1: whatever ranks them normalises them.
    text_owner: int64 (C,), the clip of each caption (empty without text).
    present: modality to bool (N,). A row of a clip that is not present means nothing, nor do the captions of a clip
        whose text is not.
    labels: class names of the clips, "" for none; None where no clip has one.
    provenance: JSON values, where the rows come from; empty where their maker says nothing.
    """

    ids: list[str]
    vectors: dict[str, np.ndarray]
    text_owner: np.ndarray
    present: dict[str, np.ndarray]
    labels: tuple[str, ...] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that are there: text, video and audio first, then the others in their order."""
        first = [m for m in BUILT_IN if m in self.vectors]
        return (*first, *(m for m in self.vectors if m not in BUILT_IN))

    def missing(self, modality: str) -> list[str]:
        """Ids of the clips without `modality`."""
        return [name for name, there in zip(self.ids, self.present[modality], strict=True) if not there]

    def unusable(self, modality: str) -> list[str]:
        """Ids of the clips with a row of `modality` that is there but zero or not finite; `under` has the policies."""
        rows = np.flatnonzero(self._bad(modality))
        clips = np.unique(self.text_owner[rows]) if modality == "text" else rows
        return [self.ids[i] for i in clips]

    def lengths(self, modality: str) -> np.ndarray:
        """float64 (rows,): the length of every row; NaN where it is not finite."""

        def norm(block: np.ndarray) -> np.ndarray:
            block = block.astype(np.float64)
            squares = np.einsum("ij,ij->i", block, block)
            odd = ~((squares > _SMALL) & (squares < _LARGE))  # too large or too small for squares, or not finite
            most = np.abs(block[odd]).max(axis=1, initial=0.0)
            scale = np.where(np.isfinite(most) & (most > 0), most, 1.0)
            scaled = block[odd] / scale[:, None]
            lengths = np.sqrt(squares)
            lengths[odd] = scale * np.sqrt(np.einsum("ij,ij->i", scaled, scaled))
            return lengths

        with np.errstate(invalid="ignore", over="ignore"):
            lengths = _by_row(self.vectors[modality], norm, np.float64)
        return np.where(np.isfinite(lengths), lengths, np.nan)

    def not_unit(self, modality: str) -> Lengths | None:
        """How many of the rows that are there and usable are not of length 1, to 1 %; None where all are."""
        lengths = self.lengths(modality)[self._there(modality) & ~self._bad(modality)]
        off = int((np.abs(lengths - 1) > _UNIT).sum())
        return Lengths(off, len(lengths), float(lengths.min()), float(lengths.max())) if off else None

    def under(self, missing: str, unusable: str = "last") -> Embeddings:
        """What is ranked under the policies for clips that lack a modality and for rows that cannot be used.

        Args:
            missing: "drop": only the clips that have every modality. "mask" and "fail": all of them; it is for the
                caller to refuse clips without a modality under "fail".
            unusable: rows that are there but zero or not finite. "last": they stay, and rank last. "missing": they
                count as not there, and clips without a usable row of a modality as lacking it, before `missing` is
                applied; the other captions of a clip stay. "fail": they are refused. For files of others "fail" is the
                safe choice, since such rows are most often a fault on the way to the file; nothing is ever hidden
                under the others, as long as the caller tells of `unusable(m)` of the embeddings before.

        Raises:
            UserError: under "fail", a row that is zero or not finite.
        """
        if unusable not in UNUSABLE:
            raise ValueError(f"expected one of {UNUSABLE} for unusable rows, got {unusable!r}")
        if unusable == "fail":
            self._refuse_unusable()
        given = self._without_unusable() if unusable == "missing" else self
        if missing != "drop":
            return given
        return given.select(np.flatnonzero(np.logical_and.reduce(list(given.present.values()))))

    def select(self, positions: np.ndarray) -> Embeddings:
        """The clips at `positions`, int64 and each at most once, in that order, with their captions and labels.

        The captions are sorted by clip, those of one clip as they were.
        """
        place = np.full(len(self.ids), -1, dtype=np.int64)
        place[positions] = np.arange(len(positions))
        if np.count_nonzero(place >= 0) != len(positions):
            raise ValueError("expected every position at most once")
        owner = place[self.text_owner]
        captions = np.argsort(owner, kind="stable")[np.count_nonzero(owner < 0) :]
        return replace(
            self,
            ids=[self.ids[i] for i in positions],
            vectors={m: rows[captions if m == "text" else positions] for m, rows in self.vectors.items()},
            text_owner=owner[captions],
            present={m: flags[positions] for m, flags in self.present.items()},
            labels=None if self.labels is None else tuple(self.labels[i] for i in positions),
        )

    def _refuse_unusable(self) -> None:
        counts = {m: int(self._bad(m).sum()) for m in self.modalities}
        counts = {m: count for m, count in counts.items() if count}
        if counts:
            of = ", ".join(f"{n} of {len(self.vectors[m])} {m} rows" for m, n in counts.items())
            first = next(iter(counts))
            raise UserError(
                f"{of} are zero or not finite, first that of '{self.unusable(first)[0]}': repair them, or rank them "
                "last with --unusable last, or take them as not there with --unusable missing."
            )

    def _without_unusable(self) -> Embeddings:
        """The same with unusable rows as not there: flags of clips turn false, captions go."""
        bad = {m: self._bad(m) for m in self.modalities}
        if not any(flags.any() for flags in bad.values()):
            return self
        present = {m: flags if m == "text" else flags & ~bad[m] for m, flags in self.present.items()}
        vectors, owner = dict(self.vectors), self.text_owner
        if "text" in vectors and bad["text"].any():
            vectors["text"], owner = vectors["text"][~bad["text"]], owner[~bad["text"]]
            present["text"] = present["text"] & (np.bincount(owner, minlength=len(self.ids)) > 0)
        return replace(self, vectors=vectors, text_owner=owner, present=present)

    def _there(self, modality: str) -> np.ndarray:
        """bool (rows,): whether the clip of each row has the modality."""
        flags = self.present[modality]
        return flags[self.text_owner] if modality == "text" else flags

    def _bad(self, modality: str) -> np.ndarray:
        """bool (rows,): there, but zero or not finite."""
        return self._there(modality) & unusable_rows(self.vectors[modality])


def unusable_rows(rows: Any) -> np.ndarray:
    """bool (n,): which rows of an array (n, d) are zero or not finite."""
    return _by_row(rows, lambda block: ~np.isfinite(block).all(axis=1) | ~block.any(axis=1), np.bool_)


def _by_row(rows: Any, measure: Callable[[np.ndarray], np.ndarray], dtype: type) -> np.ndarray:
    """One value per row, block by block, so that no copy of the whole array is made."""
    found: np.ndarray = np.zeros(len(rows), dtype=dtype)
    for part in row_blocks(rows.shape):
        found[part] = measure(rows[part])
    return found


def row_blocks(shape: tuple[int, ...], numbers: int = _BLOCK) -> Iterator[slice]:
    """Slices of the rows of an array of that shape, each of about so many numbers, at least one row."""
    size = max(1, numbers // max(1, int(np.prod(shape[1:]))))
    for start in range(0, shape[0], size):
        yield slice(start, min(start + size, shape[0]))


def ids_hash(ids: Sequence[str]) -> str:
    """SHA-256 of the ids, one a line."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()
