"""Reading annotation files: CSV tables, JSON documents, lists of names. Complaints name the file and the place."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from mover.data.importers.fields import shown
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

    def rest(self, *known: str) -> dict[str, str]:
        """The columns that are not among the known ones."""
        return {column: value for column, value in self.values.items() if column not in known}


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark. Raises UserError naming the file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        detail = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"The annotation file {path} cannot be read: {detail}. Name the published file.") from None
    if "\0" in text:
        raise UserError(f"The annotation file {path} holds zero bytes: it is not text. Fetch it again.")
    return text


def read_csv(
    path: Path,
    columns: Sequence[str],
    *,
    header: Sequence[str] | None = None,
    comment: str | None = None,
    blank_after_comma: bool = False,
) -> Iterator[Row]:
    """The rows of a CSV file that has at least these columns; blank lines are passed over.

    header: names of the columns of a file whose first line is a row already.
    comment: rows that begin with it are passed over. blank_after_comma: a blank after a comma is no part of a field.
    Quoted fields may hold commas and line breaks. Raises UserError, with line and column, for quotes that do not match,
    a missing column and a row of another length.
    """
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=blank_after_comma)
    names = None if header is None else list(header)
    while True:
        where = f"{path}, line {reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _quoting(path, text, reader.line_num, blank_after_comma, error) from None
        if cells is None:
            break
        if not any(cell.strip() for cell in cells) or (comment is not None and cells[0].startswith(comment)):
            continue
        if names is None:
            names = _header(path, cells, columns)
        elif len(cells) != len(names):
            raise UserError(f"{where}: expected {len(names)} fields, got {len(cells)}. Quote fields that hold commas.")
        else:
            yield Row(where, dict(zip(names, cells, strict=True)))
    if names is None:
        _header(path, [], columns)


def _header(path: Path, cells: Sequence[str], columns: Sequence[str]) -> list[str]:
    names = [name.strip() for name in cells]
    for column in columns:
        if names.count(column) != 1:
            problem = f"must name a column '{column}'" if column not in names else f"names the column '{column}' twice"
            raise UserError(f"{path}: the first line {problem}, got {', '.join(names) or 'nothing'}.")
    return names


def _quoting(path: Path, text: str, last: int, blank_after_comma: bool, error: csv.Error) -> UserError:
    """The error for quotes that do not match, with the place of the first that is wrong."""
    line, column, opened = 1, 0, None
    state = "start"  # of a field; then "plain", "quoted", "closed"
    for character in text:
        column += 1
        if state == "quoted":
            state = "closed" if character == '"' else state
        elif state == "closed" and character == '"':
            state = "quoted"
        elif character in ",\r\n":
            state = "start"
        elif state == "start" and character == '"':
            state, opened = "quoted", (line, column)
        elif state == "closed":
            return UserError(
                f"{path}, line {line}, column {column}: text after a closing quote. Double the quotes within a field."
            )
        elif state == "start":
            state = "start" if blank_after_comma and character == " " else "plain"
        if character == "\n":
            line, column = line + 1, 0
    if state == "quoted" and opened is not None:
        return UserError(f"{path}, line {opened[0]}, column {opened[1]}: this quote is never closed. Close it.")
    return UserError(f"{path}, line {last}: not valid CSV: {error}. Fetch the file again.")


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises UserError naming the file and the place of the fault."""
    text = read_text(path)
    try:
        return json.loads(text, parse_constant=_not_json)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}. Fetch the file again; it may be cut short.") from None


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def read_list(path: Path) -> Iterator[Row]:
    """The entries of a list of clips, as rows with the column `video_id`.

    A CSV file has such a column, a JSON file is a list of names, a .npy file an array of strings; any other file has a
    name in each line.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        yield from read_csv(path, ["video_id"])
        return
    if suffix in (".json", ".npy"):
        names = read_json(path) if suffix == ".json" else _array_of_names(path)
        if not isinstance(names, list):
            raise UserError(f"{path}: expected a list of names, got {type(names).__name__}.")
        for position, name in enumerate(names):
            if not isinstance(name, str):
                raise UserError(f"{path}, [{position}]: expected a name, got {shown(name)}.")
            yield Row(f"{path}, [{position}]", {"video_id": name})
        return
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield Row(f"{path}, line {number}", {"video_id": line})


def _array_of_names(path: Path) -> list[str]:
    import numpy as np

    from mover.array_of_names import names_of

    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged header has NumPy raise what Python's own parser does
        raise UserError(
            f"{path} is not an array of strings: {error} An array of Python objects is a pickle, which could run code: "
            "write the names to a text file, one in each line."
        ) from None
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise UserError(f"{path}: expected one row of strings, got an array {array.shape} of {array.dtype}.")
    try:
        return names_of(array)
    except ValueError:
        raise UserError(f"{path}: its strings hold what is no character. Fetch it again.") from None
