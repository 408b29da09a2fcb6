"""`mover report`: one page of a run or of a file, and the refusals."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cases.untrained import FEATURES, feature_clips, untrained
from mover.cli import main
from mover.configs import load_config, save_config
from mover.train.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The run of an untrained model of text and features, never evaluated."""
    folder = RunFolder(tmp_path / "runs" / "small")
    untrained(folder.best, feature_clips(tmp_path / "data", 6), **FEATURES)
    save_config(load_config(folder.best / "config.yaml"), folder.config)
    return folder.path


def test_a_run_becomes_one_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert main(["report", str(run), "--queries", "4", "--device", "cpu", "--threads", "1"]) == 0
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out
    assert "embedding 6 clips" in said and f"written to {run / 'report.html'} (" in said
    page = (run / "report.html").read_text()
    assert page.lstrip().startswith("<!doctype html>") and page.count('<article class="query') == 4
    assert "text → depth and notes" in page and "notes: numbers, no picture" in page
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "embeddings.npz",
        "report.html",
    ]

    again = tmp_path / "elsewhere" / "page.html"
    assert main(["report", str(run), "--queries", "4", "--out", str(again)]) == 0
    assert "embeddings from" in capsys.readouterr().out
    assert again.read_text() == page


def test_a_file_becomes_a_page_beside_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    np.savez(tmp_path / "system.npz", ids=[f"clip {i}" for i in range(6)], text=rows, depth=rows)
    manifest = tmp_path / "data" / "manifest.jsonl"
    assert main(["report", str(tmp_path / "system.npz"), "--manifest", str(manifest)]) == 0
    assert "written to" in capsys.readouterr().out
    page = (tmp_path / "system.report.html").read_text()
    assert "which knows no training" in page and "Asked with text, the model puts the right depth first" in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere"], "nowhere does not exist: give the folder of a run, runs/NAME, or an embeddings file"),
        (["."], "holds no run: expected a folder with config.yaml"),
        (["RUN", "--missing", "drop"], "--missing goes with an embeddings file"),
        (["RUN", "--unusable", "last"], "--unusable goes with an embeddings file"),
        (["RUN", "--anchor", "depth"], "--anchor goes with an embeddings file"),
        (["RUN/config.yaml", "--split", "val"], "--split goes with a run"),
        (["RUN/config.yaml"], "config.yaml"),
        (["RUN", "--split", "nosuch"], "No clip belongs to the split 'nosuch'"),
        (["RUN", "--queries", "-1"], "--queries"),
        (["RUN", "--device", "toaster"], "toaster"),
        ([], "RUN|FILE"),
    ],
)
def test_refusals_are_one_line(run: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *(option.replace("RUN", str(run)) for option in options)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (run / "report.html").exists()


def test_a_page_that_cannot_be_written(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["report", str(run), "--queries", "0", "--out", str(tmp_path / "file" / "page.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_run_without_its_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "checkpoints")
    assert main(["report", str(run)]) == 2
    assert "no checkpoint at" in capsys.readouterr().err
