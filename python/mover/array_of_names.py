"""Names in an array of NumPy, from a file that may hold anything."""

from __future__ import annotations

import sys

import numpy as np


def names_of(array: np.ndarray) -> list[str]:
    """The entries of an array of strings, of bytes in UTF-8, or of whole numbers, as text.

    Raises:
        UnicodeDecodeError: bytes are no UTF-8.
        ValueError: a number is no character.
    """
    if array.dtype.kind == "U" and array.nbytes:
        characters = np.ascontiguousarray(array).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if characters.max() > sys.maxunicode:  # NumPy would make strings that break when they are read
            raise ValueError(f"{characters.max()} is no character")
    return [name.decode() if isinstance(name, bytes) else str(name) for name in array.tolist()]
