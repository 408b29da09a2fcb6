"""The folder of a made data set: whole or not there, never in place of anything else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mover.data.made.folder import make_folder
from mover.errors import UserError


def fill(folder: Path) -> None:
    (folder / "manifest.jsonl").write_text("rows\n")


def never(folder: Path) -> None:
    raise AssertionError("made twice")


def test_the_same_settings_are_not_made_twice(tmp_path: Path) -> None:
    settings = {"name": "mover-a", "seed": 0}
    manifest = make_folder(tmp_path / "x" / "a", settings, fill)
    assert manifest == tmp_path / "x" / "a" / "manifest.jsonl" and manifest.read_text() == "rows\n"
    assert make_folder(tmp_path / "x" / "a", settings, never) == manifest
    with pytest.raises(AssertionError, match="made twice"):
        make_folder(tmp_path / "x" / "a", {**settings, "seed": 1}, never)
    assert make_folder(tmp_path / "x" / "a", settings, never) == manifest, "the old one stays until the new one is done"
    assert os.listdir(tmp_path / "x") == ["a"]
    manifest.unlink()
    assert make_folder(tmp_path / "x" / "a", settings, fill).read_text() == "rows\n"


def test_other_settings_replace_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()  # empty: welcome
    make_folder(tmp_path / "a", {"name": "mover-a", "seed": 0}, fill)
    (tmp_path / "a" / "stray").touch()
    make_folder(tmp_path / "a", {"name": "mover-a", "seed": 1}, fill)
    assert sorted(os.listdir(tmp_path / "a")) == ["dataset.json", "manifest.jsonl"]
    assert os.listdir(tmp_path) == ["a"]


def test_what_is_not_its_own_is_left_alone(tmp_path: Path) -> None:
    settings = {"name": "mover-a", "seed": 0}
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "dataset.json").write_text('{"name": "thesis"}')
    (tmp_path / "file").touch()
    for path in (tmp_path / "theirs", tmp_path / "file"):
        with pytest.raises(UserError, match="did not make it"):
            make_folder(path, settings, never)
    make_folder(tmp_path / "b", {"name": "mover-b"}, fill)
    with pytest.raises(UserError, match="holds another data set, mover-b, and this is mover-a"):
        make_folder(tmp_path / "b", settings, never)
    with pytest.raises(UserError, match="cannot be written"):
        make_folder(tmp_path / "file" / "below", settings, never)
