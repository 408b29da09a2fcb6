"""The cache of decoded media on disk: the same samples as without it, never a stale one, and damage heals."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mover.config import DataConfig
from mover.data import Clip, ClipDataset, media, media_cache
from mover.data.collate import Sample
from mover.data.decoded import decode_video
from mover.data.media_cache import DiskStore
from mover.errors import UserError

PART = {"start": 0.5, "duration": 1.0}


@pytest.fixture
def own(clips: list[Clip], media_folder: Path, tmp_path: Path) -> list[Clip]:
    """Four clips with files that a test may change: two whole ones, a part, and one with its sound in another file."""
    for number in range(4):
        shutil.copy(media_folder / f"clip{number}.mp4", tmp_path)
    shutil.copy(media_folder / "clip9.mp4", tmp_path / "sound.mp4")
    found = [replace(c, video=tmp_path / c.video.name, audio=tmp_path / c.video.name) for c in clips[:4]]
    return [*found[:2], replace(found[2], **PART), replace(found[3], audio=tmp_path / "sound.mp4")]


def build(clips: Sequence[Clip], folder: Path, training: bool = True, **options: Any) -> ClipDataset:
    fields = {"frames": 4, "image_size": 16, "audio_seconds": 1.0, "workers": 2, "manifest": folder / "m.jsonl"}
    config = DataConfig(**{**fields, "cache": "disk", **options})
    return ClipDataset(clips, config, ("video", "audio"), None, training=training, missing="drop", progress=False)


def samples(clips: Sequence[Clip], folder: Path, **options: Any) -> list[Sample | None]:
    dataset = build(clips, folder, **options)
    dataset.prepare()
    return [dataset.sample(index, epoch) for epoch in range(3) for index in range(len(dataset))]


def same(first: Sequence[Sample | None], second: Sequence[Sample | None]) -> bool:
    def equal(a: Sample | None, b: Sample | None) -> bool:
        if a is None or b is None:
            return a is b
        (pcm, length), (other, count) = a.values["audio"], b.values["audio"]
        return np.array_equal(a.values["video"], b.values["video"]) and np.array_equal(pcm, other) and length == count

    return len(first) == len(second) and all(map(equal, first, second))


def files(folder: Path) -> list[Path]:
    return sorted((folder / "m.media-cache").rglob("*.safetensors"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the media files that were opened, one for each time."""
    names: list[str] = []
    plain = media.av.open

    def note(name, *arguments, **options):
        names.append(os.path.basename(name))
        return plain(name, *arguments, **options)

    monkeypatch.setattr(media.av, "open", note)
    return names


@pytest.mark.parametrize("training", [True, False])
def test_samples_are_the_same_with_every_cache(own: list[Clip], tmp_path: Path, training: bool) -> None:
    plain = samples(own, tmp_path, cache="none", training=training)
    assert all(sample is not None for sample in plain)
    for options in ({"cache": "memory"}, {}, {}, {"workers": 0}):
        assert same(plain, samples(own, tmp_path, training=training, **options)), options
    assert len(files(tmp_path)) == 8
    assert (len({sample.values["video"].tobytes() for sample in plain}) > 4) == training


def test_every_file_is_decoded_once_and_later_runs_decode_nothing(own, tmp_path: Path, opened: list[str]) -> None:
    samples([*own, *(replace(clip, id=f"{clip.id} again") for clip in own)], tmp_path)
    assert sorted(opened) == ["clip0.mp4"] * 2 + ["clip1.mp4"] * 2 + ["clip2.mp4"] * 2 + ["clip3.mp4", "sound.mp4"]
    opened.clear()
    samples(own, tmp_path)
    moved = tmp_path / "moved.mp4"
    own[0].video.rename(moved)
    samples([replace(own[0], video=moved, audio=moved)], tmp_path)
    assert not opened, "a file is known by its content"


def test_without_a_cache_a_sample_opens_each_file_once_and_lists_no_folder(own, tmp_path, opened, monkeypatch) -> None:
    dataset = build(own, tmp_path, cache="none")
    dataset.sample(0)
    opened.clear()

    def refused(*arguments):
        raise AssertionError("a folder was listed")

    monkeypatch.setattr(os, "listdir", refused)
    monkeypatch.setattr(os, "scandir", refused)
    dataset.sample(3)
    assert sorted(opened) == ["clip3.mp4", "sound.mp4"]
    dataset.sample(0)
    assert opened[2:] == ["clip0.mp4"] * 2, "for its picture and for its sound"


