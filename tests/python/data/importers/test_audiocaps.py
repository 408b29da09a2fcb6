"""AudioCaps: one row per caption, several ways to name a file, and hostile tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cases.annotations import AUDIOCAPS_HEADER as HEADER
from mover.data.importers import IMPORTERS
from mover.errors import UserError

audiocaps = IMPORTERS["audiocaps"]
Write = Callable[..., Path]


def test_rows_become_captions(write: Write, media: Write) -> None:
    # Ids that start with a dash, a quoted line break, several captions, five ways to name a file.
    folder = media("-0Gj8-vB1q4.wav", "Yabc.flac", "xyz_30.mp4", "77.wav", "six_000005.wav")
    write(
        "train.csv",
        "\ufeff" + (HEADER + '1,-0Gj8-vB1q4,30,A dog barks\n2,abc,0,"Rain, then\nthunder"\n').replace("\n", "\r\n"),
    )
    path = write(
        "test.csv", HEADER + "3,xyz,30,A car\n4,xyz,30,An engine\n77,last,5.0,Wind\n78,six,5,Hail\n79,gone,1,Sea\n"
    )
    clips = audiocaps(path.parent, folder)
    assert [(clip.id, clip.split, clip.captions) for clip in clips] == [
        ("-0Gj8-vB1q4", "train", ("A dog barks",)),
        ("abc", "train", ("Rain, then\nthunder",)),
        ("xyz", "test", ("A car", "An engine")),
        ("last", "test", ("Wind",)),
        ("six", "test", ("Hail",)),
        ("gone", "test", ("Sea",)),
    ]
    assert [clip.audio and clip.audio.name for clip in clips] == [
        "-0Gj8-vB1q4.wav", "Yabc.flac", "xyz_30.mp4", "77.wav", "six_000005.wav", None
    ]  # fmt: skip
    assert clips[0].video is None and clips[0].status == {} and clips[2].video == folder / "xyz_30.mp4"
    assert clips[5].status == {"audio": "missing"} and clips[0].start is None and clips[0].duration == 10.0
    assert clips[2].extra == {"youtube_id": "xyz", "start_time": 30.0, "audiocap_ids": ["3", "4"]}


def test_unknown_columns_are_kept(write: Write, media: Write) -> None:
    path = write("train.csv", "audiocap_id,note,youtube_id,start_time,caption\n1,x,a,0,A dog\n2,,a,0,Dogs\n")
    (clip,) = audiocaps(path, media("a.wav"))
    assert clip.extra["rows"] == [{"note": "x"}, {"note": ""}]


def test_the_second_release_says_so(write: Write, media: Write) -> None:
    path = write("train.csv", HEADER + "1,a,0,A dog\n")
    assert audiocaps(path, media("a.wav"))[0].dataset_version == "1"
    assert audiocaps(path, media("a.wav"), release="2")[0].dataset_version == "2"
    with pytest.raises(UserError, match="'release' must be one of 1, 2, got '3'"):
        audiocaps(path, media("a.wav"), release="3")


def test_several_clips_of_one_upload(write: Write, media: Write) -> None:
    path = write("val.csv", HEADER + "1,abc,0,A dog\n2,abc,20,A cat\n")
    cut = audiocaps(path, media("abc_0.wav", "abc_20.wav", "abc.wav", folder="cut"))
    assert [(clip.id, clip.audio.name) for clip in cut] == [("abc_0", "abc_0.wav"), ("abc_20", "abc_20.wav")]
    whole = audiocaps(path, media("abc.wav", folder="whole"), untrimmed=True)
    assert [(clip.id, clip.start, clip.duration) for clip in whole] == [("abc_0", 0.0, 10.0), ("abc_20", 20.0, 10.0)]
    assert {clip.audio.name for clip in whole} == {"abc.wav"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (HEADER + "1,a,0, \n", "train.csv, line 2: column 'caption' is empty"),
        (HEADER + "1,,0,x\n", "line 2: column 'youtube_id' is empty"),
        (HEADER + "1,../a,0,x\n", "line 2: 'youtube_id' leads out of the media folder: '../a'"),
        (HEADER + "../1,a,0,x\n", "line 2: 'audiocap_id' leads out of the media folder: '../1'"),
        (HEADER + "1,a,soon,x\n", "line 2: 'start_time' must be a number of seconds, at least 0, got 'soon'"),
        (HEADER + "1,a,-3,x\n", "line 2: 'start_time' must be a number"),
        (HEADER + "1,a,nan,x\n", "line 2: 'start_time' must be a number"),
        (HEADER + "1,a,0,A dog, barking\n", "line 2: expected 4 fields, got 5. Quote fields that hold commas"),
        (HEADER + "1,a,0\n", "line 2: expected 4 fields, got 3"),
        (HEADER + '1,a,0,"A ""dog""\nbarks"\n2,b,0,"A "dog" barks"\n', "line 4, column 11: text after a closing"),
        (HEADER + '1,a,0,x\n2,b,0,"A dog\n3,c,0,x\n', "line 3, column 7: this quote is never closed"),
        (HEADER, "the tables have no rows"),
        ("", "the first line must name a column 'audiocap_id', got nothing"),
        ("youtube_id,caption\na,x\n", "must name a column 'audiocap_id', got youtube_id, caption"),
        ("audiocap_id,youtube_id,youtube_id,start_time,caption\n", "names the column 'youtube_id' twice"),
    ],
)  # fmt: skip
def test_hostile(write: Write, media: Write, rows: str, message: str) -> None:
    path = write("train.csv", rows)
    with pytest.raises(UserError, match=message):
        audiocaps(path.parent, media("a.wav"))


def test_a_clip_in_two_splits(write: Write, media: Write) -> None:
    for name in ("train.csv", "test.csv"):
        path = write(name, HEADER + "1,a,0,x\n")
    with pytest.raises(UserError, match=r"test.csv, line 2: clip 'a' is in 'train' too. Delete it from one of the two"):
        audiocaps(path.parent, media("a.wav"))
    with pytest.raises(UserError, match=r"expected train\.csv, val\.csv or test\.csv"):
        audiocaps(media("a.wav"), media("a.wav"))


def test_two_clips_of_one_id(write: Write, media: Write) -> None:
    path = write("train.csv", HEADER + "1,a,0,x\n2,a,5,x\n3,a_5,0,x\n")
    with pytest.raises(UserError, match="line 4: 'a_5' is another clip's id too"):
        audiocaps(path, media("a.wav"))
