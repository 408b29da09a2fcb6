"""Media files made on the spot, small and real."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 16000


class MediaMaker:
    """Writes media files; handed to the tests as the fixture `make`."""

    rate = RATE

    @staticmethod
    def grey(levels: Sequence[int], height: int = 32, width: int = 32) -> np.ndarray:
        """uint8 (F, height, width, 3): one even grey per frame."""
        return np.stack([np.full((height, width, 3), level, np.uint8) for level in levels])

    @staticmethod
    def write(
        path: Path,
        frames: np.ndarray | None = None,
        times: Sequence[float] | None = None,
        samples: np.ndarray | None = None,
        rate: int = RATE,
        layout: str = "mono",
        codecs: tuple[str, str] = ("libx264", "aac"),
        delay: float = 0.0,
        options: dict[str, str] | None = None,
    ) -> Path:
        """A file with the frames at these times (default: 8 a second) and the samples, (channels, n) or (n,).

        The name says the container. codecs: of video and audio. delay: seconds before the first sample. options: of
        the container.
        """
        with av.open(str(path), "w", options={"movflags": "+faststart"} if options is None else options) as container:
            if frames is not None:
                tuned = {"preset": "ultrafast", "crf": "1", "threads": "1"} if codecs[0] == "libx264" else {}
                video = container.add_stream(codecs[0], rate=8, options=tuned)
                video.height, video.width = frames.shape[1:3]
                video.pix_fmt, video.bit_rate = ("rgb24" if codecs[0] == "png" else "yuv420p"), 2_000_000
                video.codec_context.time_base = Fraction(1, 8 if codecs[0] == "mpeg4" else 1000)
            if samples is not None:
                audio = container.add_stream(codecs[1], rate=rate, layout=layout)
            if frames is not None:
                starts = np.arange(len(frames)) / 8 if times is None else times
                for pixels, time in zip(frames, starts, strict=True):
                    picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                    unit = video.codec_context.time_base
                    picture.pts, picture.time_base = round(time / unit), unit
                    container.mux(video.encode(picture))
                container.mux(video.encode())
            if samples is not None:
                sound = av.AudioFrame.from_ndarray(
                    np.atleast_2d(samples).astype(np.float32), format="fltp", layout=layout
                )
                sound.sample_rate, sound.pts = rate, round(delay * rate)
                if audio.codec_context.format.name != "fltp":
                    convert = av.AudioResampler(format=audio.codec_context.format, layout=layout, rate=rate)
                    (sound,) = convert.resample(sound)
                container.mux(audio.encode(sound))
                container.mux(audio.encode())
        return path

    @staticmethod
    def tone(seconds: float, rate: int = RATE, frequency: float = 440.0) -> np.ndarray:
        """float32 (n,): a sine of amplitude .5."""
        return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)
