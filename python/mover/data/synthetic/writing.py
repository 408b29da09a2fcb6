"""Frames and samples to an mp4 file: H.264 video and AAC audio, the same bytes for the same input."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_CONTAINER = {"fflags": "+bitexact", "movflags": "+faststart"}
_VIDEO = {"preset": "ultrafast", "crf": "18", "threads": "1"}
_AUDIO = {"aac_coder": "fast", "b": "64000"}


def write_mp4(path: Path, frames: np.ndarray, fps: int, samples: np.ndarray, rate: int) -> None:
    """Write a clip.

    frames: uint8 (F, H, W, 3), red-green-blue, even sides.
    samples: float32 (n,) in [-1, 1], mono, at `rate` per second.
    Encoders run in the calling thread only.
    """
    with av.open(str(path), "w", format="mp4", container_options=_CONTAINER) as container:
        video = container.add_stream("libx264", rate=fps, options=_VIDEO)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=rate, layout="mono", options=_AUDIO)
        for position, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = position, Fraction(1, fps)
            container.mux(video.encode(picture))
        container.mux(video.encode())
        sound = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts = rate, 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode())
