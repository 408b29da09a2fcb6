"""The manifest: what is written is read back, and every bad row is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mover.data import Clip, read_manifest, select_split, write_manifest
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
        ('{"id": "b", "split": "t", "duration": NaN}', "'duration'"),
        ('{"id": "b", "split": "t", "duration": true}', "'duration'"),
        ('{"id": "b", "split": "t", "extra": [1]}', "'extra'"),
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
