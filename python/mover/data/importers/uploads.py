"""Clips that are parts of uploads: how their files are named, and what is cut when the uploads are whole."""

from __future__ import annotations

from dataclasses import replace

from mover.data.clip import Clip
from mover.data.importers.media_files import MediaFiles


def stamp(upload: str, *times: float) -> str:
    """The published name of a cut clip: the upload and its seconds, six digits each."""
    return "_".join([upload, *(f"{int(time):06d}" for time in times)])


def attach(
    files: MediaFiles, clip: Clip, upload: str, start: float, end: float, untrimmed: bool,
    names: tuple[str, ...], folders: tuple[str, ...] = ("",),
) -> Clip:  # fmt: skip
    """The clip with its files, and with the part to cut where the files are whole uploads.

    names: of the file of the cut clip, best first. A whole upload may bear the name of the upload or one of these.
    """
    extra = {"youtube_id": upload, "start_time": start, **clip.extra}
    cut = replace(clip, extra=extra, duration=end - start, start=start if untrimmed else None)
    return files.attach(cut, *((upload, *names) if untrimmed else names), folders=folders)
