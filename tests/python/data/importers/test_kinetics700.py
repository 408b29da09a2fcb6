"""Kinetics-700: labels as captions, folders by split and label, whole uploads, and hostile rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cases.annotations import KINETICS_HEADER as HEADER
from mover.data.importers import IMPORTERS
from mover.errors import UserError

kinetics = IMPORTERS["kinetics700"]
Write = Callable[..., Path]


def test_the_tables_and_the_folders(write: Write, media: Write) -> None:
    write(
        "train.csv",
        HEADER + "abseiling,-3B32lodo2M,59,69,train\nair drumming,b,0,10,train\nair drumming,c,0,10,train\n",
    )
    write(
        "validate.csv",
        HEADER.replace("split", "split,is_cc") + "abseiling,d,5,15,validate,0\nabseiling,g,5,15,validate,0\n",
    )
    path = write("test.csv", "youtube_id,time_start,time_end,split\ne,1,11,test\n")
    folder = media(
        "-3B32lodo2M_000059_000069.mp4", "train/b_000000_000010.mkv", "air drumming/c_000000_000010.mp4",
        "val/abseiling/d_000005_000015.mp4",
    )  # fmt: skip
    clips = kinetics(path.parent, folder)
    assert [(clip.id, clip.split, clip.label, clip.captions) for clip in clips] == [
        ("-3B32lodo2M_000059_000069", "train", "abseiling", ("abseiling",)),
        ("b_000000_000010", "train", "air drumming", ("air drumming",)),
        ("c_000000_000010", "train", "air drumming", ("air drumming",)),
        ("d_000005_000015", "val", "abseiling", ("abseiling",)),
        ("g_000005_000015", "val", "abseiling", ("abseiling",)),
        ("e_000001_000011", "test", None, ()),
    ]
    assert [clip.video is not None for clip in clips] == [True, True, True, True, False, False]
    assert clips[3].video == folder / "val" / "abseiling" / "d_000005_000015.mp4"
    assert clips[3].extra == {"youtube_id": "d", "start_time": 5.0, "is_cc": "0"}


def test_whole_uploads_and_one_table(write: Write, media: Write) -> None:
    path = write("train.csv", HEADER + "x,a,5,15,train\nx,a,30,38,train\n")
    clips = kinetics(path, media("a.mp4"), untrimmed=True)
    assert [(clip.id, clip.start, clip.duration) for clip in clips] == [
        ("a_000005_000015", 5.0, 10.0), ("a_000030_000038", 30.0, 8.0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (HEADER + "x,a,0,10,train\nx,a,0,10,train\n",
         "train.csv, line 3: the id 'a_000000_000010' occurs twice, first at .*line 2"),
        (HEADER + ",a,0,10,train\n", "line 2: column 'label' is empty"),
        (HEADER + "x,a,10,5,train\n", "line 2: the clip ends at 5 s, before it starts at 10 s"),
        (HEADER + "x,a,0,later,train\n", "line 2: 'time_end' must be a number"),
        (HEADER + "x,a,0,10,\n", "line 2: column 'split' is empty"),
        (HEADER + "x,..,0,10,train\n", "line 2: 'youtube_id' leads out of the media folder"),
        (HEADER + "../x,a,0,10,train\n", "line 2: 'label' leads out of the media folder"),
        (HEADER, "the tables have no rows"),
        ("label,youtube_id\n", "must name a column 'time_start'"),
    ],
)  # fmt: skip
def test_hostile(write: Write, media: Write, rows: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        kinetics(write("train.csv", rows), media("a_000000_000010.mp4"))


def test_no_table(media: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected train.csv, val.csv, validate.csv, test.csv. Name the folder"):
        kinetics(media("a.mp4"), media("a.mp4"))
    with pytest.raises(UserError, match=r"x\.csv cannot be read"):
        kinetics(tmp_path / "x.csv", media("a.mp4"))
