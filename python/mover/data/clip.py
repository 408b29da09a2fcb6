"""A clip: one row of the manifest, the one thing everything after the importers knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STATUSES = ("ok", "missing", "no_audio_track", "corrupt", "too_short", "too_large")
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FEATURE_EXTENSIONS = (".npy", ".safetensors")


@dataclass(frozen=True)
class Reference:
    """Where a modality besides text, video and audio lies: an image, or features.

    path: an image (`IMAGE_EXTENSIONS`) or a feature file (`FEATURE_EXTENSIONS`).
    row: which part of a feature file is the clip's: a position along the first axis of a .npy file, or the name of a
        tensor of a .safetensors file. None for the whole of a .npy file and for an image.
    """

    path: Path
    row: int | str | None = None


class _MediaPath:
    """A field that holds a path, or its text until it is first looked at: making paths takes longer than the rest of
    reading a manifest. A value that is not given is None."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, clip: Clip | None, owner: type) -> Path | None:
        if clip is None:
            return None  # the default of the field
        value = vars(clip)[self._name]
        if isinstance(value, str):
            value = vars(clip)[self._name] = Path(value)
        return value

    def __set__(self, clip: Clip, value: Path | None) -> None:
        vars(clip)[self._name] = value


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
    others: further modalities, by a name of their own ("image", "notes", "depth", …).
    """

    id: str
    captions: tuple[str, ...] = ()
    video: Path | None = _MediaPath()  # type: ignore[assignment]
    audio: Path | None = _MediaPath()  # type: ignore[assignment]
    status: dict[str, str] = field(default_factory=dict)
    start: float | None = None
    duration: float | None = None
    split: str = "train"
    label: str | None = None
    source: str = ""
    dataset_version: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Reference] = field(default_factory=dict)

    @property
    def stretch(self) -> tuple[float | None, float | None]:
        """The part of the file that is the clip: its start and duration, or None for both where it is the whole file.
        Without a start, `duration` is information only."""
        return self.start, None if self.start is None else self.duration

    def present(self, modality: str) -> bool:
        """Whether the clip has this modality, as far as the manifest knows (no file is opened)."""
        if modality == "text":
            return bool(self.captions)
        return self.media(modality) is not None and self.status.get(modality, "ok") == "ok"

    def media(self, modality: str) -> Path | None:
        """The file of a modality other than text, or None."""
        if modality in ("video", "audio"):
            return self.video if modality == "video" else self.audio
        reference = self.others.get(modality)
        return None if reference is None else reference.path

    def modalities(self) -> tuple[str, ...]:
        """The modalities that are present: text, video and audio first, then the others in their order."""
        return tuple(name for name in ("text", "video", "audio", *self.others) if self.present(name))
