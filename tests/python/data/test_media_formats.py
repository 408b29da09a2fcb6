"""Containers and codecs, tracks that begin late or end early, files cut short, and whatever else lies in a folder."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from mover.data import media
from mover.data.media import MediaError, read_pcm, read_video

RATE = 16000
BRIGHTER = list(range(0, 160, 4))  # 40 frames, 5 s
VIDEOS = [
    ("mp4", ("libx264", "aac"), 44100),
    ("mkv", ("libx264", "flac"), 16000),
    ("webm", ("libvpx", "libopus"), 48000),
    ("avi", ("mpeg4", "libmp3lame"), 44100),
    ("mov", ("mpeg4", "pcm_s16le"), 8000),
    ("ts", ("libx264", "aac"), 48000),
    ("flv", ("libx264", "aac"), 44100),
]
SOUNDS = [("wav", "pcm_s16le"), ("mp3", "libmp3lame"), ("flac", "flac"), ("m4a", "aac"), ("ogg", "libopus")]


def levels(pixels: np.ndarray) -> list[int]:
    """Mean brightness of each frame."""
    return [round(float(frame.mean())) for frame in pixels]


def pitch(pcm: np.ndarray) -> int:
    """Frequency of the strongest tone, Hz."""
    return round(float(np.abs(np.fft.rfft(pcm)).argmax()) * RATE / len(pcm))


def strength(pcm: np.ndarray) -> float:
    """Root of the mean square, of full scale."""
    return float(np.sqrt(np.mean((pcm / 32768) ** 2)))


def status_of(read, *arguments, **options) -> str:
    try:
        read(*arguments, **options)
    except MediaError as error:
        return error.status
    return "ok"


@pytest.fixture(scope="module")
def videos(make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Five seconds in every container, brighter by 4 with every frame, a tone of 440 Hz."""
    folder = tmp_path_factory.mktemp("formats")
    return {
        kind: make.write(
            folder / f"clip.{kind}", make.grey(BRIGHTER), samples=make.tone(5.0, rate), rate=rate, codecs=codecs
        )
        for kind, codecs, rate in VIDEOS
    }


