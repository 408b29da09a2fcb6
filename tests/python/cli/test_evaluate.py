"""`mover evaluate` on files: what it takes, what it writes, what it refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from mover.cli import main
from mover.cli.evaluate import _Bars


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Embeddings of eight clips with two captions each, in a folder of their own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    centre = random.normal(size=(8, 5))
    arrays = {m: centre + 0.5 * random.normal(size=(8, 5)) for m in ("video", "audio")}
    text = np.repeat(centre, 2, axis=0) + 0.5 * random.normal(size=(16, 5))
    np.savez(tmp_path / "e.npz", ids=np.arange(8), text=text, text_owner=np.repeat(np.arange(8), 2), **arrays)
    return tmp_path / "e.npz"


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["evaluate", *argv]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_file_either_way_into_all_outputs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = ["--json", "a.json", "--csv", "a.csv", "--ranks", "r.csv"]
    assert main(["evaluate", "e.npz", *outputs]) == 0
    shown = capsys.readouterr().out
    assert main(["evaluate", "--embeddings", "e.npz"]) == 0
    assert all(f"written to {name}" in shown for name in ("a.json", "a.csv", "r.csv"))
    assert "16 of 16 text rows are not of length 1" in shown and "8 clips with 16 captions, missing: fail" in shown
    assert max(map(len, shown.splitlines()[3:-4])) <= 80
    one, other = (json.loads(Path(name).read_text()) for name in ("a.json", "e.metrics.json"))
    assert one == other and one["_meta"]["embeddings"] == "e.npz"
    table = list(csv.DictReader(Path("a.csv").read_text().splitlines()))
    assert [row["direction"] for row in table] == [name for name in one if name != "_meta"]
    ranks = list(csv.DictReader(Path("r.csv").read_text().splitlines()))
    assert sum(row["direction"] == "T2V" for row in ranks) == 16


@pytest.mark.parametrize(("given", "temperature"), [((), 0.01), (("0.2",), 0.2)])
def test_dual_softmax(file: Path, given: tuple[str, ...], temperature: float) -> None:
    assert main(["evaluate", "e.npz", "--dual-softmax", *given]) == 0
    written = json.loads(Path("e.metrics.json").read_text())
    assert written["_meta"]["dual_softmax"]["temperature"] == temperature and "VA2T cosine +dsl" in written


def test_policies(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(file) as loaded:
        arrays = dict(loaded)
    arrays["video"][3] = np.inf
    np.savez(file, **arrays)
    assert "1 of 8 video rows" in refused(capsys, "e.npz")
    assert main(["evaluate", "e.npz", "--unusable", "last"]) == 0
    assert "ranks last" in capsys.readouterr().out
    assert main(["evaluate", "e.npz", "--unusable", "missing", "--missing", "drop"]) == 0
    assert "1 of 8 left out of every direction" in capsys.readouterr().out


def test_what_does_not_go_together_is_refused(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "name one run, checkpoint or embeddings file" in refused(capsys)
    assert "name one run, checkpoint or embeddings file" in refused(capsys, "e.npz", "--checkpoint", "runs/a")
    assert "--split goes with a checkpoint" in refused(capsys, "e.npz", "--split", "val")
    assert "--anchor goes with an embeddings file" in refused(capsys, "runs/a", "--anchor", "video")
    assert "no checkpoint at runs/a" in refused(capsys, "runs/a")
    assert "no embeddings file at b.npz" in refused(capsys, "b.npz")
    assert "at least 0.003" in refused(capsys, "e.npz", "--dual-softmax", "0.001")
    assert "invalid float value" in refused(capsys, "--dual-softmax", "e.npz")
    assert "invalid choice: 'zero'" in refused(capsys, "e.npz", "--unusable", "zero")


def test_bars_come_on_a_terminal_and_only_where_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from rich.console import Console

    from mover.cli import evaluate

    for terminal, long in ((True, 0.0), (True, 1e9), (False, 0.0)):
        monkeypatch.setattr(evaluate, "_LONG", long)
        console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
        with _Bars(console) as bars:
            for share in (0.0, 0.5, 1.0):
                bars("T2V", share)
        assert ("ranking T2V" in console.file.getvalue()) == (terminal and long == 0.0)  # type: ignore[attr-defined]
