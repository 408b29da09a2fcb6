"""The manifest: one row per clip, the one format everything after the importers knows.

On disk it is JSON lines in UTF-8. A media path below the manifest's folder is written relative to that folder, so the
folder can be moved; any other path is written absolute.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mover.errors import UserError

STATUSES = ("ok", "missing", "no_audio_track", "corrupt", "too_short")


@dataclass(frozen=True)
class Clip:
    """One clip: what it is called, what is said about it, and where its media are.

    id: unique in a manifest.
    captions: sentences that describe it; empty where the data set has none.
    video, audio: media files; the same file for both is usual; None where there is none.
    status: modality to one of `STATUSES`; a modality not named is "ok".
    start, duration: seconds. With `start`, the clip is that part of a longer file; without, the clip is the whole
        file and `duration` is information only.
    split: name of the part of the data set it belongs to ("train", "val", "test", …).
    label: class name, where the data set has classes. source: data set it came from.
    dataset_version: version of that data set. extra: anything else, JSON values only.
    """

    id: str
    captions: tuple[str, ...] = ()
    video: Path | None = None
    audio: Path | None = None
    status: dict[str, str] = field(default_factory=dict)
    start: float | None = None
    duration: float | None = None
    split: str = "train"
    label: str | None = None
    source: str = ""
    dataset_version: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def present(self, modality: str) -> bool:
        """Whether the clip has this modality, as far as the manifest knows (no file is opened)."""
        if modality == "text":
            return bool(self.captions)
        return self.media(modality) is not None and self.status.get(modality, "ok") == "ok"

    def media(self, modality: str) -> Path | None:
        """The file of "video" or "audio", or None."""
        return self.video if modality == "video" else self.audio


_KEYS = tuple(f.name for f in fields(Clip))


def read_manifest(path: Path) -> list[Clip]:
    """Read a manifest; clips keep the order of the file.

    Raises UserError naming the file, the line and the field for anything that is not a valid row, for an id that
    occurs twice and for a manifest without rows.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"There is no manifest {path}. Make one with an importer, or with 'mover synth'.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The manifest {path} cannot be read as UTF-8 text: {error}. Write it again.") from None
    clips: list[Clip] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        clip = _parse(line, f"{path}, line {number}", path.parent)
        if clip.id in lines:
            raise UserError(
                f"{path}, line {number}: the id '{clip.id}' is on line {lines[clip.id]} too. Make ids unique."
            )
        lines[clip.id] = number
        clips.append(clip)
    if not clips:
        raise UserError(f"The manifest {path} has no rows. Import the data set again.")
    return clips


def write_manifest(path: Path, clips: Iterable[Clip]) -> None:
    """Write a manifest in one piece: a reader sees the old file or the whole new one, never a part."""
    path = Path(path)
    folder = path.parent.absolute()
    rows = []
    for clip in clips:
        row = {key: getattr(clip, key) for key in _KEYS}
        row["video"], row["audio"] = _stored(clip.video, folder), _stored(clip.audio, folder)
        rows.append(json.dumps(row, ensure_ascii=False, allow_nan=False))
    write_atomically(path, "".join(row + "\n" for row in rows))


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


def _stored(path: Path | None, folder: Path) -> str | None:
    if path is None:
        return None
    absolute = Path(os.path.abspath(path))
    return absolute.relative_to(folder).as_posix() if absolute.is_relative_to(folder) else str(absolute)


def _parse(line: str, where: str, folder: Path) -> Clip:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not a JSON object ({error}). Each line of a manifest is one JSON object.") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(row).__name__}.")
    unknown = sorted(set(row) - set(_KEYS))
    if unknown:
        raise UserError(f"{where}: unknown field '{unknown[0]}'. Put what is not known to MOVER under 'extra'.")
    reader = _Row(row, where)
    video, audio = reader.text("video"), reader.text("audio")
    return Clip(
        id=reader.required_text("id"),
        captions=reader.captions(),
        video=None if video is None else folder / video,
        audio=None if audio is None else folder / audio,
        status=reader.status(),
        start=reader.seconds("start"),
        duration=reader.seconds("duration"),
        split=reader.required_text("split"),
        label=reader.text("label"),
        source=reader.text("source") or "",
        dataset_version=reader.text("dataset_version"),
        extra=reader.mapping("extra"),
    )


class _Row:
    """Typed access to one row; every complaint names the line and the field."""

    def __init__(self, row: dict[str, Any], where: str) -> None:
        self.row, self.where = row, where

    def wrong(self, key: str, expected: str) -> UserError:
        return UserError(f"{self.where}: field '{key}' must be {expected}, got {self.row.get(key)!r:.80}.")

    def text(self, key: str) -> str | None:
        value = self.row.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, "a string or null")
        if value is not None and "\0" in value:
            raise self.wrong(key, "a string without zero bytes")
        return value or None

    def required_text(self, key: str) -> str:
        value = self.text(key)
        if value is None or not value.strip():
            raise self.wrong(key, "a string that is not empty")
        return value

    def captions(self) -> tuple[str, ...]:
        value = self.row.get("captions", [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong("captions", "a list of strings")
        if not all(item.strip() for item in value):
            raise self.wrong("captions", "a list without empty captions (delete them)")
        return tuple(value)

    def status(self) -> dict[str, str]:
        value = self.mapping("status")
        if not set(value) <= {"text", "video", "audio"} or not all(item in STATUSES for item in value.values()):
            raise self.wrong("status", f"an object from 'video' and 'audio' to one of {', '.join(STATUSES)}")
        return value

    def seconds(self, key: str) -> float | None:
        value = self.row.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise self.wrong(key, "a number of seconds, at least 0, or null")
        return float(value)

    def mapping(self, key: str) -> dict[str, Any]:
        value = self.row.get(key) or {}
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return value
