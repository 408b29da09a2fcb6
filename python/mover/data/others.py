"""Reading the modalities that a run adds to text, video and audio: images, and features computed elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mover.config import FeatureTowerConfig, ImageTowerConfig
from mover.data.clip import IMAGE_EXTENSIONS, Clip, Reference
from mover.data.features import read_features
from mover.data.limits import LIMITS, Limits
from mover.data.media import MediaError, read_image
from mover.errors import UserError

Others = Mapping[str, ImageTowerConfig | FeatureTowerConfig]
"""Modality to its section under `model.others`: what the files hold is what its tower takes."""


def read_other(
    reference: Reference, tower: ImageTowerConfig | FeatureTowerConfig, image_size: int, limits: Limits = LIMITS
) -> np.ndarray:
    """An image, uint8 (3, image_size, image_size), or features, float32 (T, tower.input_size) with T >= 1.

    Of more than `tower.length` rows of features, the middle one of each of as many equal parts is taken; a vector
    (input_size,) is one row. Raises MediaError naming the file: not there, unreadable, or of another shape.
    """
    if isinstance(tower, ImageTowerConfig):
        return read_image(reference.path, image_size, limits)
    values = read_features(reference, limits)
    rows = values[None] if values.ndim == 1 else values
    if rows.ndim != 2 or rows.shape[1] != tower.input_size or len(rows) == 0:
        place = "its features" if reference.row is None else f"its features at {reference.row!r}"
        width = tower.input_size
        raise MediaError(
            reference.path, "corrupt", f"{place} have the shape {values.shape}, expected ({width},) or (rows, {width})"
        )
    most = tower.length
    if most is not None and len(rows) > most:
        rows = rows[((np.arange(most) + 0.5) * (len(rows) / most)).astype(np.int64)]
    return rows


def check_kinds(clips: Sequence[Clip], others: Others) -> None:
    """Raises UserError where a clip has a feature file for a modality of images, or the other way round."""
    for name, tower in others.items():
        for clip in clips:
            reference = clip.others.get(name)
            if reference is None:
                continue
            found = "image" if reference.path.suffix.lower() in IMAGE_EXTENSIONS else "features"
            if found != tower.kind:
                what = {"image": "an image", "features": "a file of features"}[found]
                raise UserError(
                    f"model.others.{name}.kind is {tower.kind}, but clip '{clip.id}' has {what}, {reference.path}. "
                    f"Set the kind to {found}, or correct the manifest."
                )
