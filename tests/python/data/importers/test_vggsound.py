"""VGGSound: a table without a header, labels as captions, and hostile rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mover.data.importers import IMPORTERS
from mover.errors import UserError

vggsound = IMPORTERS["vggsound"]
Write = Callable[..., Path]
TABLE = """\
---g-f_I2yQ,1,people marching,test
--0PQM4-hqg,30,"playing violin, fiddle",train
--0PQM4-hqg,130,waterfall burbling,train
"""


def test_rows_without_a_header(write: Write, media: Write) -> None:
    path = write("vggsound.csv", "# YouTube ID, start seconds, label,train/test split. \n" + TABLE)
    folder = media("---g-f_I2yQ_000001.mp4", "--0PQM4-hqg_30.mp4")
    clips = vggsound(path.parent, folder)
    assert [(clip.id, clip.split, clip.captions, clip.label) for clip in clips] == [
        ("---g-f_I2yQ_000001", "test", ("people marching",), "people marching"),
        ("--0PQM4-hqg_000030", "train", ("playing violin, fiddle",), "playing violin, fiddle"),
        ("--0PQM4-hqg_000130", "train", ("waterfall burbling",), "waterfall burbling"),
    ]
    assert [clip.video and clip.video.name for clip in clips] == ["---g-f_I2yQ_000001.mp4", "--0PQM4-hqg_30.mp4", None]
    assert clips[0].start is None and clips[0].duration == 10.0
    assert clips[0].extra == {"youtube_id": "---g-f_I2yQ", "start_time": 1.0}


def test_whole_uploads(write: Write, media: Write) -> None:
    clips = vggsound(write("vggsound.csv", TABLE), media("--0PQM4-hqg.webm"), untrimmed=True)
    assert [(clip.video and clip.video.name, clip.start) for clip in clips] == [
        (None, 1.0), ("--0PQM4-hqg.webm", 30.0), ("--0PQM4-hqg.webm", 130.0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,1,x,test\na,1,y,test\n", "vggsound.csv, line 2: the id 'a_000001' occurs twice, first at .*line 1"),
        ("a,one,x,test\n", "line 1: 'start' must be a number of seconds, at least 0, got 'one'"),
        ("a,1,,test\n", "line 1: column 'label' is empty"),
        ("a,1,x,val\n", "line 1: 'split' must be train or test, got 'val'"),
        ("../a,1,x,test\n", "line 1: 'id' leads out of the media folder: '../a'"),
        ("a,1,playing violin, fiddle,train\n", "line 1: expected 4 fields, got 5. Quote fields that hold commas"),
        ("# nothing\n", "the table has no rows"),
    ],
)
def test_hostile(write: Write, media: Write, rows: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        vggsound(write("vggsound.csv", rows), media("a_000001.mp4"))
