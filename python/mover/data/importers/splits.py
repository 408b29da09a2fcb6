"""Splits that are published as lists of names beside the annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mover.data.clip import Clip
from mover.data.importers.fields import twice
from mover.data.importers.table import Row, read_list
from mover.errors import UserError


def find_list(folder: Path, names: Sequence[str], remedy: str) -> Path:
    """The first of these files that is in the folder. Raises UserError, ending in `remedy`, when there is none."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"There is no {' or '.join(names)} in {folder}. {remedy}")


def assign(
    clips: Mapping[str, Clip], lists: Mapping[str, Path], annotations: Path
) -> tuple[list[Clip], dict[str, Row]]:
    """Clips with the split of the list they are in, in the order of `clips`; clips in no list are left out.

    lists: split to file. Also gives the row of each clip chosen. Raises UserError for a name that is not in `clips` and
    for one that occurs twice.
    """
    rows: dict[str, Row] = {}
    splits: dict[str, str] = {}
    for split, path in lists.items():
        for row in read_list(path):
            name = row.required("video_id")
            if name not in clips:
                raise UserError(f"{row.where}: '{name}' is not in {annotations}. Use the lists of this data set.")
            if name in rows:
                raise twice(row.where, name, rows[name].where)
            rows[name], splits[name] = row, split
    if not rows:
        raise UserError(f"{', '.join(map(str, lists.values()))}: the lists are empty. Fetch them again.")
    return [replace(clip, split=splits[name]) for name, clip in clips.items() if name in rows], rows
