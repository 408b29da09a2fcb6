"""Looking at one part of a media file: whether it can be used, and what there is to know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mover.data.clip import IMAGE_EXTENSIONS, Clip, Reference
from mover.data.features import read_features
from mover.data.limits import LIMITS, Limits, size_of_file
from mover.data.media import MediaError, glance, read_image, read_pcm, scan_video

_RATE = 16000
_SILENT = 4
"""Samples of 16 bits whose size never exceeds this, 78 dB below full scale, are silence."""


@dataclass(frozen=True)
class Part:
    """What a clip has of one modality: the whole of a file, a stretch of time, or a row.

    kind: "video", "audio", "image" or "features".
    """

    kind: str
    path: Path
    start: float | None = None
    duration: float | None = None
    row: int | str | None = None


@dataclass(frozen=True)
class Finding:
    """What was found: one of `mover.data.clip.STATUSES`; why, where it is not "ok"; facts, such as seconds.

    facts: of video frames, seconds, width, height; of audio seconds, and `silent` where nothing can be heard; of
    features their shape. glanced: only headers were looked at, and these may give the seconds.
    """

    status: str
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    glanced: bool = False


def parts_of(clip: Clip) -> dict[str, Part]:
    """Modality to the part of a file that the clip names for it."""
    start, duration = clip.stretch
    parts = {}
    for modality, path in (("video", clip.video), ("audio", clip.audio)):
        if path is not None:
            parts[modality] = Part(modality, path, start, duration)
    for name, reference in clip.others.items():
        kind = "image" if reference.path.suffix.lower() in IMAGE_EXTENSIONS else "features"
        parts[name] = Part(kind, reference.path, row=reference.row)
    return parts


def check(part: Part, quick: bool = False, limits: Limits = LIMITS) -> Finding:
    """Read the part as training would, all of it. quick: only the headers of video and audio."""
    glanced = quick and part.kind in ("video", "audio")
    try:
        size_of_file(part.path)
        return Finding("ok", facts=_glanced(part, limits) if glanced else _read(part, limits), glanced=glanced)
    except MediaError as error:
        return Finding(error.status, error.detail, glanced=glanced)
    except FileNotFoundError:
        return Finding("missing", "there is no such file", glanced=glanced)
    except Exception as error:  # libraries have errors of their own; whatever it is, the clip cannot be used
        return Finding("corrupt", f"it cannot be read: {error or type(error).__name__}", glanced=glanced)


def _glanced(part: Part, limits: Limits) -> dict[str, Any]:
    return dict(glance(part.path, part.kind, start=part.start, duration=part.duration, limits=limits))


def _read(part: Part, limits: Limits) -> dict[str, Any]:
    if part.kind == "video":
        return dict(scan_video(part.path, start=part.start, duration=part.duration, limits=limits))
    if part.kind == "audio":
        pcm = read_pcm(part.path, _RATE, start=part.start, duration=part.duration, limits=limits)
        silent = max(int(pcm.max()), -int(pcm.min())) <= _SILENT
        return {"seconds": len(pcm) / _RATE, **({"silent": True} if silent else {})}
    if part.kind == "image":
        read_image(part.path, 8, limits)
        return {}
    features = read_features(Reference(part.path, part.row), limits)
    return {"shape": list(np.shape(features))}
