"""VATEX: two languages, the lists of HGR, whole uploads, and hostile entries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases.annotations import vatex_entry as entry
from mover.data.importers import IMPORTERS
from mover.errors import UserError

vatex = IMPORTERS["vatex"]
Write = Callable[..., Path]
A, B, C, D = "-Ab_c_000010_000020", "Ptf_2VRj-V0_000122_000132", "xyz_000000_000010", "xyz_000050_000060"


@pytest.fixture
def folder(write: Write) -> Path:
    """A and B to train on, C and D to validate; HGR validates on D and tests on C."""
    write("vatex_training_v1.0.json", [entry(A), entry(B, note="kept")])
    write("trn_names.txt", f"{B}\n{A}\n")
    write("val_names.json", [D])
    path = write("vatex_validation_v1.0.json", [entry(C), entry(D)])
    np.save(path.parent / "tst_names.npy", np.array([C]))
    return path.parent


def test_the_split_of_hgr(folder: Path, media: Write) -> None:
    clips = vatex(folder, media(f"{A}.mp4", f"{B}.webm", f"{D}.mkv"))
    assert [(clip.id, clip.split) for clip in clips] == [(A, "train"), (B, "train"), (C, "test"), (D, "val")]
    assert clips[0].captions == (f"a man {A}", "two") and clips[0].video == clips[0].audio
    assert clips[0].start is None and clips[0].duration == 10.0
    assert clips[1].extra == {"youtube_id": "Ptf_2VRj-V0", "start_time": 122.0, "note": "kept"}
    assert clips[2].status == {"video": "missing", "audio": "missing"}


def test_the_published_split_and_the_languages(folder: Path, write: Write, media: Write) -> None:
    write("vatex_public_test_english_v1.1.json", [{"videoID": "t_000001_000011", "enCap": ["only English"]}])
    files = media(f"{A}.mp4")
    clips = vatex(folder, files, protocol="official", language="both")
    assert [clip.split for clip in clips] == ["train", "train", "val", "val", "test"]
    assert clips[0].captions == (f"a man {A}", "two", f"一个人 {A}", "二", "三")
    assert clips[0].extra["languages"] == ["en", "en", "zh", "zh", "zh"] and clips[4].extra["languages"] == ["en"]
    assert vatex(folder, files, language="zh")[1].captions == (f"一个人 {B}", "二", "三")
    with pytest.raises(UserError, match=r"english_v1.1.json, \[0\]: 'chCap' must be a list of strings, got None"):
        vatex(folder, files, protocol="official", language="zh")


def test_whole_uploads_are_cut_to_the_seconds_of_the_id(folder: Path, media: Write) -> None:
    files = media("xyz.mp4", f"{B}.mp4", "-Ab_c.mp4")
    clips = vatex(folder, files, untrimmed=True)
    assert [(clip.video.name, clip.start, clip.duration) for clip in clips] == [
        ("-Ab_c.mp4", 10.0, 10.0), (f"{B}.mp4", 122.0, 10.0), ("xyz.mp4", 0.0, 10.0), ("xyz.mp4", 50.0, 10.0)
    ]  # fmt: skip
    assert [clip.video and clip.video.name for clip in vatex(folder, files)] == [None, f"{B}.mp4", None, None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"videoID": A}, "expected a list of objects with 'videoID', got dict"),
        ([A], r"vatex_training_v1.0.json, \[0\]: expected an object"),
        ([entry("")], r"\[0\]: 'videoID' must be a string that is not empty"),
        ([entry("abc")], r"\[0\]: 'videoID' must be <upload>_<start>_<end> in seconds of six digits, got 'abc'"),
        ([entry("abc_000020_000010")], r"\[0\]: 'videoID' must be <upload>_<start>_<end>"),
        ([entry("../x_000000_000010")], r"\[0\]: 'videoID' leads out of the media folder"),
        ([entry(A), entry(A)], r"\[1\]: the id '-Ab_c_000010_000020' occurs twice, first at .*\[0\]"),
        (
            [entry(C)],
            r"vatex_validation_v1.0.json, \[0\]: the id 'xyz_000000_000010' occurs twice, first at .*training",
        ),
        ([entry(A, enCap=[])], r"\[0\]: 'enCap' must be a list of strings, got \[\]"),
        ([entry(A, enCap="x")], r"\[0\]: 'enCap' must be a list of strings, got 'x'"),
        ([entry(A, enCap=["x", "\n"])], r"\[0\]: 'enCap\[1\]' must be a string that is not empty"),
        ([entry(A, enCap=["x", None])], r"\[0\]: 'enCap\[1\]' must be a string that is not empty, got None"),
        ([{"videoID": A}], r"\[0\]: 'enCap' must be a list of strings, got None"),
    ],
)
def test_hostile(folder: Path, write: Write, media: Write, content: Any, message: str) -> None:
    write("vatex_training_v1.0.json", content)
    with pytest.raises(UserError, match=message):
        vatex(folder, media(f"{A}.mp4"), protocol="official")


def test_lists_that_are_refused(folder: Path, media: Write) -> None:
    files = media(f"{A}.mp4")
    (folder / "trn_names.txt").write_text(f"{A}\nunknown\n")
    with pytest.raises(UserError, match="trn_names.txt, line 2: 'unknown' is not in .*annotations. Use the lists of"):
        vatex(folder, files)
    (folder / "trn_names.txt").write_text(f"{B}\n{A}\n")
    np.save(folder / "tst_names.npy", np.array([C], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"tst_names.npy is not an array of strings: .*a pickle, which could run code"):
        vatex(folder, files)
    np.save(folder / "tst_names.npy", np.arange(3))
    with pytest.raises(UserError, match=r"tst_names.npy: expected one row of strings, got an array \(3,\) of int64"):
        vatex(folder, files)
    np.save(folder / "tst_names.npy", np.array([A]))
    with pytest.raises(
        UserError, match=r"tst_names.npy, \[0\]: the id .* occurs twice, first at .*trn_names.txt, line 2"
    ):
        vatex(folder, files)
    (folder / "val_names.json").write_text('["x", 3]')
    with pytest.raises(UserError, match=r"val_names.json, \[0\]: 'x' is not in"):
        vatex(folder, files)
    (folder / "val_names.json").write_text("[3]")
    with pytest.raises(UserError, match=r"val_names.json, \[0\]: expected a name, got 3"):
        vatex(folder, files)
    (folder / "val_names.json").unlink()
    with pytest.raises(UserError, match=r"There is no val_names.npy or .* --protocol official takes the published"):
        vatex(folder, files)


def test_a_folder_without_the_files(media: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no clip in vatex_training\*.json"):
        vatex(media("x.mp4"), media("x.mp4"))
    with pytest.raises(UserError, match="expected the folder that holds"):
        vatex(tmp_path / "none.json", media("x.mp4"))
