"""Giving clips their media files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mover.data.clip import IMAGE_EXTENSIONS, Clip, Reference
from mover.data.media_index import AUDIO_EXTENSIONS, VIDEO_EXTENSIONS, MediaIndex

_ALL = VIDEO_EXTENSIONS + AUDIO_EXTENSIONS + IMAGE_EXTENSIONS


class MediaFiles:
    """The files of a media folder, and of an audio folder where sounds are kept apart.

    expected: the modalities every clip of the set has; one without a file gets the status "missing".
    A video file serves as video and audio. An audio file of the same name goes before its sound. An image becomes the
    modality "image".
    """

    def __init__(self, media: Path, audio: Path | None, expected: Sequence[str]) -> None:
        self.media, self.audio, self.expected = Path(media), Path(audio or media), tuple(expected)
        self._folders: dict[Path, MediaIndex | None] = {}
        self._first: str | None = None
        self._found = False
        for folder in (self.media, self.audio):
            self._folders[folder] = MediaIndex(folder, _ALL)

    def attach(self, clip: Clip, *names: str, folders: Iterable[str] = ("",)) -> Clip:
        """The clip with the files called after the first of `names` that has one.

        A name may begin with folders ("train/clip1"); `folders` are looked through in turn, "" is the media folder.
        """
        places = [(folder, name) for folder in folders for name in names]
        video = self._find(self.media, places, VIDEO_EXTENSIONS)
        audio = self._find(self.audio, places, AUDIO_EXTENSIONS + VIDEO_EXTENSIONS)
        image = None if video else self._find(self.media, places, IMAGE_EXTENSIONS)
        found = {"video": video, "audio": audio, "image": image}
        self._first = self._first or names[0]
        self._found = self._found or any(found.values())
        missing = {modality: "missing" for modality in self.expected if found[modality] is None}
        others = clip.others if image is None else {**clip.others, "image": Reference(image)}
        return replace(clip, video=video, audio=audio, status=missing, others=others)

    def check_found(self) -> None:
        """Raises UserError when not one of the clips has a file."""
        if self._first is not None and not self._found:
            extension = (VIDEO_EXTENSIONS if "video" in self.expected else AUDIO_EXTENSIONS)[0]
            raise self._index(self.media).nothing_found(self._first, extension)  # type: ignore[union-attr]

    def _find(self, root: Path, places: Iterable[tuple[str, str]], extensions: Sequence[str]) -> Path | None:
        for folder, name in places:
            inner, _, stem = name.rpartition("/")
            index = self._index(root / folder / inner if folder or inner else root)
            file = None if index is None else index.find(stem, extensions=extensions)
            if file is not None:
                return file
        return None

    def _index(self, folder: Path) -> MediaIndex | None:
        if folder not in self._folders:
            self._folders[folder] = MediaIndex(folder, _ALL) if os.path.isdir(folder) else None
        return self._folders[folder]