@pytest.mark.parametrize("kind", ["other content", "same size, other time", "same size and time"])
def test_a_changed_file_is_never_served_stale(own: list[Clip], media_folder: Path, tmp_path: Path, kind: str) -> None:
    path = own[0].video
    content = path.read_bytes()
    other = (media_folder / "clip7.mp4").read_bytes()
    if kind != "other content":
        longest = max(len(content), len(other))
        content, other = (part + bytes(8) * 0 + _free(longest - len(part)) for part in (content, other))
        assert len(content) == len(other)
    path.write_bytes(content)
    stamp = path.stat().st_mtime_ns
    before = samples(own[:1], tmp_path)
    path.write_bytes(other)
    if kind == "same size and time":  # on a file system whose clock is coarse
        os.utime(path, ns=(stamp, stamp))
    after = samples(own[:1], tmp_path)
    assert same(after, samples(own[:1], tmp_path, cache="none")) and not same(before, after)
    path.write_bytes(content)
    assert same(samples(own[:1], tmp_path), before) and len(files(tmp_path)) == 4, "the first content is known still"


def _free(count: int) -> bytes:
    """An mp4 box of free space, `count` bytes in all, 0 or at least 8."""
    return b"" if count == 0 else count.to_bytes(4, "big") + b"free" + bytes(count - 8)


@pytest.mark.parametrize(
    ("options", "fresh"),
    [({"image_size": 24}, 4), ({"sample_rate": 8000}, 4), ({"cache_frames_per_second": 4.0}, 4), ({"frames": 3}, 0)],
)
def test_a_changed_setting_is_never_served_stale(own, tmp_path: Path, options: dict[str, Any], fresh: int) -> None:
    samples(own, tmp_path)
    changed = samples(own, tmp_path, **options)
    assert len(files(tmp_path)) == 8 + fresh
    assert same(changed, samples(own, tmp_path, **{**options, "cache": "memory"}))
    if "cache_frames_per_second" not in options:
        assert same(changed, samples(own, tmp_path, **{**options, "cache": "none"}))


def test_parts_and_library_versions_have_files_of_their_own(own, tmp_path: Path, monkeypatch) -> None:
    samples(own[:1], tmp_path)
    samples([replace(own[0], **PART)], tmp_path)
    samples([replace(own[0], duration=9.0)], tmp_path)  # information only, without a start
    assert len(files(tmp_path)) == 4
    monkeypatch.setattr(media_cache.av, "__version__", "0")
    samples(own[:1], tmp_path)
    assert len(files(tmp_path)) == 6


