"""Two sets share clips by id, and by the upload they were cut from."""

from __future__ import annotations

from pathlib import Path

import pytest

from mover.cli import main
from mover.data import Clip, find_overlap, write_manifest

TRAINED = [
    Clip("a_000000_000010", extra={"youtube_id": "a"}),
    Clip("b"),
    Clip("c", split="test"),
    *(Clip(f"n{number}") for number in range(12)),
]
EVALUATED = [
    Clip("a_000050_000060", extra={"youtube_id": "a"}, split="test"),
    Clip("b", split="val"),
    Clip("c", split="test", extra={"youtube_id": "another"}),
    Clip("d", split="test"),
]


def test_ids_and_uploads() -> None:
    found = find_overlap(TRAINED, EVALUATED)
    assert (found.ids, found.uploads, found.of) == (("b", "c"), ("a_000050_000060", "b", "c"), 4)
    assert find_overlap(TRAINED, EVALUATED[3:]).uploads == ()
    assert find_overlap([Clip("x", extra={"youtube_id": "y"})], [Clip("y")]).uploads == ("y",)


@pytest.fixture
def manifests(tmp_path: Path) -> list[str]:
    write_manifest(tmp_path / "trained.jsonl", TRAINED)
    write_manifest(tmp_path / "evaluated.jsonl", EVALUATED)
    return [str(tmp_path / "trained.jsonl"), str(tmp_path / "evaluated.jsonl")]


def test_the_command(manifests: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overlap", *manifests]) == 1
    said = capsys.readouterr().out
    assert f"{manifests[0]}: 15 clips; {manifests[1]}: 4 clips\n" in said
    assert "same ids: 2 (50.00% of the evaluated clips): b, c\n" in said
    assert "same uploads: 3 (75.00% of the evaluated clips): a_000050_000060, b, c\n" in said


def test_splits_and_the_exit_code(manifests: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    splits = ["--trained-split", "test", "--evaluated-split", "val"]
    assert main(["overlap", *manifests, *splits]) == 0
    assert "same ids: 0 (0.00% of the evaluated clips)\n" in capsys.readouterr().out
    assert main(["overlap", manifests[0], manifests[0]]) == 1
    assert "n6, …" in capsys.readouterr().out.splitlines()[1]
    assert main(["overlap", *manifests, "--trained-split", "dev"]) == 2
    assert "No clip belongs to the split 'dev'. The manifest has: test, train." in capsys.readouterr().err
