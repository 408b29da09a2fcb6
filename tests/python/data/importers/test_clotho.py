"""Clotho: five captions per sound, names with blanks and dots, and hostile tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cases.annotations import CLOTHO_HEADER as HEADER
from mover.data.importers import IMPORTERS
from mover.errors import UserError

clotho = IMPORTERS["clotho"]
Write = Callable[..., Path]


def test_the_three_parts(write: Write, media: Write) -> None:
    write(
        "clotho_captions_development.csv",
        HEADER + 'Distorted AM Radio noise.wav,"one, two",b,c,d,e\n20130327_v.02.wav,a,b,c,d,e\n',
    )
    write("clotho_captions_validation.csv", HEADER + "-x.wav,a,b,c,d,e\n")
    path = write("clotho_captions_evaluation.csv", "\ufeff" + HEADER.replace("\n", ",extra\n") + "é.wav,a,b,c,d,e,f\n")
    folder = media("development/Distorted AM Radio noise.wav", "20130327_v.02.wav", "validation/-x.flac")
    clips = clotho(path.parent, folder)
    assert [(clip.id, clip.split, clip.audio) for clip in clips] == [
        ("Distorted AM Radio noise", "train", folder / "development" / "Distorted AM Radio noise.wav"),
        ("20130327_v.02", "train", folder / "20130327_v.02.wav"),
        ("-x", "val", folder / "validation" / "-x.flac"),
        ("é", "test", None),
    ]
    assert clips[0].captions == ("one, two", "b", "c", "d", "e") and clips[0].video is None and clips[0].status == {}
    assert clips[3].extra == {"extra": "f"} and clips[3].status == {"audio": "missing"}
    assert {clip.dataset_version for clip in clips} == {"2.1"}


def test_one_table(write: Write, media: Write) -> None:
    path = write("clotho_captions_evaluation.csv", HEADER + "a.wav,a,b,c,d,e\n")
    assert [(clip.id, clip.split) for clip in clotho(path, media("a.wav"))] == [("a", "test")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (HEADER + "a.wav,a,b,,d,e\n", "development.csv, line 2: column 'caption_3' is empty"),
        (HEADER + "../a.wav,a,b,c,d,e\n", "line 2: 'file_name' leads out of the media folder: '../a.wav'"),
        (HEADER + "a.wav,a,b,c,d,e\na.wav,a,b,c,d,e\n", "line 3: the id 'a' occurs twice, first at .*line 2"),
        (HEADER + ",a,b,c,d,e\n", "line 2: column 'file_name' is empty"),
        (HEADER + "a.wav,a,b\n", "line 2: expected 6 fields, got 3"),
        (HEADER + "b.wav,a,b,c,d,e\n", "Not one clip was found in .* as 'b.wav' would be"),
        (HEADER, "the tables have no rows"),
        ("file_name,caption_1\n", "must name a column 'caption_2'"),
    ],
)
def test_hostile(write: Write, media: Write, rows: str, message: str) -> None:
    path = write("clotho_captions_development.csv", rows)
    with pytest.raises(UserError, match=message):
        clotho(path.parent, media("a.wav"))


def test_no_table(media: Write) -> None:
    with pytest.raises(UserError, match="expected clotho_captions_development.csv, _validation.csv or _evaluation.csv"):
        clotho(media("a.wav"), media("a.wav"))
