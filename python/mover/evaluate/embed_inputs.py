"""What a file of embeddings depends on, as short values that tell whether a file, or a part of one, is still right."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import torch

import mover
from mover.config import Config, DataConfig
from mover.data.clip import Clip
from mover.data.fingerprint import State, file_state
from mover.data.manifest_row import line_of
from mover.data.tokenizer import Tokenizer
from mover.train.checkpoint import ARCHITECTURE, MODEL

NAMES = {
    "mover": "another version of mover's code",
    "weights": "other weights",
    "settings": "other settings of the model or of reading media",
    "tokenizer": "another tokenizer",
    "split": "another split",
    "missing": "another policy for missing media",
    "clips": "other clips, captions or labels",
    "media": "other media files, or files that have changed since",
}
"""The parts of what a file depends on, and how a difference reads."""
_FOLLOWS = {"split": ("clips", "media"), "clips": ("media",)}
"""What differs anyway where something else does."""
_READ = ("frames", "image_size", "sample_rate", "audio_seconds", "max_tokens")


class MediaStates:
    """The sizes and times of change of the files of one modality, clip after clip, as they are now."""

    def __init__(self, clips: Iterable[Clip], modality: str) -> None:
        self._lines: list[bytes] = []
        known: dict[Path, State] = {}
        for clip in clips:
            path = clip.media(modality)
            assert path is not None
            if path not in known:
                known[path] = file_state(path)
            self._lines.append(json.dumps([clip.id, known[path]]).encode() + b"\n")
        self._hash, self._count = hashlib.sha256(), 0

    def __len__(self) -> int:
        return len(self._lines)

    def digest(self, count: int) -> str:
        """Of the first `count` clips, or of all that there are."""
        count = min(count, len(self._lines))
        if count < self._count:
            self._hash, self._count = hashlib.sha256(), 0
        for line in self._lines[self._count : count]:
            self._hash.update(line)
        self._count = count
        return self._hash.hexdigest()


def media_states(clips: Sequence[Clip], modalities: Iterable[str]) -> dict[str, MediaStates]:
    """Of every modality but text, the files of the clips that have it as far as the manifest knows."""
    return {m: MediaStates((clip for clip in clips if clip.present(m)), m) for m in modalities if m != "text"}


def weights_hash(folder: Path) -> str:
    """SHA-256 of the weights of a checkpoint."""
    with open(folder / MODEL, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_hash(package: Path = Path(mover.__file__).parent) -> str:
    """Of the modules that read clips and embed them: an edit may change rows without a new version."""
    digest = hashlib.sha256()
    for path in sorted((*package.glob("data/*.py"), *package.glob("models/*.py"), package / "evaluate" / "embed.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def identity(folder: Path) -> tuple[int, ...]:
    """What tells whether the weights of a checkpoint are still the same file."""
    state = os.stat(folder / MODEL)
    return state.st_ino, state.st_size, state.st_mtime_ns


def inputs_of(
    folder: Path,
    config: Config,
    data: DataConfig,
    clips: Sequence[Clip],
    tokenizer: Tokenizer | None,
    media: Mapping[str, MediaStates],
    *,
    split: str,
    missing: str,
    weights: str,
) -> dict[str, str]:
    """The values of `NAMES`. Neither the place of the data nor how it is computed is among them.

    Args:
        folder: of the checkpoint. config: of its run. data: what is read now.
        clips: of the split.
        weights: hash of the checkpoint's weights.
    """
    sampled = data.cache_frames_per_second if data.cache in ("memory", "disk") else None
    settings = {
        "model": config.model.model_dump(mode="json"),
        "modalities": config.modalities,
        "precision": config.train.precision,
        "read": {name: getattr(data, name) for name in _READ} | {"frames_per_second": sampled},
        "architecture": (folder / ARCHITECTURE).read_text(encoding="utf-8"),
    }
    below = os.path.join(os.path.abspath(data.manifest.parent), "")
    return {
        "mover": f"{mover.__version__} {code_hash()}",
        "weights": weights,
        "settings": _digest(settings),
        "tokenizer": "" if tokenizer is None else tokenizer.fingerprint(),
        "split": split,
        "missing": missing,
        "clips": _digest([line_of(clip, below) for clip in clips]),
        "media": _digest({m: states.digest(len(states)) for m, states in media.items()}),
    }


def computation_of(config: Config, device: torch.device, batch_size: int) -> dict[str, Any]:
    """What changes the last digits only, which the rows of one file should share."""
    return {
        "batch_size": batch_size,
        "device": device.type,
        "feature_cache": config.data.cache == "features",
        "torch": str(torch.__version__),
        "transformers": version("transformers"),
        "decoder": f"PyAV {av.__version__}",
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any], leave_out: Sequence[str] = ()) -> list[str]:
    """In words, in what two values of `inputs_of` or of `computation_of` differ."""
    changed = [name for name in new if name not in leave_out and old.get(name) != new[name]]
    for cause, effects in _FOLLOWS.items():
        changed = [name for name in changed if cause not in changed or name not in effects]
    return [NAMES.get(name) or f"{name} {old.get(name)} (now {new[name]})" for name in changed]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
