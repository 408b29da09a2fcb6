"""Decoding: which frame is shown when, and what is said about files that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mover.data.media import MediaError, read_audio, read_pcm, read_video, shown_at
from mover.data.sampling import frame_times

RATE = 16000


def levels(pixels: np.ndarray) -> list[int]:
    """Mean brightness of each frame."""
    return [round(float(frame.mean())) for frame in pixels]


def at(*times: float):
    return lambda duration: np.array(times)


def test_all_frames_in_order(media_folder: Path) -> None:
    video = read_video(media_folder / "clip0.mp4", 32)
    assert video.pixels.shape == (16, 3, 32, 32) and video.pixels.dtype == np.uint8
    assert video.duration == pytest.approx(2.0)
    np.testing.assert_allclose(video.times, np.arange(16) / 8, atol=1e-6)
    np.testing.assert_allclose(levels(video.pixels), 4 * np.arange(16), atol=2)


def test_a_frame_is_shown_from_the_moment_it_begins() -> None:
    starts = np.array([0.25, 0.5, 1.0])
    assert shown_at(starts, np.array([0.0, 0.25, 0.49, 0.5, 1.0, 9.0])).tolist() == [0, 0, 0, 1, 2, 2]


def test_variable_frame_rate_goes_by_presentation_time(make, tmp_path: Path) -> None:
    # Three frames in the first tenth of a second, then one that stays for most of the clip.
    times = [0.0, 0.05, 0.1, 1.7, 1.9]
    path = make.write(tmp_path / "vfr.mp4", make.grey([20, 60, 100, 140, 180]), times)
    video = read_video(path, 32)
    np.testing.assert_allclose(video.times, times, atol=1e-6)
    wanted = np.array([0.02, 0.09, 0.5, 1.0, 1.65, 1.75, 1.95])
    expected = [20, 60, 100, 100, 100, 140, 180]
    np.testing.assert_allclose(levels(video.at(wanted)), expected, atol=2)
    np.testing.assert_allclose(levels(read_video(path, 32, at(*wanted)).pixels), expected, atol=2)


def test_streaming_and_whole_decoding_agree(make, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    starts = np.round(np.sort(random.choice(3000, 40, replace=False)) / 1000, 3)
    path = make.write(tmp_path / "agree.mkv", make.grey(list(range(10, 210, 5))), list(starts))
    whole = read_video(path, 16)
    for _ in range(10):
        wanted = random.uniform(0, whole.duration, size=7)  # not sorted
        np.testing.assert_array_equal(read_video(path, 16, at(*wanted)).pixels, whole.at(wanted))


def test_first_frame_also_serves_the_time_before_it(make, tmp_path: Path) -> None:
    path = make.write(tmp_path / "late.mp4", make.grey([50, 150]), [0.5, 1.0], make.tone(1.5))
    np.testing.assert_allclose(levels(read_video(path, 32, at(0.0, 0.4, 1.1)).pixels), [50, 50, 150], atol=2)


def test_shorter_side_is_scaled_and_the_centre_kept(make, tmp_path: Path) -> None:
    frames = make.grey([0, 0], height=64, width=128)
    frames[:, :, :32] = (255, 0, 0)
    frames[:, :, 96:] = (0, 0, 255)
    video = read_video(make.write(tmp_path / "wide.mp4", frames), 32)
    assert video.pixels.shape == (2, 3, 32, 32)
    assert video.pixels[:, :, :, 4:28].max() < 30, "the coloured sides lie outside the central square"


def test_part_of_a_longer_file(make, tmp_path: Path) -> None:
    samples = np.concatenate([make.tone(2.0) * 0, make.tone(2.0)])
    path = make.write(tmp_path / "long.mp4", make.grey(list(range(0, 128, 4))), samples=samples)
    video = read_video(path, 32, start=2.0, duration=1.0)
    assert video.duration == pytest.approx(1.0)
    np.testing.assert_allclose(levels(video.pixels), 4 * np.arange(16, 24), atol=2)
    np.testing.assert_allclose(levels(read_video(path, 32, at(0.3), start=2.0, duration=1.0).pixels), [72], atol=2)
    audio = read_audio(path, RATE, start=2.1, duration=1.0)
    assert len(audio) == RATE and np.sqrt(np.mean(audio**2)) == pytest.approx(0.35, abs=0.03)
    silent = read_audio(path, RATE, start=0.5, duration=1.0)
    assert np.abs(silent).max() < 0.01
    assert len(read_audio(path, RATE, start=3.5, duration=10.0)) == RATE // 2
    with pytest.raises(MediaError, match="starts at 9") as caught:
        read_video(path, 32, start=9.0)
    assert caught.value.status == "too_short"


def test_audio_is_resampled_and_averaged(make, tmp_path: Path) -> None:
    both = np.stack([make.tone(1.0, 44100), np.zeros(44100, np.float32)])
    path = make.write(tmp_path / "stereo.mp4", samples=both, rate=44100, layout="stereo")
    audio = read_audio(path, RATE)
    assert audio.dtype == np.float32 and abs(len(audio) - RATE) <= 2
    spectrum = np.abs(np.fft.rfft(audio[:RATE]))
    assert int(spectrum.argmax()) == 440
    assert np.sqrt(np.mean(audio**2)) == pytest.approx(0.25 / np.sqrt(2), rel=0.05)
    np.testing.assert_array_equal(audio, read_pcm(path, RATE).astype(np.float32) / 32768)


@pytest.mark.parametrize("name", ["-dashes first.mp4", "naïve ☃ 雪.mp4", "a:b 100%d.mp4", "file:x.mp4", "it's.mp4"])
def test_names(make, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make.write(tmp_path / "plain.mp4", make.grey([1, 2]), samples=make.tone(0.5)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(read_video(Path(name), 16).pixels) == 2
    assert len(read_audio(Path(name), RATE)) > 0


@pytest.fixture(scope="module")
def broken_files(make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Files that cannot be used, each with the status it should get."""
    folder = tmp_path_factory.mktemp("broken")
    whole = make.write(folder / "whole.mp4", make.grey(list(range(0, 240, 2))), samples=make.tone(15.0)).read_bytes()
    contents = {
        "empty": b"",
        "text": b"this is not a video\n" * 100,
        "head": whole[:200],
        "header": whole[:400],
        "half": whole[: len(whole) // 2],
        "noise": whole[:40] + bytes(range(256)) * 20,
    }
    for name, content in contents.items():
        (folder / f"{name}.mp4").write_bytes(content)
    (folder / "folder.mp4").mkdir()
    statuses = dict.fromkeys([*contents, "folder"], "corrupt") | {"absent": "missing"}
    return {name: (folder / f"{name}.mp4", status) for name, status in statuses.items()}


@pytest.mark.parametrize("name", ["empty", "text", "head", "header", "half", "noise", "folder", "absent"])
def test_unusable_files_are_named_with_status_and_remedy(broken_files, name: str) -> None:
    path, status = broken_files[name]
    for read in (lambda: read_video(path, 16), lambda: read_audio(path, RATE)):
        with pytest.raises(MediaError) as caught:
            read()
        assert caught.value.status == status and caught.value.path == path
        assert str(path) in str(caught.value) and "drop the clip" in str(caught.value)


def test_half_a_file_is_corrupt_for_sampling_too(broken_files) -> None:
    path, _ = broken_files["half"]
    with pytest.raises(MediaError, match=r"ends at .* of 15\.00 s"):
        read_video(path, 16, lambda duration: frame_times(duration, 4, None))


def test_missing_tracks(make, tmp_path: Path) -> None:
    with pytest.raises(MediaError) as caught:
        read_audio(make.write(tmp_path / "silent.mp4", make.grey([1, 2])), RATE)
    assert caught.value.status == "no_audio_track"
    sound = make.write(tmp_path / "sound.mp4", samples=make.tone(1.0))
    assert len(read_audio(sound, RATE)) == RATE
    with pytest.raises(MediaError, match="no video track"):
        read_video(sound, 16)


def test_audio_that_is_too_short(make, tmp_path: Path) -> None:
    with pytest.raises(MediaError) as caught:
        read_audio(make.write(tmp_path / "click.mp4", samples=make.tone(0.05)), RATE)
    assert caught.value.status == "too_short"


def test_files_are_closed(media_folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        read_video(media_folder / "clip0.mp4", 16, at(0.1))
        read_audio(media_folder / "clip0.mp4", RATE)
        with pytest.raises(MediaError):
            read_audio(media_folder / "none.mp4", RATE)
    assert len(os.listdir("/proc/self/fd")) == before
