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
    accents). When files differ only in the extension, the one earlier in `extensions` is found.
    Raises UserError when the folder cannot be listed.
    """

    def __init__(self, folder: Path, extensions: Sequence[str] = VIDEO_EXTENSIONS + AUDIO_EXTENSIONS) -> None:
        self.folder = Path(folder)
        self._extensions = tuple(extensions)
        self._files: dict[str, dict[str, str]] = {}  # stem to extension to file name
        known = set(self._extensions)
        try:
            names = sorted(entry.name for entry in os.scandir(self.folder) if not entry.is_dir())
        except OSError as error:
            raise UserError(
                f"The media folder {self.folder} cannot be listed: {error.strerror}. Name the folder of the clips."
            ) from None
        for name in names:
            stem, extension = os.path.splitext(name)
            if extension.lower() in known:
                self._files.setdefault(_normal(stem), {}).setdefault(extension.lower(), name)

    def __len__(self) -> int:
        return len(self._files)

    def find(self, *names: str, extensions: Sequence[str] | None = None) -> Path | None:
        """The file called after the first of `names` that has one; with `extensions`, one with one of these."""
        for name in names:
            files = self._files.get(_normal(name))
            if files is None:
                continue
            for extension in self._extensions if extensions is None else extensions:
                if extension in files:
                    return self.folder / files[extension]
        return None

    def nothing_found(self, wanted: str, extension: str) -> UserError:
        """The error to raise when not one clip of a data set is in the folder; `wanted` is the name of one."""
        return UserError(
            f"Not one clip was found in {self.folder}: it holds {len(self)} media files, and none is named after a "
            f"clip, as '{wanted}{extension}' would be. Name the folder that holds the clips."
        )


def _normal(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)
