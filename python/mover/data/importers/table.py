"""Reading annotation files: CSV tables with a header, JSON documents. Complaints name the file and the line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mover.errors import UserError


@dataclass(frozen=True)
class Row:
    """One row of a CSV file. `where` reads "<file>, line <n>"."""

    where: str
    values: dict[str, str]

    def required(self, column: str) -> str:
        """The value without blanks around it. Raises UserError when it is empty."""
        value = self.values[column].strip()
        if not value:
            raise UserError(f"{self.where}: column '{column}' is empty. Fill it in or delete the row.")
        return value


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark. Raises UserError naming the file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        detail = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"The annotation file {path} cannot be read: {detail}. Name the published file.") from None


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a CSV file that has at least these columns; blank lines are passed over.

    Quoted fields may hold commas and line breaks. Raises UserError for a missing column or a row of another length.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    header = [name.strip() for name in next(reader, [])]
    for column in columns:
        if column not in header:
            raise UserError(
                f"{path}: the first line must name a column '{column}', got {', '.join(header) or 'nothing'}."
            )
    for cells in reader:
        where = f"{path}, line {reader.line_num}"
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise UserError(f"{where}: expected {len(header)} fields, got {len(cells)}. Quote fields that hold commas.")
        yield Row(where, dict(zip(header, cells, strict=True)))


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises UserError naming the file and the place of the fault."""
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}. Fetch the file again; it may be cut short.") from None


def to_seconds(text: str, where: str, column: str) -> float:
    """A time in seconds. Raises UserError when it is not a number or is negative."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UserError(f"{where}: '{column}' must be a number of seconds, at least 0, got '{text}'.")
    return value
