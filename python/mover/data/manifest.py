"""The manifest: one row per clip, the one format everything after the importers knows.

On disk it is JSON lines in UTF-8; fields that have their default may be left out. A media path below the manifest's
folder is written relative to that folder, so the folder can be moved; any other path is written absolute.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from mover.data.clip import STATUSES, Clip, Reference
from mover.data.manifest_row import WrongRow, clip_of, line_of
from mover.errors import UserError

__all__ = ["STATUSES", "Clip", "Reference", "read_manifest", "select_split", "write_atomically", "write_manifest"]

_LONGEST = 10_000_000
"""Characters of a row."""


def read_manifest(path: Path) -> list[Clip]:
    """Read a manifest; clips keep the order of the file.

    Raises UserError naming the file, the line and the field for anything that is not a valid row, for an id that
    occurs twice and for a manifest without rows.
    """
    path = Path(path)
    clips: list[Clip] = []
    lines: dict[str, int] = {}
    folder = os.path.join(path.parent, "")
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file, _without_collection():
            for number, line in enumerate(iter(partial(file.readline, _LONGEST + 1), ""), start=1):
                if len(line) > _LONGEST:
                    raise UserError(
                        f"{path}, line {number}: more than {_LONGEST} characters. Each line of a manifest is one row."
                    )
                if line.isspace():
                    continue
                try:
                    clip = clip_of(line, folder)
                except WrongRow as wrong:
                    raise UserError(f"{path}, line {number}: {wrong}") from None
                first = lines.setdefault(clip.id, number)
                if first != number:
                    raise UserError(
                        f"{path}, line {number}: the id '{clip.id}' is on line {first} too. Make ids unique."
                    )
                clips.append(clip)
    except FileNotFoundError:
        raise UserError(f"There is no manifest {path}. Make one with an importer, or with 'mover synth'.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The manifest {path} cannot be read as UTF-8 text: {error}. Write it again.") from None
    if not clips:
        raise UserError(f"The manifest {path} has no rows. Import the data set again.")
    return clips


def write_manifest(path: Path, clips: Iterable[Clip]) -> None:
    """Write a manifest in one piece: a reader sees the old file or the whole new one, never a part."""
    path = Path(path)
    folder = os.path.join(os.path.abspath(path.parent), "")
    write_atomically(path, "".join(line_of(clip, folder) + "\n" for clip in clips))


def select_split(clips: Sequence[Clip], split: str) -> list[Clip]:
    """The clips of one split, in order. Raises UserError naming the splits there are when it is empty."""
    chosen = [clip for clip in clips if clip.split == split]
    if not chosen:
        known = sorted({clip.split for clip in clips})
        raise UserError(f"No clip belongs to the split '{split}'. The manifest has: {', '.join(known) or 'none'}.")
    return chosen


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text beside `path` first and move it into place when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


@contextmanager
def _without_collection() -> Iterator[None]:
    """Rows make no cycles; looking for some among all clips made so far would cost a good part of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
