"""What is wrong with a media file, in the words of the manifest."""

from __future__ import annotations

from pathlib import Path

from mover.errors import UserError

_REMEDY = {
    "missing": "Put the file there, or drop the clip.",
    "no_audio_track": "Drop the clip, or run without audio.",
    "corrupt": "Fetch the file again, or drop the clip.",
    "too_short": "Drop the clip, or correct its start in the manifest.",
    "too_large": "Drop the clip, or raise the limit.",
}


class MediaError(UserError):
    """A media file that cannot be used. `path` is the file, `status` a manifest status other than "ok",
    `detail` what is wrong."""

    def __init__(self, path: Path, status: str, detail: str) -> None:
        super().__init__(f"{path}: {detail} (status {status}). {_REMEDY[status]}")
        self.path = path
        self.status = status
        self.detail = detail
