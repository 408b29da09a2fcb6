"""Clips as small pictures: the frames of the file, and the tones where they sound."""

import base64
import io
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mover.data.manifest import Clip, Reference
from mover.data.media import read_video
from mover.data.sampling import frame_times
from mover.report.thumbnails import SIDE, SOUND_HEIGHT, SOUND_WIDTH, thumbnails


def picture(uri: str | None) -> np.ndarray:
    assert uri is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_three_frames_side_by_side(clips: list[Clip]) -> None:
    found = thumbnails(clips[0], ("text", "video"))
    assert [t.modality for t in found] == ["video"]
    assert clips[0].video is not None
    frames = read_video(clips[0].video, SIDE, lambda total: frame_times(total, 3, None)).pixels
    expected = np.concatenate(list(frames.transpose(0, 2, 3, 1)), axis=1)
    image = picture(found[0].image)
    assert image.shape == (SIDE, 3 * SIDE, 3)
    assert np.abs(image.astype(int) - expected).mean() < 12  # what JPEG leaves


@pytest.mark.parametrize(("low", "high"), [(300, 3000)])
def test_a_tone_that_rises_goes_up_to_the_right(tmp_path: Path, low: float, high: float) -> None:
    times = np.arange(32000) / 16000
    tones = np.where(times < 1, np.sin(2 * np.pi * low * times), np.sin(2 * np.pi * high * times))
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((20000 * tones).astype("<i2").tobytes())
    image = picture(thumbnails(Clip("tone", audio=tmp_path / "tone.wav"), ("audio",))[0].image).sum(-1)
    assert image.shape[0] == SOUND_HEIGHT and image.shape[1] <= SOUND_WIDTH
    left, right = (int(half.mean(1).argmax()) for half in np.split(image[:, : image.shape[1] // 2 * 2], 2, axis=1))
    assert left > 40 and right < 25 and right < left  # row 0 is the top


def test_images_and_features(tmp_path: Path) -> None:
    Image.new("RGB", (200, 120), (250, 10, 10)).save(tmp_path / "photo.png")
    np.save(tmp_path / "notes.npy", np.zeros((1, 4), dtype=np.float32))
    others = {"photo": Reference(tmp_path / "photo.png"), "notes": Reference(tmp_path / "notes.npy", 0)}
    photo, notes, depth = thumbnails(Clip("c", others=others), ("photo", "notes", "depth"))
    assert picture(photo.image).shape == (SIDE, SIDE, 3) and picture(photo.image)[..., 0].min() > 230
    assert (notes.image, notes.problem) == (None, "notes: numbers, no picture")
    assert (depth.image, depth.problem) == (None, "no depth (missing)")


def test_a_short_sound_is_as_wide_as_it_is_long(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "short.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.zeros(4000, dtype="<i2").tobytes())  # silence: the floor of the filter bank
    image = picture(thumbnails(Clip("s", audio=tmp_path / "short.wav"), ("audio",))[0].image)
    assert image.shape == (SOUND_HEIGHT, 23, 3) and image.max() < 40