@pytest.fixture(scope="module")
def sounds(make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Five seconds of 440 Hz, both channels alike."""
    folder = tmp_path_factory.mktemp("sounds")
    paths = {}
    for kind, codec in SOUNDS:
        rate = 48000 if codec == "libopus" else 44100
        both = np.stack([make.tone(5.0, rate)] * 2)
        paths[kind] = make.write(folder / f"clip.{kind}", samples=both, rate=rate, layout="stereo", codecs=("", codec))
    return paths


@pytest.mark.parametrize("kind", [kind for kind, _, _ in VIDEOS])
def test_containers(videos: dict[str, Path], kind: str) -> None:
    video = read_video(videos[kind], 16)
    assert video.duration == pytest.approx(5.0, abs=0.15)
    np.testing.assert_allclose(levels(video.at(np.array([1.05, 3.05, 4.8]))), [32, 96, 152], atol=6)
    pcm = read_pcm(videos[kind], RATE)
    assert len(pcm) == pytest.approx(5 * RATE, abs=0.06 * RATE) and pitch(pcm) in (439, 440)
    assert strength(pcm) == pytest.approx(0.354, abs=0.03)


@pytest.mark.parametrize("kind", [kind for kind, _, _ in VIDEOS])
def test_a_part_is_what_the_whole_has_there(videos: dict[str, Path], kind: str) -> None:
    whole = read_video(videos[kind], 16)
    part = read_video(videos[kind], 16, start=2.0, duration=1.0)
    assert part.duration == pytest.approx(1.0)
    times = np.linspace(0.06, 0.94, 8)
    np.testing.assert_allclose(levels(part.at(times)), levels(whole.at(times + 2)), atol=1)
    streamed = read_video(videos[kind], 16, lambda duration: times, start=2.0, duration=1.0)
    np.testing.assert_array_equal(streamed.pixels, part.at(times))
    pcm = read_pcm(videos[kind], RATE, start=2.0, duration=1.0)
    assert len(pcm) == RATE and pitch(pcm) == 440


@pytest.mark.parametrize("kind", [kind for kind, _ in SOUNDS])
def test_sounds(sounds: dict[str, Path], kind: str) -> None:
    pcm = read_pcm(sounds[kind], RATE)
    assert len(pcm) == pytest.approx(5 * RATE, abs=2) and pitch(pcm) == 440
    part = read_pcm(sounds[kind], RATE, start=2.0, duration=1.0)
    assert len(part) == RATE and pitch(part) == 440
    assert status_of(read_video, sounds[kind], 16) == "corrupt"
    assert status_of(read_pcm, sounds[kind], RATE, start=9.0, duration=1.0) == "too_short"


@pytest.mark.parametrize(("layout", "channels"), [("5.1", 6), ("stereo", 2), ("mono", 1)])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_channels_and_rates(make, tmp_path: Path, layout: str, channels: int, rate: int) -> None:
    samples = np.stack([make.tone(1.0, rate)] * channels)
    pcm = read_pcm(make.write(tmp_path / "a.wav", None, None, samples, rate, layout, ("", "pcm_s16le")), RATE)
    assert abs(len(pcm) - RATE) <= 2 and pitch(pcm) == 440
    assert strength(pcm) == pytest.approx(0.354, abs=0.01), "the mean of equal channels is the channel"


def test_silence_is_sound(make, tmp_path: Path) -> None:
    pcm = read_pcm(make.write(tmp_path / "still.wav", samples=make.tone(1.0) * 0, codecs=("", "pcm_s16le")), RATE)
    assert len(pcm) == RATE and not pcm.any()


def cut(path: Path, share: float, folder: Path) -> Path:
    content = path.read_bytes()
    short = folder / path.name
    short.write_bytes(content[: int(len(content) * share)])
    return short


@pytest.mark.parametrize("kind", ["mp4", "mkv", "webm", "avi"])
def test_videos_cut_short(videos: dict[str, Path], tmp_path: Path, kind: str) -> None:
    for share in (0.05, 0.5):
        short = cut(videos[kind], share, tmp_path)
        assert status_of(read_video, short, 16) == "corrupt"
        assert status_of(read_video, short, 16, lambda duration: np.array([duration / 8])) in ("corrupt", "ok")
    if kind in ("mkv", "webm", "mp4"):
        assert status_of(read_pcm, short, RATE) == "corrupt"


@pytest.mark.parametrize("kind", ["wav", "mp3", "flac", "m4a"])
def test_sounds_cut_short(sounds: dict[str, Path], tmp_path: Path, kind: str) -> None:
    for share in (0.1, 0.5):
        assert status_of(read_pcm, cut(sounds[kind], share, tmp_path), RATE) == "corrupt"
    if kind != "m4a":  # whose index comes last
        assert status_of(read_pcm, cut(sounds[kind], 0.5, tmp_path), RATE, start=0.5, duration=1.0) == "ok"


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_file_written_to_a_pipe_does_not_know_its_size(
    sounds: dict[str, Path], tmp_path: Path, size: int
) -> None:
    content = bytearray(sounds["wav"].read_bytes())
    content[4:8] = struct.pack("<I", size)
    (tmp_path / "piped.wav").write_bytes(content)
    assert len(read_pcm(tmp_path / "piped.wav", RATE)) == 5 * RATE


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_a_sound_that_begins_late_is_silent_until_then(make, tmp_path: Path, kind: str) -> None:
    path = make.write(tmp_path / f"late.{kind}", make.grey(BRIGHTER), samples=make.tone(2.0), delay=3.0)
    pcm = read_pcm(path, RATE)
    assert len(pcm) == pytest.approx(5 * RATE, abs=0.1 * RATE)
    assert not pcm[: int(2.9 * RATE)].any() and strength(pcm[int(3.1 * RATE) :]) > 0.3
    part = read_pcm(path, RATE, start=2.5, duration=1.0)
    assert len(part) == RATE and not part[: RATE * 2 // 5].any() and strength(part[RATE * 3 // 5 :]) > 0.3


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_tracks_of_different_length(make, tmp_path: Path, kind: str) -> None:
    brief = make.write(tmp_path / f"sound.{kind}", make.grey(BRIGHTER), samples=make.tone(2.0))
    assert len(read_video(brief, 16).pixels) == 40
    assert len(read_pcm(brief, RATE)) == pytest.approx(2 * RATE, abs=0.1 * RATE)
    brief = make.write(tmp_path / f"picture.{kind}", make.grey(BRIGHTER[:8]), samples=make.tone(5.0))
    assert read_video(brief, 16).duration == pytest.approx(1.0)
    assert len(read_pcm(brief, RATE)) == pytest.approx(5 * RATE, abs=0.1 * RATE)


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_one_picture_with_a_sound(make, tmp_path: Path, kind: str) -> None:
    path = make.write(tmp_path / f"still.{kind}", make.grey([80]), samples=make.tone(3.0))
    video = read_video(path, 16, lambda duration: np.arange(4) * duration / 4)
    np.testing.assert_allclose(levels(video.pixels), [80] * 4, atol=2)
    assert len(read_pcm(path, RATE)) == pytest.approx(3 * RATE, abs=0.1 * RATE)


@pytest.mark.parametrize("kind", ["mp4", "ts"])
def test_timestamps_below_zero(make, tmp_path: Path, kind: str) -> None:
    times = [-1 + frame / 8 for frame in range(40)]
    path = make.write(
        tmp_path / f"below.{kind}", make.grey(BRIGHTER), times, make.tone(5.0), delay=-1.0,
        options={"avoid_negative_ts": "disabled"},
    )  # fmt: skip
    hidden = 1.0 if kind == "mp4" else 0.0  # the edit list of an mp4 leaves out what lies before zero
    video = read_video(path, 16)
    assert video.times[0] == pytest.approx(0, abs=0.1) and video.duration == pytest.approx(5 - hidden, abs=0.1)
    assert levels(video.at(np.array([2.0])))[0] == pytest.approx(4 * round(8 * (2 + hidden)), abs=5)
    assert len(read_pcm(path, RATE)) == pytest.approx((5 - hidden) * RATE, abs=0.13 * RATE)


def test_frames_out_of_order_and_the_edit_list_that_puts_them_right(make, tmp_path: Path) -> None:
    path = make.write(tmp_path / "shift.mp4", make.grey([20, 60, 100]), [0.5, 1.0, 1.5])
    assert b"elst" in path.read_bytes()
    video = read_video(path, 16)
    np.testing.assert_allclose(np.diff(video.times), 0.5, atol=0.01)
    np.testing.assert_allclose(levels(video.pixels), [20, 60, 100], atol=2)


@pytest.mark.parametrize(
    ("matrix", "left", "right"),
    [
        ((0, 1, -1, 0), "blue", "red"),  # a quarter turn clockwise brings the top to the right
        ((0, -1, 1, 0), "red", "blue"),
        ((-1, 0, 0, -1), "below", "above"),
        ((1, 0, 0, 1), "above", "below"),
    ],
)
def test_videos_that_were_held_upright(make, tmp_path: Path, matrix: tuple, left: str, right: str) -> None:
    frames = np.zeros((4, 32, 64, 3), np.uint8)
    frames[:, :16, :, 0] = frames[:, 16:, :, 2] = 255  # red above blue
    path = make.write(tmp_path / "turned.mp4", frames)
    content = bytearray(path.read_bytes())
    at = content.find(b"tkhd") + 4 + 40
    a, b, c, d = (value * 65536 for value in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    pixels = read_video(path, 32).pixels[0]
    red = {"left": pixels[0, 16, 4], "right": pixels[0, 16, 28], "above": pixels[0, 4, 16], "below": pixels[0, 28, 16]}
    if left in ("red", "blue"):
        assert (red["left"] > 127, red["right"] > 127) == (left == "red", right == "red")
    else:
        assert red["above" if left == "above" else "below"] > 127 > red["below" if left == "above" else "above"]


@pytest.mark.parametrize("shape", [(1, 1), (2, 1000), (1000, 2), (3, 5)])
def test_odd_sizes(make, tmp_path: Path, shape: tuple[int, int]) -> None:
    path = make.write(tmp_path / "odd.mov", make.grey([50, 90, 130], *shape), codecs=("png", ""))
    video = read_video(path, 32)
    assert video.pixels.shape == (3, 3, 32, 32)
    np.testing.assert_allclose(levels(video.pixels), [50, 90, 130], atol=1)


def test_links_and_names(videos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("- a link.mp4", "雪 ☃.mp4", "loop.mp4", "dangling.mp4"):
        target = {"loop.mp4": "loop.mp4", "dangling.mp4": "nowhere.mp4"}.get(name, videos["mp4"])
        os.symlink(target, name)
        expected = {"loop.mp4": "corrupt", "dangling.mp4": "missing"}.get(name, "ok")
        assert status_of(read_video, Path(name), 16) == status_of(read_pcm, Path(name), RATE) == expected, name


def test_what_may_not_be_read_is_said_to_be_so(videos: dict[str, Path], tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(videos["mp4"].read_bytes())
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything: have the system refuse in its place

        def refuse(*arguments, **options):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(media.av, "open", refuse)
    with pytest.raises(MediaError, match=r"secret\.mp4: it cannot be decoded: Permission denied"):
        read_video(path, 16)


def test_other_files_under_the_name_of_a_video(make, tmp_path: Path) -> None:
    contents = {"zero": b"", "playlist": b"#EXTM3U\n#EXTINF:5,\nfile:///etc/hostname\n", "html": b"<html>gone</html>\n"}
    for name, content in contents.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
        assert status_of(read_video, tmp_path / f"{name}.mp4", 16) == "corrupt", name
        assert status_of(read_pcm, tmp_path / f"{name}.mp4", RATE) == "corrupt", name
    picture = make.write(tmp_path / "p.mov", make.grey([90]), codecs=("png", ""))
    assert status_of(read_pcm, picture, RATE) == "no_audio_track"
