"""AudioSet: comment lines, blanks after commas, quoted lists of label codes, and hostile rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cases.annotations import AUDIOSET_COMMENTS as COMMENTS
from cases.annotations import AUDIOSET_LABELS as LABELS
from mover.data.importers import IMPORTERS
from mover.errors import UserError

audioset = IMPORTERS["audioset"]
Write = Callable[..., Path]


@pytest.fixture
def folder(write: Write) -> Path:
    write("class_labels_indices.csv", LABELS)
    write("eval_segments.csv", COMMENTS + 'evl, 0.000, 10.000, "/t/dd00088"\r\n')
    write("unbalanced_train_segments.csv", COMMENTS + 'unb, 0.000, 4.500, "/m/09x0r"\n')
    rows = '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n-0RWZT-miFs, 420.000, 430.000, "/m/05zppz"\n'
    return write("balanced_train_segments.csv", COMMENTS + rows).parent


def test_labels_become_captions(folder: Path, media: Write) -> None:
    clips = audioset(folder, media("--PJHxphWEs.flac", "-0RWZT-miFs_420000.wav"))
    assert [(clip.id, clip.split, clip.captions, clip.label) for clip in clips] == [
        ("--PJHxphWEs", "train", ("Speech, Gush",), None),
        ("-0RWZT-miFs", "train", ("Male speech, man speaking",), "Male speech, man speaking"),
        ("evl", "test", ("Gush",), "Gush"),
    ]
    assert clips[0].extra == {
        "youtube_id": "--PJHxphWEs", "start_time": 30.0, "labels": ["Speech", "Gush"]
    }  # fmt: skip
    assert [clip.audio and clip.audio.name for clip in clips] == ["--PJHxphWEs.flac", "-0RWZT-miFs_420000.wav", None]
    assert clips[0].start is None and clips[0].status == {"video": "missing"}


def test_which_training_segments(folder: Path, media: Write) -> None:
    files = media("unb.mp4", "Yevl.mp4")
    assert [clip.id for clip in audioset(folder, files, train="unbalanced")] == ["unb", "evl"]
    both = audioset(folder, files, train="both", untrimmed=True)
    assert [clip.id for clip in both] == ["--PJHxphWEs", "-0RWZT-miFs", "unb", "evl"]
    assert (both[2].start, both[2].duration, both[2].video) == (0.0, 4.5, files / "unb.mp4")
    (folder / "eval_segments.csv").unlink()
    (folder / "balanced_train_segments.csv").unlink()
    assert [clip.id for clip in audioset(folder, files, train="unbalanced")] == ["unb"]
    with pytest.raises(UserError, match="There is no balanced_train_segments.csv in"):
        audioset(folder, files)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('a, 0.000, 10.000, "/m/unknown"', "segments.csv, line 4: the label '/m/unknown' is not in class_labels"),
        ('a, 10.000, 10.000, "/m/09x0r"', "line 4: the segment ends at 10 s, before it starts at 10 s"),
        ('a, x, 10.000, "/m/09x0r"', "line 4: 'start_seconds' must be a number"),
        ('a, 0.000, 10.000, /m/09x0r,/t/dd00088', "line 4: expected 4 fields, got 5"),
        ('a, 0.000, 10.000, ""', "line 4: column 'positive_labels' is empty"),
        ('../a, 0.000, 10.000, "/m/09x0r"', "line 4: 'YTID' leads out of the media folder"),
        ('evl, 0.000, 10.000, "/m/09x0r"', "eval_segments.csv, line 4: the id 'evl' occurs twice, first at .*balanced"),
        ('a, 0.000, 10.000, "/m/09x0r', "line 4, column 19: this quote is never closed"),
    ],
)  # fmt: skip
def test_hostile(folder: Path, write: Write, media: Write, row: str, message: str) -> None:
    write("balanced_train_segments.csv", COMMENTS + row + "\n")
    with pytest.raises(UserError, match=message):
        audioset(folder, media("a.wav"))


def test_tables_without_rows_and_without_labels(folder: Path, write: Write, media: Write) -> None:
    write("balanced_train_segments.csv", COMMENTS)
    write("eval_segments.csv", COMMENTS)
    with pytest.raises(UserError, match="the tables have no rows"):
        audioset(folder, media("a.wav"))
    (folder / "class_labels_indices.csv").unlink()
    with pytest.raises(UserError, match="There is no class_labels_indices.csv in"):
        audioset(folder, media("a.wav"))
