"""JSON lists as VAST and GRAM use them: any id key, one caption or many, and hostile entries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mover.data.clip import Reference
from mover.data.importers import IMPORTERS
from mover.errors import UserError

vast = IMPORTERS["vast-json"]
Write = Callable[..., Path]


def test_any_id_and_any_caption(write: Write, media: Write) -> None:
    path = write(
        "annotations150k.json",
        [
            {"clip_id": "-c.1", "video_id": "v", "desc": "desc first", "caption": "kept", "subtitle": "hi", "url": "u"},
            {"video_id": "Santa Motor.wav", "caption": ["one", "two"]},
            {"image_id": 42, "vast_cap": "a picture"},
            {"image": "train/x.jpg", "desc": ["a picture"]},
            {"id": "i", "desc": "gone", "vision_cap": ["a"], "audio_cap": ["b"]},
        ],
    )
    folder = media("-c.1.mp4", "Santa Motor.wav", "42.jpg", "train/x.jpg")
    clips = vast(path, folder)
    assert [(clip.id, clip.captions) for clip in clips] == [
        ("-c.1", ("desc first",)),
        ("Santa Motor", ("one", "two")),
        ("42", ("a picture",)),
        ("train/x", ("a picture",)),
        ("i", ("gone",)),
    ]
    assert clips[0].video == clips[0].audio == folder / "-c.1.mp4"
    assert clips[0].extra == {"video_id": "v", "caption": "kept", "subtitle": "hi", "url": "u"}
    assert clips[1].audio == folder / "Santa Motor.wav" and clips[1].status == {"video": "missing"}
    assert clips[2].others == {"image": Reference(folder / "42.jpg")} and clips[2].status == {}
    assert clips[2].modalities() == ("text", "image") and clips[3].others["image"].path == folder / "train" / "x.jpg"
    assert clips[4].status == {"video": "missing", "audio": "missing"} and clips[4].extra["vision_cap"] == ["a"]
    assert {clip.split for clip in clips} == {"train"}


def test_rows_with_one_caption_each_are_joined(write: Write, media: Write) -> None:
    path = write(
        "x_test.json", [{"id": "a", "desc": "one"}, {"id": "b", "desc": "x"}, {"id": "a", "desc": "two", "n": 1}]
    )
    clips = vast(path, media("a.mp4"))
    assert [(clip.id, clip.captions, clip.split) for clip in clips] == [
        ("a", ("one", "two"), "test"),
        ("b", ("x",), "test"),
    ]
    assert clips[0].extra == {"n": 1}


def test_files_name_their_splits(write: Write, media: Write) -> None:
    for part in ("test", "trainval", "val"):
        path = write(f"descs_ret_{part}.json", [{"video_id": part, "desc": "x"}])
    write("caption_annotation.json", {"unrelated": 1})
    clips = vast(path.parent, media("val.mp4", folder="v"), audio=media("val.mp3", folder="a"))
    assert [(clip.id, clip.split) for clip in clips] == [("trainval", "train"), ("val", "val"), ("test", "test")]
    assert clips[1].video.name == "val.mp4" and clips[1].audio.name == "val.mp3"
    assert vast(path, media("val.mp4"), split="dev")[0].split == "dev"
    with pytest.raises(UserError, match="Leave --split out, or name one file"):
        vast(path.parent, media("val.mp4"), split="test")
    write("descs_cap_test.json", [])
    with pytest.raises(
        UserError, match="several files for one split: descs_cap_test.json, descs_ret_test.json. Name one"
    ):
        vast(path.parent, media("val.mp4"))
    with pytest.raises(UserError, match="no file ends in _train.json, _val.json or _test.json"):
        vast(media("val.mp4"), media("val.mp4"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, r"x.json: expected a list of objects, got \{'a': 1\}"),
        ([], r"x.json: expected a list of objects, got \[\]"),
        (["a"], r"x.json, \[0\]: expected an object, got 'a'"),
        ([{"desc": "x"}], r"\[0\]: no id: expected one of clip_id, video_id, image_id, image, id"),
        ([{"id": "a"}], r"\[0\]: no caption: expected one of desc, caption, vast_cap"),
        ([{"id": True, "desc": "x"}], r"\[0\]: 'id' must be a string that is not empty, got True"),
        ([{"id": "a/../../b", "desc": "x"}], r"\[0\]: 'id' leads out of the media folder: 'a/../../b'"),
        ([{"id": "C:b", "desc": "x"}], r"\[0\]: 'id' leads out of the media folder"),
        ([{"id": "a", "desc": ""}], r"\[0\]: 'desc' must be a string that is not empty, got ''"),
        ([{"id": "a", "desc": {"x": 1}}], r"\[0\]: 'desc' must be a string that is not empty"),
        ([{"id": "a", "desc": ["x", 3]}], r"\[0\]: 'desc\[1\]' must be a string that is not empty, got 3"),
        ([{"id": "a", "desc": ["x"]}, {"id": "a.mp4", "desc": "y"}], r"\[1\]: the id 'a' occurs twice, first at .*0\]"),
    ],
)  # fmt: skip
def test_hostile(write: Write, media: Write, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        vast(write("x.json", content), media("a.mp4"))
