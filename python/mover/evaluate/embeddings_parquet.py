"""Files of embeddings as .parquet: a row per clip.

    id               string or whole number
    text             list<float>, one caption, or list<list<float>>, several; null or no caption: the clip has none
    video, audio, …  list<float>; null: the clip has no such modality
    label            string, optional

Lists may be large or of a fixed size, the numbers half, float or double. The provenance is a JSON object under
"provenance" in the metadata of the schema.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mover.errors import UserError
from mover.evaluate.embeddings import row_blocks
from mover.evaluate.embeddings_content import Content, Rows

_ROWS_AT_ONCE = 4096
_NUMBERS = 1 << 21
"""At most so many clips, and so many numbers of a modality, make a row group."""
_NAMES = {"id": "ids", "label": "labels"}
"""Columns that are names, and what they are called elsewhere."""


def modules() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet. Raises UserError where they are not installed."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise UserError(
            "Files that end in .parquet need the package pyarrow, which is not installed: pip install pyarrow, or take "
            ".npz or .safetensors."
        ) from None


def read(path: Path) -> dict[str, np.ndarray]:
    """The columns as the arrays of an .npz file; modalities that no clip has get rows as wide as the others.

    Raises:
        UserError: no pyarrow.
        ValueError: a column of another type, or rows of a column that differ in length. And whatever pyarrow raises for
            a file that is no whole one.
    """
    arrow, parquet = modules()
    arrays: dict[str, np.ndarray] = {}
    empty: list[str] = []
    with open(path, "rb") as source, parquet.ParquetFile(source) as file:
        schema = file.schema_arrow
        twice = {name for name in schema.names if schema.names.count(name) > 1}
        if twice:
            raise ValueError(f"there are several columns '{min(twice)}'")
        for column in schema:
            chunks = (batch.column(0) for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[column.name]))
            if column.name in _NAMES:
                arrays[_NAMES[column.name]] = _strings(arrow, column, chunks)
            else:
                count = file.metadata.num_rows
                text = column.name == "text"
                found = _captions(arrow, column, chunks) if text else _rows(arrow, column, chunks, count)
                arrays |= found
                empty += [] if column.name in found else [column.name]
        if schema.metadata and b"provenance" in schema.metadata:
            arrays["provenance"] = np.array(schema.metadata[b"provenance"].decode())
    widths = [a.shape[1] for name, a in arrays.items() if a.ndim == 2]
    for name in empty:
        arrays[name] = np.zeros((len(arrays[f"{name}_present"]), max(widths, default=0)), np.float32)
    order = [_NAMES.get(name, name) for name in schema.names]
    return {name: arrays[name] for name in (*order, *(n for n in arrays if n not in order))}


def read_provenance(path: Path) -> str | None:
    """The text of the provenance alone; None where there is none."""
    _, parquet = modules()
    metadata = parquet.read_schema(path).metadata or {}
    return metadata[b"provenance"].decode() if b"provenance" in metadata else None


def write(file: BinaryIO, content: Content) -> None:
    """Write the table, uncompressed. Rows of what is not present are left out, and captions are sorted by clip."""
    arrow, parquet = modules()
    schema = _schema(arrow, content)
    order = np.argsort(content.text_owner, kind="stable")
    sorted_already = bool((order == np.arange(len(order))).all())
    first = np.concatenate([[0], np.cumsum(np.bincount(content.text_owner, minlength=len(content.ids)))])
    options: dict[str, Any] = {"compression": "NONE", "use_dictionary": False, "write_statistics": False}
    with parquet.ParquetWriter(file, schema, **options) as writer:
        widest = max(rows.shape[1] for rows in content.rows.values())
        for part in row_blocks((len(content.ids), max(widest, _NUMBERS // _ROWS_AT_ONCE)), _NUMBERS):
            columns = [arrow.array(list(content.ids[part]), arrow.string())]
            for modality, rows in content.rows.items():
                there = content.present[modality][part]
                if modality == "text":
                    captions = slice(int(first[part.start]), int(first[part.stop]))
                    block = np.asarray(rows[captions] if sorted_already else rows[order[captions]])
                    counts = np.diff(first[part.start : part.stop + 1])
                    kept = np.repeat(there, counts)
                    inner = _lists(arrow, _flat(arrow, block[kept]), np.full(int(kept.sum()), rows.shape[1]))
                    columns.append(_lists(arrow, inner, np.where(there, counts, 0), ~there))
                else:
                    block = np.asarray(rows[part])[there]
                    columns.append(_lists(arrow, _flat(arrow, block), rows.shape[1] * there, ~there))
            if content.labels is not None:
                columns.append(arrow.array([label or None for label in content.labels[part]], arrow.string()))
            writer.write_batch(arrow.record_batch(columns, schema=schema))


def _schema(arrow: Any, content: Content) -> Any:
    def lists(modality: str, rows: Rows) -> Any:
        numbers = arrow.list_(arrow.from_numpy_dtype(rows.dtype.newbyteorder("=")))
        return arrow.field(modality, arrow.list_(numbers) if modality == "text" else numbers)

    fields = [arrow.field("id", arrow.string(), nullable=False)]
    fields += [lists(modality, rows) for modality, rows in content.rows.items()]
    fields += [] if content.labels is None else [arrow.field("label", arrow.string())]
    metadata = {"provenance": json.dumps(dict(content.provenance))} if content.provenance else None
    return arrow.schema(fields, metadata)


def _flat(arrow: Any, block: np.ndarray) -> Any:
    return arrow.array(np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("=")).reshape(-1))


def _lists(arrow: Any, values: Any, lengths: np.ndarray, null: np.ndarray | None = None) -> Any:
    """Lists of these lengths over the values; `null`: which of them are none."""
    offsets = arrow.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    mask = None if null is None or not null.any() else arrow.array(null)
    return arrow.ListArray.from_arrays(offsets, values, mask=mask)


def _strings(arrow: Any, column: Any, chunks: Iterator[Any]) -> np.ndarray:
    """Names as an array of strings; null is an error among ids, and none among labels."""
    kind = column.type.value_type if arrow.types.is_dictionary(column.type) else column.type
    known = (arrow.types.is_string, arrow.types.is_large_string, arrow.types.is_integer)
    if not any(check(kind) for check in known):
        raise ValueError(f"the column '{column.name}' is of the type {kind}, expected strings or whole numbers")
    values = [value for chunk in chunks for value in chunk.to_pylist()]
    nulls = sum(value is None for value in values)
    if nulls and column.name == "id":
        raise ValueError(f"{nulls} of {len(values)} ids are null, first that of row {values.index(None)}")
    return np.array(["" if value is None else str(value) for value in values], dtype=np.str_)


def _rows(arrow: Any, column: Any, chunks: Iterator[Any], count: int) -> dict[str, np.ndarray]:
    """A modality of `count` clips and who has it; without the rows where it is null everywhere."""
    name = column.name
    found: dict[str, np.ndarray] = {f"{name}_present": np.zeros(count, dtype=np.bool_)}
    if arrow.types.is_null(column.type):
        return found
    _check_numbers(arrow, column, column.type)
    start = 0
    for chunk in chunks:
        part = slice(start, start + len(chunk))
        block = _dense(arrow, name, chunk)
        found[f"{name}_present"][part] = there = _there(chunk)
        if len(block):
            width = block.shape[1]
            if name not in found:
                found[name] = np.zeros((count, width), block.dtype)
            _check_widths(name, width, len(found[name][0]))
            found[name][part][there] = block
        start += len(chunk)
    return found


def _captions(arrow: Any, column: Any, chunks: Iterator[Any]) -> dict[str, np.ndarray]:
    """`text` and `text_owner`; one caption per clip where the lists are not nested."""
    if arrow.types.is_null(column.type):
        raise ValueError("the column 'text' is null in every row: leave it out")
    nested = _is_list(arrow, column.type) and _is_list(arrow, column.type.value_type)
    _check_numbers(arrow, column, column.type.value_type if nested else column.type)
    blocks: list[np.ndarray] = []
    owners, start = [], 0
    for chunk in chunks:
        counts = np.maximum(_lengths(chunk), 0) if nested else _there(chunk)
        owners.append(np.repeat(np.arange(start, start + len(chunk)), counts))
        captions = chunk.flatten() if nested else chunk
        if nested and captions.null_count:
            raise ValueError(f"{captions.null_count} captions of rows {start}.. in the column 'text' are null")
        block = _dense(arrow, "text", captions)
        if len(block):
            _check_widths("text", block.shape[1], blocks[0].shape[1] if blocks else block.shape[1])
            blocks.append(block)
        start += len(chunk)
    if not blocks:
        raise ValueError("the column 'text' has no caption in any row: leave it out")
    return {"text": np.concatenate(blocks), "text_owner": np.concatenate(owners)}


def _there(lists: Any) -> np.ndarray:
    """bool (n,): which lists are not null."""
    return np.asarray(lists.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)


def _check_numbers(arrow: Any, column: Any, kind: Any) -> None:
    if not _is_list(arrow, kind) or not arrow.types.is_floating(kind.value_type):
        expected = "list<float> or list<list<float>>" if column.name == "text" else "list<float>"
        raise ValueError(
            f"the column '{column.name}' is of the type {column.type}; every column but id and label is a modality, "
            f"and holds {expected}"
        )


def _check_widths(name: str, one: int, other: int) -> None:
    if one != other:
        raise ValueError(f"the column '{name}' has lists of {min(one, other)} and of {max(one, other)} numbers")


def _dense(arrow: Any, name: str, lists: Any) -> np.ndarray:
    """The lists that are not null as rows, (n, d). A null in place of a number is NaN."""
    lengths = _lengths(lists)
    lengths = lengths[lengths >= 0]
    if not len(lengths):
        return np.zeros((0, 0), np.float32)
    _check_widths(name, int(lengths.min()), int(lengths.max()))
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False)).reshape(len(lengths), lengths[0])


def _lengths(lists: Any) -> np.ndarray:
    """int64 (n,): the number of entries of each list, -1 where it is null."""
    count = importlib.import_module("pyarrow.compute").list_value_length
    return np.asarray(count(lists).fill_null(-1).to_numpy(), dtype=np.int64)


def _is_list(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
