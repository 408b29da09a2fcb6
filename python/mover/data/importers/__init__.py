"""Importers: each turns one public annotation format into clips. To add one, write its `load` and name it here."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from mover.data.importers import audiocaps, msrvtt
from mover.data.manifest import Clip


class Importer(Protocol):
    """Reads `annotations` (file or folder), finds the files in `media`, returns clips in the order of the annotations.

    source: name of the data set, kept with every clip. Each importer has options of its own beside it.
    A clip whose file is not there is kept with status "missing". Raises UserError naming the file and the row for
    anything malformed, and when not one media file is found.
    """

    def __call__(self, annotations: Path, media: Path, *, source: str = ...) -> list[Clip]: ...


IMPORTERS: dict[str, Importer] = {"audiocaps": audiocaps.load, "msrvtt": msrvtt.load}

__all__ = ["IMPORTERS", "Importer"]
