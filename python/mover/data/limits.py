"""How much of one file is taken into memory: what is larger is refused by its header, or as soon as it shows.

A file of a few kilobytes can claim, or decode to, more than any machine has.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from mover.config import DataConfig
from mover.data.media_error import MediaError

_BYTES_OF_A_PIXEL = 8
"""Four channels of 16 bits: no picture needs more on disk, whatever its format."""


@dataclass(frozen=True)
class Limits:
    """max_pixels: of one image or video frame. max_clip_bytes: of the frames, the samples or the features of a clip."""

    max_pixels: int = DataConfig.model_fields["max_pixels"].default
    max_clip_bytes: int = DataConfig.model_fields["max_clip_bytes"].default

    @classmethod
    def of(cls, config: DataConfig) -> Limits:
        return cls(config.max_pixels, config.max_clip_bytes)

    def check_picture(self, path: Path, width: int, height: int) -> None:
        """Raises MediaError ("too_large") for more pixels than `max_pixels`."""
        if width * height > self.max_pixels:
            raise MediaError(
                path,
                "too_large",
                f"a picture of {width} x {height} pixels, more than data.max_pixels, {self.max_pixels}",
            )

    def check_bytes(self, path: Path, count: float, what: str) -> None:
        """Raises MediaError ("too_large") for more bytes than `max_clip_bytes`; `what` they are of."""
        if count > self.max_clip_bytes:
            raise MediaError(
                path, "too_large", f"its {what} take more than data.max_clip_bytes, {self.max_clip_bytes} bytes"
            )

    def check_image_file(self, path: Path, size: int) -> None:
        """Raises MediaError ("too_large") for a file that is larger than any image of `max_pixels`."""
        if size > _BYTES_OF_A_PIXEL * self.max_pixels + (1 << 20):
            raise MediaError(path, "too_large", f"an image file of {size} bytes, too large for data.max_pixels pixels")


LIMITS = Limits()


def size_of_file(path: Path) -> int:
    """Bytes of a regular file. Raises MediaError for anything else, a device or a pipe of which there is no end, and
    OSError or ValueError where there is nothing of that name."""
    state = os.stat(path)
    if not stat.S_ISREG(state.st_mode):
        raise MediaError(path, "corrupt", "it is not a file")
    return state.st_size
