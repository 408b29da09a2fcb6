"""A clip as small pictures: three frames side by side, the spectrogram of its sound; or a word on why there is none."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np

from mover.data.clip import IMAGE_EXTENSIONS, Clip
from mover.data.media import pcm_to_float, read_image, read_pcm, read_video
from mover.data.media_error import MediaError
from mover.data.sampling import frame_times

FRAMES, SIDE = 3, 88
"""Of a video: frames, and the side of each in pixels."""
SOUND_WIDTH, SOUND_HEIGHT = 264, 64
"""Of a spectrogram, in pixels at most."""
_SOUND_SECONDS = 30.0
_QUIET, _LOUD = -1.2, 0.75
"""Ends of the colours, in the units of the filter bank; the floor of silence is at -2.4."""


@dataclass(frozen=True)
class Thumbnail:
    """modality: what it shows. image: a data URI, None where there is none. problem: why not, in words."""

    modality: str
    image: str | None
    problem: str = ""


def thumbnails(clip: Clip, modalities: tuple[str, ...]) -> tuple[Thumbnail, ...]:
    """One for each of the modalities but text; nothing a file may hold is an error."""
    found = []
    for modality in modalities:
        if modality == "text":
            continue
        path = clip.media(modality)
        if path is None or not clip.present(modality):
            status = clip.status.get(modality, "missing")
            found.append(Thumbnail(modality, None, f"no {modality} ({'missing' if status == 'ok' else status})"))
            continue
        try:
            if modality == "video":
                found.append(Thumbnail(modality, _frames(clip)))
            elif modality == "audio":
                found.append(Thumbnail(modality, _sound(clip)))
            elif path.suffix.lower() in IMAGE_EXTENSIONS:
                found.append(Thumbnail(modality, _jpeg(read_image(path, SIDE).transpose(1, 2, 0))))
            else:
                found.append(Thumbnail(modality, None, f"{modality}: numbers, no picture"))
        except MediaError as error:
            found.append(Thumbnail(modality, None, f"{modality} cannot be read ({error.status})"))
    return tuple(found)


def _frames(clip: Clip) -> str:
    """The middle frames of three equal parts, side by side."""
    assert clip.video is not None
    start, duration = clip.stretch
    pixels = read_video(
        clip.video, SIDE, lambda total: frame_times(total, FRAMES, None), start=start, duration=duration
    ).pixels  # (3, 3, S, S)
    return _jpeg(np.concatenate(list(pixels.transpose(0, 2, 3, 1)), axis=1))


def _sound(clip: Clip) -> str:
    """The log-mel spectrogram, low tones at the bottom, time to the right; at most half a minute of it."""
    import torch
    from matplotlib import colormaps

    from mover.models.filterbank import MEL_BINS, SAMPLE_RATE, FilterBank

    assert clip.audio is not None
    start, duration = clip.stretch
    pcm = read_pcm(clip.audio, SAMPLE_RATE, start=start, duration=duration)[: int(_SOUND_SECONDS * SAMPLE_RATE)]
    features = FilterBank()(torch.from_numpy(pcm_to_float(pcm))[None])[0].numpy()  # (T, 128)
    width = min(SOUND_WIDTH, len(features))
    columns = np.add.reduceat(features, np.arange(width) * len(features) // width, axis=0)
    counts = np.diff(np.append(np.arange(width) * len(features) // width, len(features)))
    means = (columns / counts[:, None]).reshape(width, SOUND_HEIGHT, MEL_BINS // SOUND_HEIGHT).mean(2)
    shade = np.clip((means.T[::-1] - _QUIET) / (_LOUD - _QUIET), 0, 1)  # (64, width)
    return _jpeg(colormaps["magma"](shade, bytes=True)[..., :3])


def _jpeg(image: np.ndarray) -> str:
    """uint8 (height, width, 3) as a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="jpeg", quality=72, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
