"""Files of embeddings as .safetensors: a tensor per array.

The format has no strings. `ids`, `labels` and `provenance` are JSON in its metadata: two lists and an object. Whole
numbers as ids may be a tensor `ids`, too.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mover.errors import UserError
from mover.evaluate.embeddings_content import Content, byte_blocks

_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "bool": "BOOL"}
_READ = ("F64", "F32", "F16", "BF16", "I", "U", "BOOL")
"""How the names of types that NumPy knows begin, and of bfloat16."""
_LONGEST_HEADER = 100_000_000
"""Bytes; the library reads no file whose header is longer."""


def read(path: Path) -> dict[str, np.ndarray]:
    """All tensors, bfloat16 as float32, and the names in the metadata as arrays.

    Raises whatever the library raises for a file that is no whole one, ValueError for metadata that is no JSON.
    """
    from safetensors import safe_open

    arrays: dict[str, np.ndarray] = {}
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        names = list(file.keys())
        types = {name: str(file.get_slice(name).get_dtype()) for name in names}
        for name, kind in types.items():
            if not kind.startswith(_READ):
                raise ValueError(f"'{name}' is of the type {kind}")
        half = [name for name in names if types[name] == "BF16"]
        arrays |= {name: file.get_tensor(name) for name in names if name not in half}
    if half:
        with safe_open(path, framework="pt") as file:
            arrays |= {name: file.get_tensor(name).float().numpy() for name in half}
    for name in ("ids", "labels"):
        if name in metadata:
            if name in arrays:
                raise ValueError(f"'{name}' is a tensor and in the metadata, too")
            arrays[name] = _listed(name, metadata[name])
    if "provenance" in metadata:
        arrays["provenance"] = np.array(metadata["provenance"])
    return {name: arrays[name] for name in (*names, *(n for n in arrays if n not in names))}


def _listed(name: str, text: str) -> np.ndarray:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(type(value) in (str, int) for value in values):
        raise ValueError(f"'{name}' in the metadata is no JSON list of strings or whole numbers")
    return np.array([str(value) for value in values], dtype=np.str_)


def read_provenance(path: Path) -> str | None:
    """The text of the provenance alone; None where there is none."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        found = (file.metadata() or {}).get("provenance")
        return None if found is None else str(found)


def write(file: BinaryIO, content: Content) -> None:
    """Write the file; the widest numbers come first, so that all of them are aligned.

    Raises:
        UserError: more names than a header can hold.
    """
    metadata = {"ids": json.dumps(list(content.ids))}
    if content.labels is not None:
        metadata["labels"] = json.dumps(list(content.labels))
    if content.provenance:
        metadata["provenance"] = json.dumps(dict(content.provenance))
    header: dict[str, Any] = {"__metadata__": metadata}
    arrays = sorted(content.arrays().items(), key=lambda item: -item[1].dtype.itemsize)
    place = 0
    for name, rows in arrays:
        end = place + int(np.prod(rows.shape)) * rows.dtype.itemsize
        header[name] = {
            "dtype": _NAMES[rows.dtype.newbyteorder("=").name], "shape": list(rows.shape), "data_offsets": [place, end]
        }  # fmt: skip
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _LONGEST_HEADER:
        raise UserError(
            f"The names of {len(content.ids)} clips take {len(text)} bytes, and a .safetensors file holds at most "
            f"{_LONGEST_HEADER}: write .npz or .parquet."
        )
    file.write(struct.pack("<Q", len(text)))
    file.write(text)
    for _, rows in arrays:
        for block in byte_blocks(rows):
            file.write(block)
