"""Files of embeddings as NumPy writes them: an .npz archive with one array per name.

Names are arrays of strings, the provenance is an array () of one string that holds a JSON object.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mover.evaluate.embeddings_content import Content, Rows, byte_blocks, little_endian

_MOST_RATIO = 50
_SMALL = 100_000_000
"""Bytes that may compress by any ratio: many zeros do."""


def read(path: Path) -> dict[str, np.ndarray]:
    """All arrays. Raises ValueError, or whatever NumPy raises, for a file that is no archive of plain arrays."""
    with _open(path) as file:
        return {name: _array(file, name) for name in file.files}


def read_provenance(path: Path) -> str | None:
    """The text of the provenance alone; None where there is none."""
    with _open(path) as file:
        return str(_array(file, "provenance")) if "provenance" in file.files else None


def _open(path: Path) -> np.lib.npyio.NpzFile:
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            raise ValueError("it is no zip archive")
    found: np.lib.npyio.NpzFile = np.load(path, allow_pickle=False)
    assert found.zip is not None
    _check_ratio(found.zip)
    return found


def _check_ratio(archive: zipfile.ZipFile) -> None:
    """Raise ValueError for an archive that unpacks to far more than embeddings ever do, and maybe than memory holds."""
    parts = archive.infolist()
    packed, unpacked = (sum(getattr(part, size) for part in parts) for size in ("compress_size", "file_size"))
    if unpacked > _MOST_RATIO * packed + _SMALL:
        raise ValueError(
            f"its {packed} bytes unpack to {unpacked}, more than embeddings compress to; save it uncompressed, np.savez"
        )


def _array(file: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    try:
        found = file[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise ValueError(f"'{name}' holds Python objects; save numbers, or strings by np.array(…, dtype=str)") from None
    if not isinstance(found, np.ndarray):
        raise ValueError(f"'{name}' in it is no array")
    return found


def write(file: BinaryIO, content: Content) -> None:
    """Write the archive, uncompressed; equal contents give equal bytes."""
    arrays: dict[str, Rows] = {"ids": np.array(content.ids, dtype=np.str_), **content.arrays()}
    if content.labels is not None:
        arrays["labels"] = np.array(content.labels, dtype=np.str_)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, rows in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                described = {"descr": little_endian(rows.dtype).str, "fortran_order": False, "shape": rows.shape}
                np.lib.format.write_array_header_1_0(member, described)
                for block in byte_blocks(rows):
                    member.write(block)
        if content.provenance:
            with archive.open("provenance.npy", "w") as member:
                np.lib.format.write_array(member, np.array(json.dumps(dict(content.provenance))))
