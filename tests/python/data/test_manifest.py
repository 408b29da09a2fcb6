"""The manifest: what is written is read back, and every bad row is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mover.data import Clip, Reference, read_manifest, select_split, write_manifest
from mover.errors import UserError


def test_round_trip_and_moving_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    clips = [
        Clip("-Ab_1", ("a dog", "ein Hund über ☃"), folder / "videos" / "-Ab_1.mp4", Path("/elsewhere/a.wav")),
        Clip(
            "b c",
            (),
            status={"video": "missing", "audio": "corrupt"},
            start=1.5,
            duration=10.0,
            split="val",
            label="7",
            source="x",
            dataset_version="2",
            extra={"url": "u", "n": [1, 2]},
        ),
    ]
    write_manifest(folder / "manifest.jsonl", clips)
    assert read_manifest(folder / "manifest.jsonl") == clips
    assert json.loads((folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()[0])["video"] == (
        "videos/-Ab_1.mp4"
    )
    shutil.move(folder, tmp_path / "moved")
    moved = read_manifest(tmp_path / "moved" / "manifest.jsonl")[0]
    assert moved.video == tmp_path / "moved" / "videos" / "-Ab_1.mp4" and moved.audio == Path("/elsewhere/a.wav")


def test_further_modalities(tmp_path: Path) -> None:
    clip = Clip(
        "a",
        ("x",),
        status={"depth": "corrupt"},
        others={
            "image": Reference(tmp_path / "images" / "a b.JPG"),
            "notes": Reference(Path("/elsewhere/n.safetensors"), "a/1"),
            "depth": Reference(tmp_path / "depth.npy", 0),
            "clip_l14": Reference(tmp_path / "whole.npy"),
        },
    )
    write_manifest(tmp_path / "m.jsonl", [clip])
    assert json.loads((tmp_path / "m.jsonl").read_text())["others"] == {
        "image": "images/a b.JPG",
        "notes": {"file": "/elsewhere/n.safetensors", "row": "a/1"},
        "depth": {"file": "depth.npy", "row": 0},
        "clip_l14": "whole.npy",
    }
    assert read_manifest(tmp_path / "m.jsonl") == [clip]
    assert clip.modalities() == ("text", "image", "notes", "clip_l14")
    assert clip.media("notes") == Path("/elsewhere/n.safetensors") and clip.media("smell") is None
    assert [clip.present(name) for name in ("image", "depth", "smell", "video")] == [True, False, False, False]


def test_defaults_may_be_left_out_and_are(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    full = {
        "id": "a", "captions": [], "video": None, "audio": None, "status": {}, "start": None, "duration": None,
        "split": "train", "label": None, "source": "", "dataset_version": None, "extra": {}, "others": {},
    }  # fmt: skip
    path.write_text("\ufeff " + json.dumps(full) + " \r\n" + '{"id": "b", "split": "train"}', encoding="utf-8")
    clips = read_manifest(path)
    assert clips == [Clip("a"), Clip("b")]
    write_manifest(path, clips)
    assert path.read_text().splitlines() == [
        '{"id": "a", "captions": [], "split": "train"}',
        '{"id": "b", "captions": [], "split": "train"}',
    ]


def test_one_file_for_picture_and_sound(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(
        '{"id": "a", "split": "t", "video": "a.mp4", "audio": "a.mp4"}\n{"id": "b", "split": "t", "video": "a.mp4"}\n'
        '{"id": "c", "split": "t", "audio": "c.wav"}\n{"id": "d", "split": "t", "video": "d.mp4", "audio": "d.wav"}\n'
    )
    assert [(clip.video and clip.video.name, clip.audio and clip.audio.name) for clip in read_manifest(path)] == [
        ("a.mp4", "a.mp4"), ("a.mp4", None), (None, "c.wav"), ("d.mp4", "d.wav")
    ]  # fmt: skip


def test_half_a_character_under_extra_survives(tmp_path: Path) -> None:
    clip = Clip("a", ("☃",), extra={"note": "\ud83d"})
    write_manifest(tmp_path / "m.jsonl", [clip, Clip("b", ("☃",))])
    assert read_manifest(tmp_path / "m.jsonl")[0] == clip
    assert "☃" in (tmp_path / "m.jsonl").read_text(encoding="utf-8").splitlines()[1]


def test_present() -> None:
    clip = Clip("a", (), Path("a.mp4"), Path("a.mp4"), {"audio": "no_audio_track"})
    assert [clip.present(modality) for modality in ("text", "video", "audio")] == [False, True, False]
    assert not Clip("a", ("x",)).present("video") and Clip("a", ("x",)).present("text")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, [Clip("a", ("x",))])
    with pytest.raises(ValueError):
        write_manifest(path, [Clip("b", ("x",), start=float("nan"))])
    assert [clip.id for clip in read_manifest(path)] == ["a"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest.jsonl"]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("{", "not a JSON object"),
        ("[1]", "expected a JSON object"),
        ('{"captions": ["x"], "split": "t"}', "'id'"),
        ('{"id": " ", "split": "t"}', "'id'"),
        ('{"id": 3, "split": "t"}', "'id'"),
        ('{"id": "b"}', "'split'"),
        ('{"id": "b", "split": "t", "captions": "x"}', "'captions'"),
        ('{"id": "b", "split": "t", "captions": ["x", " "]}', "empty captions"),
        ('{"id": "b", "split": "t", "captions": [null]}', "'captions'"),
        ('{"id": "b", "split": "t", "video": 1}', "'video'"),
        ('{"id": "b", "split": "t", "video": "a\\u0000b"}', "'video'"),
        ('{"id": "b", "split": "t", "status": {"video": "lost"}}', "'status'"),
        ('{"id": "b", "split": "t", "status": {"smell": "ok"}}', "'status'"),
        ('{"id": "b", "split": "t", "start": -1}', "'start'"),
        ('{"id": "b", "split": "t", "duration": NaN}', "NaN"),
        ('{"id": "b", "split": "t", "duration": true}', "'duration'"),
        ('{"id": "b", "split": "t", "extra": [1]}', "'extra'"),
        ('{"id": "b", "split": "t", "audio": ["a"]}', "field 'audio' must be a string or null, got ['a']"),
        ('{"id": "b", "split": "t", "label": 3}', "field 'label' must be a string or null, got 3"),
        ('{"id": "b\\u0000", "split": "t"}', "field 'id' must be a string that is not empty, without zero bytes"),
        ('{"id": "b", "split": "\\t"}', "field 'split' must be a string that is not empty"),
        ('{"id": "b", "split": "t"} {}', "Extra data"),
        ('{"id": "b", "split": "t", "x": ' + "[" * 100_000, "not a JSON object"),
        ('{"id": "b", "split": "t", "others": {"Depth": "a.npy"}}', "names are of a-z, 0-9 and _"),
        ('{"id": "b", "split": "t", "others": {"video": "a.npy"}}', "and not text, video or audio"),
        ('{"id": "b", "split": "t", "others": {"depth": 3}}', 'from names to "FILE" or {"file": "FILE", "row": ROW}'),
        ('{"id": "b", "split": "t", "others": {"depth": ""}}', '"FILE" or {"file"'),
        ('{"id": "b", "split": "t", "others": {"depth": {"file": "a.npy"}}}', '"FILE" or {"file"'),
        ('{"id": "b", "split": "t", "others": {"depth": "a.mp4"}}', "images (.jpg, .png, …), .npy files"),
        ('{"id": "b", "split": "t", "others": {"depth": {"file": "a.npy", "row": -1}}}', "a row from 0"),
        ('{"id": "b", "split": "t", "others": {"depth": {"file": "a.npy", "row": true}}}', "a row from 0"),
        ('{"id": "b", "split": "t", "others": {"depth": "a.safetensors"}}', "the name of a tensor as row"),
        ('{"id": "b", "split": "t", "others": {"depth": {"file": "a.png", "row": 0}}}', "images (.jpg, .png, …)"),
        ('{"id": "b", "split": "t", "status": {"depth": "ok"}}', "'video', 'audio' and names under 'others'"),
        ('{"id": "b", "split": "t", "caption": "x"}', "unknown field 'caption'"),
        ('{"id": "a", "split": "t"}', "'a' is on line 1 too"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: str, field: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"id": "a", "split": "t"}\n\n' + row + "\n")
    with pytest.raises(UserError) as caught:
        read_manifest(path)
    assert f"{path}, line 3" in str(caught.value) and field in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no manifest"):
        read_manifest(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="no rows"):
        read_manifest(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "\xe9"}')
    with pytest.raises(UserError, match="UTF-8"):
        read_manifest(tmp_path / "latin.jsonl")
    with pytest.raises(UserError, match="cannot be read"):
        read_manifest(tmp_path)


def test_select_split() -> None:
    clips = [Clip("a", split="train"), Clip("b", split="val"), Clip("c", split="train")]
    assert [clip.id for clip in select_split(clips, "train")] == ["a", "c"]
    with pytest.raises(UserError, match=r"'test'.*train, val"):
        select_split(clips, "test")