@pytest.mark.parametrize("damage", ["cut", "emptied", "header", "gone", "other"])
def test_damage_heals(own: list[Clip], tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = samples(own, tmp_path)
    dataset = build(own, tmp_path)
    dataset.prepare()
    victims = files(tmp_path)
    for path in victims:
        content = path.read_bytes()
        if damage == "gone":
            path.unlink()
        elif damage == "other":
            from safetensors.numpy import save_file

            save_file({"x": np.zeros(3)}, path)
        else:
            path.write_bytes({"cut": content[:-100], "emptied": b"", "header": b"\xff" * 64 + content[64:]}[damage])
    with caplog.at_level(logging.WARNING):
        found = [dataset.sample(index, epoch) for epoch in range(3) for index in range(len(dataset))]
    assert same(found, expected)
    assert all(f"{path.name} cannot be read" in caplog.text for path in victims)
    assert len(files(tmp_path)) == 8
    caplog.clear()
    assert same(samples(own, tmp_path), expected) and not caplog.records


def test_a_damaged_list_of_hashes_does_no_harm(own: list[Clip], tmp_path: Path, opened: list[str]) -> None:
    expected = samples(own, tmp_path)
    (tmp_path / "m.media-cache" / "fingerprints.json").write_text("{")
    opened.clear()
    assert same(samples(own, tmp_path), expected) and not opened


def test_unusable_media_are_faults(own: list[Clip], tmp_path: Path) -> None:
    own[1].video.write_bytes(b"")
    own[2].video.unlink()
    silent = replace(own[3], audio=None)
    plain, cached = (samples(own[:3], tmp_path, cache=cache) for cache in ("none", "disk"))
    assert same(plain, cached) and cached[1] is None and cached[2] is None
    dataset = build(own[:3], tmp_path)
    dataset.prepare()
    for index in range(3):
        dataset.sample(index)
    assert {name: reason.split("(status ")[1].split(")")[0] for name, reason in dataset.skipped.items()} == {
        "clip1": "corrupt", "clip2": "missing",
    }  # fmt: skip
    store = DiskStore([silent], dataset.config, ("video", "audio"), False)
    assert store.entries[0].pcm is None and not store.entries[0].faults


def test_fewer_frames(own: list[Clip], tmp_path: Path, make) -> None:
    config = DataConfig(image_size=16, cache_frames_per_second=2.0)
    video = decode_video(own[0], config)  # 8 frames a second for 2 s
    assert video.times.tolist() == [0.0, 0.5, 1.0, 1.5] and video.duration == pytest.approx(2.0)
    assert [round(float(frame.mean())) for frame in video.pixels] == pytest.approx([0, 16, 32, 48], abs=2)
    slow = replace(own[0], video=make.write(tmp_path / "slow.mp4", make.grey([10, 90, 170]), [0.0, 1.0, 2.0]))
    kept = decode_video(slow, config.model_copy(update={"cache_frames_per_second": 25.0}))
    assert len(kept.pixels) == 3, "a frame that stays is kept once"
    np.testing.assert_allclose(kept.times, [0.0, 1.0, 2.0], atol=0.04)
    small = samples(own, tmp_path, cache_frames_per_second=2.0)
    assert same(small, samples(own, tmp_path, cache="memory", cache_frames_per_second=2.0))


def test_no_room(own: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_cache, "_FIRST", 2)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(media_cache.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"data\.cache: \d more files would take .*cache_frames_per_second"):
        build(own, tmp_path, workers=1).prepare()
    monkeypatch.undo()
    before = len(files(tmp_path))
    assert 2 <= before < 8, "it was said early"

    def full(tensors: object, path: str) -> None:
        from safetensors import SafetensorError

        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(UserError, match=r"cannot be written: I/O error: No space left.*Make room"):
        build(own, tmp_path).prepare()
    assert not list((tmp_path / "m.media-cache").rglob(".partial*"))
    monkeypatch.undo()
    assert same(samples(own, tmp_path), samples(own, tmp_path, cache="none")) and len(files(tmp_path)) == 8


def test_a_folder_that_cannot_be_made(own: list[Clip], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(UserError, match=r"data\.cache: .*taken cannot be written"):
        build(own, tmp_path, cache_folder=tmp_path / "taken").prepare()


def test_filling_goes_on_where_it_stopped(own: list[Clip], tmp_path: Path, monkeypatch, opened: list[str]) -> None:
    plain, calls = media_cache._write, []

    def stops(path: Path, tensors) -> int:
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(path, tensors)

    monkeypatch.setattr(media_cache, "_write", stops)
    with pytest.raises(KeyboardInterrupt):
        build(own, tmp_path, workers=1).prepare()
    monkeypatch.setattr(media_cache, "_write", plain)
    done = len(files(tmp_path))
    opened.clear()
    samples(own, tmp_path)
    assert done >= 3 and len(opened) == 8 - done


def test_two_at_once(own: list[Clip], tmp_path: Path) -> None:
    stores = [DiskStore(own, build(own, tmp_path).config, ("video", "audio"), False) for _ in range(2)]
    assert len(files(tmp_path)) == 8
    times = np.array([0.1, 0.9])
    for one, two in zip(stores[0].entries, stores[1].entries, strict=True):
        np.testing.assert_array_equal(one.video.at(times), two.video.at(times))


def test_where_it_lies() -> None:
    assert DataConfig(manifest=Path("a/data.jsonl")).cache_path("media") == Path("a/data.media-cache")
    assert DataConfig(cache_folder=Path("b")).cache_path("media") == Path("b")
