"""mover classify: of a run and of files, with captions and with prompts."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cases.untrained import FEATURES, feature_clips, untrained
from mover.cli import main
from mover.data import read_manifest
from mover.data.manifest import write_manifest
from mover.errors import UserError
from mover.evaluate.class_texts import embed_class_names


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an untrained model on 30 clips of four classes in three splits."""
    folder = tmp_path_factory.mktemp("classify")
    manifest = feature_clips(folder / "data", 30)
    clips = [replace(clip, split=("train", "train", "val", "test")[i // 4 % 4])
             for i, clip in enumerate(read_manifest(manifest))]  # fmt: skip
    write_manifest(manifest, clips)
    untrained(folder / "runs" / "x" / "checkpoints" / "best", manifest, **FEATURES)
    return folder / "runs" / "x"


def test_a_run(a_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(a_run), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "4 classes in training; texts of classes: mean of the training captions of the class" in shown
    assert "accuracy of always saying the class that is most frequent in training: " in shown
    assert {path.name for path in a_run.glob("embeddings*")} == {
        "embeddings-train.npz", "embeddings-val.npz", "embeddings.npz"
    }  # fmt: skip
    found = json.loads((a_run / "classes.json").read_text())
    assert found["inputs"]["depth"]["clips"] == {"train": 16, "validation": 8, "test": 6}
    assert list(found["inputs"])[3:] == ["text+depth+notes (concatenation)", "text+depth+notes (mean)",
                                         "depth+notes (concatenation)", "depth+notes (mean)"]  # fmt: skip
    before = (a_run / "embeddings-train.npz").stat().st_mtime_ns
    assert main(["classify", str(a_run / "checkpoints" / "best"), "--device", "cpu", "--prompt", "a {} barks"]) == 0
    assert (a_run / "embeddings-train.npz").stat().st_mtime_ns == before, "what is up to date is not made again"
    again = json.loads((a_run / "classes.json").read_text())
    assert again["class_texts"] == "a {} barks"
    assert again["inputs"]["depth"]["probe"] == found["inputs"]["depth"]["probe"]


def test_files_with_labels_of_a_table(a_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(a_run), "--device", "cpu", "--json", str(tmp_path / "a.json")]) == 0
    names = {"train": "embeddings-train.npz", "val": "embeddings-val.npz", "test": "embeddings.npz"}
    files = [f"--{split}={a_run / name}" for split, name in names.items()]
    assert main(["classify", *files, "--json", str(tmp_path / "b.json")]) == 0
    one, other = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert one == other
    rows = "".join(f"clip {i},{'odd' if i % 2 else 'even'}\n" for i in range(30))
    (tmp_path / "labels.csv").write_text("id,label\n" + rows)
    capsys.readouterr()
    assert main(["classify", *files, "--labels", str(tmp_path / "labels.csv")]) == 0
    shown = capsys.readouterr().out
    assert "2 classes in training" in shown and "written to" not in shown


def test_prompts_are_embedded_by_the_text_tower(a_run: Path) -> None:
    checkpoint = a_run / "checkpoints" / "best"
    both = embed_class_names(checkpoint, ["old_dog", "rain"], ["a {}", "the {} falls"], "cpu")
    one = embed_class_names(checkpoint, ["rain"], ["a {}"], "cpu")
    other = embed_class_names(checkpoint, ["rain", "old dog"], ["the {} falls"], "cpu")
    np.testing.assert_allclose(both["rain"], (one["rain"] + other["rain"]) / 2, atol=1e-6)
    assert np.linalg.norm(one["rain"]) == pytest.approx(1, abs=1e-5)
    assert not np.allclose(other["rain"], other["old dog"])
    with pytest.raises(UserError, match="The prompt 'a dog' has no {}"):
        embed_class_names(checkpoint, ["rain"], ["a dog"])


def test_a_run_without_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = feature_clips(tmp_path / "data", 4)
    settings = {**FEATURES, "modalities": ["depth", "notes"], "objective__anchor": "depth"}
    checkpoint = untrained(tmp_path / "best", manifest, **settings)
    with pytest.raises(UserError, match="has no text, so that names of classes cannot be embedded"):
        embed_class_names(checkpoint, ["rain"], ["a {}"], "cpu")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Name a run, or a file of embeddings with each of"),
        (["--train", "a.npz", "--val", "b.npz"], "with each of --train, --val and --test"),
        (["runs/x", "--train", "a.npz"], "not both"),
        (["--train", "a.npz", "--val", "b.npz", "--test", "c.npz", "--prompt", "a {}"], "needs the text tower"),
        (["--train", "a.npz", "--val", "b.npz", "--test", "c.npz"], "a.npz"),
        (["runs/x"], "runs/x"),
    ],
)
def test_one_line_on_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["classify", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert os.listdir(tmp_path) == []
