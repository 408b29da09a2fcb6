"""Importers: the published formats with their quirks, and hostile annotations."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mover.data.importers import IMPORTERS
from mover.data.media_index import MediaIndex
from mover.errors import UserError

msrvtt, audiocaps = IMPORTERS["msrvtt"], IMPORTERS["audiocaps"]


def touch(folder: Path, *names: str) -> Path:
    """A folder with empty files; importers never open media."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def write_msrvtt(folder: Path, videos: Sequence[Any], sentences: Sequence[Any]) -> Path:
    path = folder / "MSRVTT_data.json"
    path.write_text(json.dumps({"videos": videos, "sentences": sentences}), encoding="utf-8")
    return path


def video(name: str, split: str = "train", **more: Any) -> dict[str, Any]:
    return {
        "video_id": name,
        "split": split,
        "category": 3,
        "url": "http://x",
        "start time": 2.5,
        "end time": 12.5,
    } | more


def sentence(name: str, caption: str = "a dog") -> dict[str, Any]:
    return {"video_id": name, "caption": caption, "sen_id": 0}


def test_msrvtt_keeps_all_captions_order_and_splits(tmp_path: Path) -> None:
    media = touch(tmp_path / "videos", "video2.MP4", "video0.mp4", "other.txt")
    write_msrvtt(
        tmp_path,
        [video("video2"), video("video0", "validate"), video("video1", "test")],
        [sentence("video0", "one "), sentence("video2", "two"), sentence("video0", "three"), sentence("video1")],
    )
    clips = msrvtt(tmp_path, media)  # the folder stands for the file in it
    assert [(clip.id, clip.split, clip.captions) for clip in clips] == [
        ("video2", "train", ("two",)),
        ("video0", "val", ("one", "three")),
        ("video1", "test", ("a dog",)),
    ]
    first, _, last = clips
    assert first.video == first.audio == media / "video2.MP4" and first.status == {"video": "ok", "audio": "ok"}
    assert first.start is None and first.duration == 10.0 and first.label == "3"
    assert last.video is None and last.status == {"video": "missing", "audio": "missing"}


def test_msrvtt_split_lists(tmp_path: Path) -> None:
    media = touch(tmp_path / "videos", *(f"video{n}.mp4" for n in range(4)))
    path = write_msrvtt(tmp_path, [video(f"video{n}") for n in range(4)], [sentence(f"video{n}") for n in range(4)])
    train, test = tmp_path / "MSRVTT_train.9k.csv", tmp_path / "MSRVTT_JSFUSION_test.csv"
    train.write_text("\ufeffvideo_id\r\nvideo3\r\nvideo0\r\n\r\n", encoding="utf-8")
    test.write_text('key,vid_key,video_id,sentence\nret0,msr2,video2,"a man, running"\n')
    clips = msrvtt(path, media, split_lists={"train": train, "test": test})
    assert [(clip.id, clip.split, clip.captions) for clip in clips] == [
        ("video0", "train", ("a dog",)),
        ("video2", "test", ("a man, running",)),
        ("video3", "train", ("a dog",)),
    ]
    train.write_text("video_id\nvideo2\n")
    with pytest.raises(UserError, match="line 2: video_id 'video2' is already in the split 'train'"):
        msrvtt(path, media, split_lists={"train": train, "test": test})
    train.write_text("video_id\nvideo9\n")
    with pytest.raises(UserError, match="line 2: video_id 'video9' is not in"):
        msrvtt(path, media, split_lists={"train": train})
    train.write_text("id\nvideo0\n")
    with pytest.raises(UserError, match="must name a column 'video_id', got id"):
        msrvtt(path, media, split_lists={"train": train})


def test_msrvtt_separate_audio_folder(tmp_path: Path) -> None:
    write_msrvtt(tmp_path, [video("video0")], [sentence("video0")])
    (clip,) = msrvtt(tmp_path, touch(tmp_path / "v", "video0.mp4"), audio=touch(tmp_path / "a", "video0.wav"))
    assert clip.video == tmp_path / "v" / "video0.mp4" and clip.audio == tmp_path / "a" / "video0.wav"


@pytest.mark.parametrize(
    ("videos", "sentences", "message"),
    [
        ([video("v")], [sentence("v", " ")], r"sentences\[0\]: 'caption'"),
        ([video("v")], [sentence("w")], r"sentences\[0\]: video_id 'w'"),
        ([video("v")], [], "'v' has no sentence"),
        ([video("v"), video("v")], [sentence("v")], r"videos\[1\]: video_id 'v' occurs twice"),
        ([video("v", split="")], [sentence("v")], r"videos\[0\]: 'split'"),
        ([{"split": "train"}], [sentence("v")], r"videos\[0\]: 'video_id'"),
        (["v"], [], r"videos\[0\]"),
        ([], [], "'videos' is empty"),
        ([video("x")], [sentence("x")], "Not one clip was found"),
        ([video("v", **{"start time": "zero"})], [sentence("v")], None),
    ],
)
def test_msrvtt_hostile(tmp_path: Path, videos: list[Any], sentences: list[Any], message: str | None) -> None:
    media = touch(tmp_path / "videos", "v.mp4")
    path = write_msrvtt(tmp_path, videos, sentences)
    if message is None:
        assert msrvtt(path, media)[0].duration is None
        return
    with pytest.raises(UserError, match=message):
        msrvtt(path, media)


