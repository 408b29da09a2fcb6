"""`mover experiment` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mover.cli import main
from mover.experiments import runner
from mover.experiments.definition import shipped_experiments
from mover.experiments.runner import Sweep

EXPERIMENT = """\
title: Steps
asks: How many?
config: demo
seeds: 2
variants:
  few: {settings: {train.steps: 5}}
  many: {settings: {train.steps: 9}}
columns: [T2V]
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "steps.yaml"
    path.write_text(EXPERIMENT)
    return path


def said(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    code = main(["experiment", *map(str, argv)])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_without_a_name_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == shipped_experiments()


def test_a_dry_run_lists_the_runs_and_writes_nothing(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    code, out, _ = said(capsys, path, "--dry-run", "--seeds", "1", "train.batch_size=8")
    assert (code, out) == (0, "few seed 0   5 steps: new\nmany seed 0  9 steps: new\n")
    _, out, _ = said(capsys, path, "--dry-run", "--only", "many", "--first-seed", "3")
    assert out == "many seed 3  9 steps: new\nmany seed 4  9 steps: new\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["steps.yaml"]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (("nowhere",), "no experiment 'nowhere'"),
        (("PATH", "--only", "none"), "has no variant 'none'"),
        (("PATH", "train.steps=3"), "train.steps is what steps varies (many sets it)"),
        (("PATH", "train.stops=3"), "train.stops: there is no such setting; did you mean train.steps?"),
        (("PATH", "--parallel", "0"), "expected an integer of at least 1"),
        (("PATH", "--docs", "no.md"), "no.md cannot be read"),
        (("PATH", "--nonsense"), "there is no such setting"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], path: Path, argv: tuple[str, ...], text: str) -> None:
    code, _, err = said(capsys, *(str(path) if word == "PATH" else word for word in argv))
    assert code == 2 and text in err and err.count("\n") == 1


def test_tables_without_any_run_say_what_is_not_there(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    page = path.parent / "page.md"
    page.write_text("<!-- results: steps -->\n<!-- end of results -->\n")
    code, out, _ = said(capsys, path, "--table", "--docs", page)
    assert code == 0 and "not complete: 4 of 4 runs" in out and "| few | – | 0 |" in out
    folder = path.parent / "runs" / "experiments" / "steps"
    assert len(json.loads((folder / "results.json").read_text())["absent"]) == 4
    assert "# Steps\n\nHow many?" in (folder / "results.md").read_text()
    assert "| few | – | 0 |" in page.read_text()


@pytest.mark.parametrize(
    ("sweep", "code", "text"),
    [
        (Sweep(made=["few seed 0"]), 0, ""),
        (Sweep(failed={"few seed 0": "it broke"}), 1, "1 of 4 runs are not complete; the same command tries them"),
        (Sweep(signum=2), 130, "the same command goes on"),
    ],
)
def test_exit_codes(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    path: Path,
    sweep: Sweep,
    code: int,
    text: str,
) -> None:
    monkeypatch.setattr(runner, "make_runs", lambda *given, **options: sweep)
    found, out, _ = said(capsys, path, "--overwrite", "--parallel", "2")
    assert found == code and text in out and "not complete: 4 of 4 runs" in out
