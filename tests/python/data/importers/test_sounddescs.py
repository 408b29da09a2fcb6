"""SoundDescs: pickles that hold data, lists of ids; a pickle that would run something is refused."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cases.annotations import dump_pickle as dump
from mover.data.importers import IMPORTERS
from mover.data.importers.pickles import read_pickle
from mover.errors import UserError

sounddescs = IMPORTERS["sounddescs"]
Write = Callable[..., Path]


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def folder(write: Write) -> Path:
    for split, names in (("train", "07033137\nnhu05091190\n"), ("val", "00008035\n"), ("test", "0009039\n")):
        path = write(f"{split}_list.txt", names)
    dump(path.parent / "descriptions.pkl", {
        "nhu05091190": "Rain on leaves, steady.", "07033137": " A clock ticks. ", "unlisted": "x",
        "00008035": ["A door.", "A door closes."], "0009039": "Wind – ☃",
    })  # fmt: skip
    dump(
        path.parent / "categories.pkl",
        {"07033137": ["Clocks"], "nhu05091190": {"Nature", "Birds"}, "0009039": "Weather", "00008035": []},
    )
    return path.parent


def test_descriptions_and_categories(folder: Path, media: Write) -> None:
    files = media("07033137.wav", "nhu05091190.mp3")
    clips = sounddescs(folder, files)
    assert [(clip.id, clip.split, clip.captions, clip.label) for clip in clips] == [
        ("nhu05091190", "train", ("Rain on leaves, steady.",), None),
        ("07033137", "train", ("A clock ticks.",), "Clocks"),
        ("00008035", "val", ("A door.", "A door closes."), None),
        ("0009039", "test", ("Wind – ☃",), "Weather"),
    ]
    assert clips[0].extra == {"categories": ["Birds", "Nature"]} and clips[2].extra == {}
    assert clips[1].audio == files / "07033137.wav" and clips[1].video is None
    assert clips[3].status == {"audio": "missing"}
    (folder / "categories.pkl").unlink()
    assert [clip.label for clip in sounddescs(folder, files)] == [None] * 4


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_of_any_protocol(tmp_path: Path, protocol: int) -> None:
    value = {"a": ["é", 1, 2.5, None, True], "b": {"c": (1, 2)}, "d": {1, 2}, "e": frozenset("x")}
    dump(tmp_path / "x.pkl", value, protocol)
    assert read_pickle(tmp_path / "x.pkl") == value


def test_a_pickle_that_runs_a_command_is_refused_unread(folder: Path, media: Write, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    dump(folder / "descriptions.pkl", {"07033137": Malicious(marker)})
    with pytest.raises(
        UserError, match=r"descriptions.pkl: this pickle names (posix|nt|os).system, and loading it could run code"
    ):
        sounddescs(folder, media("07033137.wav"))
    assert not marker.exists()
    dump(folder / "descriptions.pkl", {"07033137": "x"})
    dump(folder / "categories.pkl", {"07033137": OrderedDict(a=1)})
    with pytest.raises(UserError, match="categories.pkl: this pickle names collections.OrderedDict"):
        sounddescs(folder, media("07033137.wav"))


@pytest.mark.parametrize("value", [b"", b"\x80\x04", b"not a pickle", b"\x80\x04K\x01", b"(lp0\nP1\n."])
def test_damaged_pickles(folder: Path, media: Write, value: bytes) -> None:
    (folder / "descriptions.pkl").write_bytes(value)
    with pytest.raises(
        UserError, match=r"descriptions.pkl( is not a pickle that can be read|: this pickle refers to something)"
    ):
        sounddescs(folder, media("07033137.wav"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["x"], "descriptions.pkl: expected a dict from ids, got list"),
        ({"../x": "y"}, "descriptions.pkl, '../x': 'id' leads out of the media folder"),
        ({7: "y"}, "descriptions.pkl, 7: 'id' must be a string that is not empty, got 7"),
        ({"07033137": " "}, "descriptions.pkl, '07033137': 'description' must be a string that is not empty"),
        ({"07033137": 3}, "descriptions.pkl, '07033137': 'description' must be a string that is not empty, got 3"),
        ({"07033137": "x"}, "train_list.txt, line 2: 'nhu05091190' is not in .*descriptions.pkl"),
    ],
)
def test_hostile(folder: Path, media: Write, value: Any, message: str) -> None:
    dump(folder / "descriptions.pkl", value)
    with pytest.raises(UserError, match=message):
        sounddescs(folder, media("07033137.wav"))


def test_missing_files_and_double_ids(folder: Path, media: Write, write: Write) -> None:
    files = media("07033137.wav")
    write("test_list.txt", "0009039\n07033137\n")
    with pytest.raises(
        UserError, match=r"test_list.txt, line 2: the id '07033137' occurs twice, first at .*train_list.txt, line 1"
    ):
        sounddescs(folder, files)
    (folder / "test_list.txt").unlink()
    with pytest.raises(UserError, match="There is no test_list.txt in .* Name the folder that holds descriptions.pkl"):
        sounddescs(folder, files)
    with pytest.raises(UserError, match=r"There is no descriptions\.pkl in"):
        sounddescs(files, files)