def test_unreadable_annotations(tmp_path: Path) -> None:
    media = touch(tmp_path / "videos", "v.mp4")
    path = tmp_path / "MSRVTT_data.json"
    for content, message in (
        (b'{"videos": [', "not valid JSON"),
        (b"[]", "lists 'videos'"),
        (b"\xff\xfe\xfa", "UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            msrvtt(path, media)
    with pytest.raises(UserError, match=r"none\.json cannot be read"):
        msrvtt(tmp_path / "none.json", media)
    write_msrvtt(tmp_path, [video("v")], [sentence("v")])
    with pytest.raises(UserError, match="media folder"):
        msrvtt(path, tmp_path / "nowhere")


HEADER = "audiocap_id,youtube_id,start_time,caption\n"


def test_audiocaps(tmp_path: Path) -> None:
    # Ids that start with a dash, a quoted line break, several captions, three ways to name a file.
    media = touch(tmp_path / "wav", "-0Gj8-vB1q4.wav", "Yabc.flac", "xyz_30.mp4", "77.wav")
    (tmp_path / "train.csv").write_text(HEADER + '1,-0Gj8-vB1q4,30,A dog barks\n2,abc,0,"Rain, then\nthunder"\n')
    (tmp_path / "test.csv").write_text(HEADER + "3,xyz,30,A car\n4,xyz,30,An engine\n77,last,5.0,Wind\n78,gone,1,Sea\n")
    clips = audiocaps(tmp_path, media)
    assert [(clip.id, clip.split, clip.captions) for clip in clips] == [
        ("-0Gj8-vB1q4", "train", ("A dog barks",)),
        ("abc", "train", ("Rain, then\nthunder",)),
        ("xyz", "test", ("A car", "An engine")),
        ("last", "test", ("Wind",)),
        ("gone", "test", ("Sea",)),
    ]
    assert [clip.audio and clip.audio.name for clip in clips] == [
        "-0Gj8-vB1q4.wav", "Yabc.flac", "xyz_30.mp4", "77.wav", None
    ]  # fmt: skip
    assert clips[0].video is None and clips[2].video == media / "xyz_30.mp4"
    assert clips[4].status == {"audio": "missing"} and clips[0].start is None


def test_audiocaps_several_clips_of_one_upload(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text(HEADER + "1,abc,0,A dog\n2,abc,20,A cat\n")
    cut = audiocaps(tmp_path / "val.csv", touch(tmp_path / "cut", "abc_0.wav", "abc_20.wav"))
    assert [(clip.id, clip.audio.name) for clip in cut] == [("abc_0", "abc_0.wav"), ("abc_20", "abc_20.wav")]
    whole = audiocaps(tmp_path / "val.csv", touch(tmp_path / "whole", "abc.wav"), untrimmed=True)
    assert [(clip.id, clip.start, clip.duration) for clip in whole] == [("abc_0", 0.0, 10.0), ("abc_20", 20.0, 10.0)]
    assert {clip.audio.name for clip in whole} == {"abc.wav"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (HEADER + "1,a,0, \n", "line 2: column 'caption' is empty"),
        (HEADER + "1,,0,x\n", "line 2: column 'youtube_id' is empty"),
        (HEADER + "1,a,soon,x\n", "line 2: 'start_time' must be a number"),
        (HEADER + "1,a,-3,x\n", "line 2: 'start_time' must be a number"),
        (HEADER + "1,a,0,A dog, barking\n", "line 2: expected 4 fields, got 5"),
        (HEADER, "no rows"),
        ("", "must name a column"),
        ("youtube_id,caption\na,x\n", "must name a column 'audiocap_id'"),
    ],
)
def test_audiocaps_hostile(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "train.csv").write_text(rows)
    with pytest.raises(UserError, match=message):
        audiocaps(tmp_path, touch(tmp_path / "wav", "a.wav"))


def test_audiocaps_same_clip_in_two_splits(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_text(HEADER + "1,a,0,x\n")
    with pytest.raises(UserError, match="'a' is in 'train' too"):
        audiocaps(tmp_path, touch(tmp_path / "wav", "a.wav"))
    with pytest.raises(UserError, match=r"expected train\.csv"):
        audiocaps(tmp_path / "wav", tmp_path / "wav")


def test_media_index(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "café")
    folder = touch(tmp_path / "m", "a.wav", "a.mp4", "b.c.mp4", f"{name}.mp4", ".mp4", "-x.mp4", "with space.mp4", "d")
    (folder / "sub.mp4").mkdir()
    index = MediaIndex(folder)
    assert index.find("a") == folder / "a.mp4" and MediaIndex(folder, (".wav", ".mp4")).find("a") == folder / "a.wav"
    assert index.find("b.c") == folder / "b.c.mp4" and index.find("b") is None
    assert index.find("café") == folder / f"{name}.mp4"
    assert index.find("-x") and index.find("with space") and not index.find("sub") and not index.find("d")
    assert index.find("none", "a") == folder / "a.mp4"
