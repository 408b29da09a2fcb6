"""What goes into a file of embeddings: rows that are in memory or on disk, and how they are passed on in blocks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mover.evaluate.embeddings import row_blocks


class Rows(Protocol):
    """An array of rows (n, d), or of values (n,), as a writer needs it: a NumPy array is one, and `DiskRows`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        ...

    @property
    def dtype(self) -> Any:
        """As of an array."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, part: Any, /) -> Any: ...


class DiskRows:
    """float32 (n, d): the rows of a file that holds nothing else, little-endian; read when asked for, never kept."""

    dtype = np.dtype("<f4")

    def __init__(self, path: Path, rows: int, width: int) -> None:
        self.path, self.shape = path, (rows, width)

    @property
    def nbytes(self) -> int:
        """As of an array."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice | np.ndarray) -> np.ndarray:
        rows, width = self.shape
        with open(self.path, "rb", buffering=0) as file:
            if isinstance(part, slice):
                first, last, step = part.indices(rows)
                if step != 1:
                    raise ValueError("expected a slice of neighbouring rows")
                return self._read(file.fileno(), first, max(0, last - first))
            places = np.asarray(part, dtype=np.int64)
            found = np.empty((len(places), width), self.dtype)
            for i, place in enumerate(places):
                found[i] = self._read(file.fileno(), int(place), 1)[0]
            return found

    def _read(self, handle: int, first: int, count: int) -> np.ndarray:
        found = np.empty((count, self.shape[1]), self.dtype)
        view, place = found.reshape(-1).view(np.uint8).data, first * self.shape[1] * self.dtype.itemsize
        while len(view):
            read = os.preadv(handle, [view], place)
            if read == 0:
                raise EOFError(f"{self.path} is shorter than {self.shape[0]} rows of {self.shape[1]} numbers")
            view, place = view[read:], place + read
        return found


@dataclass(frozen=True)
class Content:
    """As `Embeddings`, but for `rows` in place of vectors: modality to rows, text, video and audio first."""

    ids: Sequence[str]
    rows: Mapping[str, Rows]
    text_owner: np.ndarray
    present: Mapping[str, np.ndarray]
    labels: Sequence[str] | None
    provenance: Mapping[str, Any]

    def arrays(self) -> dict[str, Rows]:
        """The arrays of the file but for names and provenance: rows, `text_owner` and what is present."""
        found: dict[str, Rows] = {}
        for modality, rows in self.rows.items():
            found[modality] = rows
            found[f"{modality}_present"] = self.present[modality]
        if "text" in self.rows:
            found["text_owner"] = self.text_owner
        return found


def little_endian(dtype: np.dtype) -> np.dtype:
    """The type as it is stored."""
    return dtype.newbyteorder("<")


def byte_blocks(rows: Rows) -> Iterator[memoryview]:
    """The bytes of an array in row-major order, little-endian, some rows at a time."""
    for part in row_blocks(rows.shape):
        block = np.ascontiguousarray(rows[part], dtype=little_endian(rows.dtype))
        yield block.reshape(-1).view(np.uint8).data
