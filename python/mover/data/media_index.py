"""Finding media files by clip id, with one listing per folder instead of one look-up per clip."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from mover.errors import UserError

VIDEO_EXTENSIONS = (".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".flv", ".mpg", ".mpeg", ".3gp", ".ts", ".wmv")
AUDIO_EXTENSIONS = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus", ".aac")


class MediaIndex:
    """The media files of one folder (not of folders below it), by name without extension.

    Extensions are compared without regard to case, and names after Unicode normalisation (some file systems decompose
    accents). When two files differ only in the extension, the one earlier in `extensions` is found.
    Raises UserError when the folder cannot be listed.
    """

    def __init__(self, folder: Path, extensions: Sequence[str] = VIDEO_EXTENSIONS + AUDIO_EXTENSIONS) -> None:
        self.folder = Path(folder)
        self._extensions = tuple(extensions)
        self._files: dict[str, tuple[int, Path]] = {}
        rank = {extension: position for position, extension in enumerate(self._extensions)}
        try:
            names = sorted(entry.name for entry in os.scandir(self.folder) if not entry.is_dir())
        except OSError as error:
            raise UserError(
                f"The media folder {self.folder} cannot be listed: {error.strerror}. Name the folder of the clips."
            ) from None
        for name in names:
            stem, extension = os.path.splitext(name)
            position = rank.get(extension.lower())
            if position is None:
                continue
            key = unicodedata.normalize("NFC", stem)
            if key not in self._files or position < self._files[key][0]:
                self._files[key] = (position, self.folder / name)

    def __len__(self) -> int:
        return len(self._files)

    def find(self, *names: str) -> Path | None:
        """The file called after the first of `names` that has one, or None."""
        for name in names:
            entry = self._files.get(unicodedata.normalize("NFC", name))
            if entry is not None:
                return entry[1]
        return None

    def nothing_found(self, wanted: str) -> UserError:
        """The error to raise when not one clip of a data set is in the folder; `wanted` is an example id."""
        return UserError(
            f"Not one clip was found in {self.folder}: it holds {len(self)} media files, and none is named after a "
            f"clip, as '{wanted}{self._extensions[0]}' would be. Name the folder that holds the clips."
        )
