"""`mover compare` as a user meets it: names of systems and data sets, tables, files, one line for what is wrong."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from mover.cli import main
from mover.cli.compare import _parser, named_source
from mover.evaluate.intervals import RESAMPLES

CLIPS = 12


def write(path: Path, noise: float, first: int = 0) -> Path:
    """Clips `first` to 11 of one set, by a system with this much noise."""
    centre = np.random.default_rng(0).normal(size=(CLIPS, 6))
    random = np.random.default_rng(int(100 * noise))
    rows = {m: (centre + noise * random.normal(size=centre.shape))[first:] for m in ("text", "video", "audio")}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, ids=np.array([f"clip{i}" for i in range(first, CLIPS)]), **rows)
    return path


def outcome(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(Path("gram.npz"), 0.6)
    write(Path("runs/demo/embeddings.npz"), 1.5, first=2)
    return tmp_path


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a.npz", ("a", "", "a.npz")),
        ("x/vast.parquet", ("vast", "", "x/vast.parquet")),
        ("runs/demo", ("demo", "", "runs/demo")),
        ("runs/demo/embeddings-val.npz", ("demo", "", "runs/demo/embeddings-val.npz")),
        ("mine=a.npz", ("mine", "", "a.npz")),
        ("mine=x=y.npz", ("mine", "", "x=y.npz")),
        ("runs/lr=3/e.npz", ("e", "", "runs/lr=3/e.npz")),
        ("my system@MSR-VTT=a.npz", ("my system", "MSR-VTT", "a.npz")),
        ("@VATEX=runs/demo", ("demo", "VATEX", "runs/demo")),
    ],
)
def test_names(word: str, expected: tuple[str, str, str]) -> None:
    name, dataset, path = named_source(word, "")
    assert (name, dataset, str(path)) == expected
    assert named_source(word, "default")[1] == (expected[1] or "default")


def test_tables_and_files(capsys: pytest.CaptureFixture[str], files: Path) -> None:
    argv = ("compare", "gram.npz", "[b]mine=runs/demo", "--dataset", "MSR-VTT")
    code, out, err = outcome(capsys, *argv, "--json", "j.json", "--csv", "t.csv", "--markdown", "t.md")
    assert (code, err) == (0, "")
    for said in (
        "MSR-VTT: 10 clips are in all 2 files", "gram: 2 of 12 clips are not in all files, left out", "[b]mine",
        "R@1 (R@10), %", "R@1 less that of gram, points", "written to t.md",
    ):  # fmt: skip
        assert said in out
    found = json.loads(Path("j.json").read_text())
    entry = found["datasets"]["MSR-VTT"]
    assert entry["systems"]["[b]mine"]["embeddings"] == "runs/demo/embeddings.npz"
    assert len(entry["ids_sha256"]) == 64 and found["settings"]["resamples"] == RESAMPLES
    with open("t.csv", newline="") as file:
        assert {row["system"] for row in csv.DictReader(file)} == {"gram", "[b]mine"}
    assert Path("t.md").read_text().startswith("|  | MSR-VTT T2V | MSR-VTT V2T |")
    short = outcome(capsys, *argv, "--direction", "T2V, VA2T", "--baseline", "[b]mine", "--resamples", "50")
    assert "VA2T" in short[1] and "T2A" not in short[1] and "less that of [b]mine" in short[1]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ((), "required: A B C"),
        (("gram.npz",), "There is one system: a comparison needs at least two"),
        (("gram.npz", "gram.npz"), "are both called 'gram': name them, as in first=gram.npz second=gram.npz"),
        (("gram.npz", "nowhere.npz"), "no embeddings file at nowhere.npz"),
        (("gram.npz", "runs"), "runs holds no embeddings.npz"),
        (("gram.npz", "x="), "'x=': expected FILE, NAME=FILE or NAME@DATASET=FILE"),
        (("gram.npz", "=a.npz"), "'=a.npz': expected FILE"),
        (("gram.npz", "x@=a.npz"), "'x@=a.npz': expected FILE"),
        (("gram.npz", "runs/demo", "--baseline", "vast"), "The baseline 'vast' is none of the systems gram, demo"),
        (("gram.npz", "runs/demo", "--direction", "T2X"), "to compare in T2X; there are T2V"),
        (("gram.npz", "runs/demo", "--resamples", "0"), "expected an integer of at least 1"),
        (("gram.npz", "runs/demo", "--csv", "gram.npz/x.csv"), "cannot be written"),
    ],
)
def test_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], files: Path, argv: tuple[str, ...], sentence: str
) -> None:
    code, _, err = outcome(capsys, "compare", *argv)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and sentence in err


def test_defaults_are_those_of_the_functions() -> None:
    assert _parser().parse_args(["a"]).resamples == RESAMPLES
