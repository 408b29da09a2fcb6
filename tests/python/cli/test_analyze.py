"""`mover analyze` as a user meets it: tables, JSON, picture, labels from elsewhere, one line for what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from mover.cli import main
from mover.cli.analyze import _parser
from mover.evaluate.analysis import SAMPLE
from mover.evaluate.tsne import CLASSES, CLIPS

CLIPS_HERE = 12


def write(path: Path, **changed: np.ndarray | None) -> Path:
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray | None] = {
        "ids": np.array([f"clip{i}" for i in range(CLIPS_HERE)]),
        **{m: random.normal(size=(CLIPS_HERE, 6)).astype(np.float32) for m in ("text", "video", "audio")},
        "labels": np.array(["[b]dog[/b]", "cat", "rain", ""] * 3),
    }
    arrays.update(changed)
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def outcome(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    code = main([str(word) for word in argv])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_numbers_and_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path / "e.npz")
    code, out, err = outcome(
        capsys, "analyze", path, "--json", tmp_path / "j.json", "--tsne", tmp_path / "t.png", "--tsne-clips", "7"
    )
    assert (code, err) == (0, "")
    for said in (
        "12 clips, 12 captions, 3 classes, 3 clips without label", "text–video", "audio → text", "k = 10",
        "k-means NMI", "silhouette by modality",
        "volume of text, video, audio", "t-SNE of 21 rows of 7 clips of 9, drawn by chance",
    ):  # fmt: skip
        assert said in out
    numbers = json.loads((tmp_path / "j.json").read_text())
    assert numbers["embeddings"] == str(path) and numbers["labels"] is None and len(numbers["ids_sha256"]) == 64
    assert numbers["classes"]["largest"] == {"[b]dog[/b]": 3, "cat": 3, "rain": 3}
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.npz", "j.json", "t.png"]


def test_labels_from_elsewhere(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path / "e.npz", labels=None)
    _, out, _ = outcome(capsys, "analyze", path)
    assert "no labels" in out and "No clip has a label" in out and "k-means NMI" not in out
    table = tmp_path / "labels.csv"
    table.write_text("id,label,more\nclip0,dog,x\nclip1,dog,x\nclip2,cat,x\nclip3,,x\nother,cat,x\n")
    _, out, _ = outcome(capsys, "analyze", path, "--labels", table, "--json", tmp_path / "j.json")
    assert f"{table}: labels for 3 of 12 clips; 1 more are of other clips" in out
    assert json.loads((tmp_path / "j.json").read_text())["classes"]["labelled"] == 3
    manifest = tmp_path / "manifest.jsonl"
    rows = [{"id": f"clip{i}", "split": "test", **({"label": "cat"} if i else {})} for i in range(CLIPS_HERE)]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, out, _ = outcome(capsys, "analyze", path, "--labels", manifest, "--classes", "all", "--tsne", tmp_path / "t.png")
    assert "labels for 11 of 12 clips" in out and "All labelled clips are of one class, 'cat'" in out


def test_the_folder_of_a_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = outcome(capsys, "analyze", tmp_path)
    assert code == 2 and "holds no embeddings.npz" in err and "mover evaluate --checkpoint" in err
    write(tmp_path / "embeddings.npz")
    code, out, _ = outcome(capsys, "analyze", tmp_path)
    assert code == 0 and f"{tmp_path / 'embeddings.npz'}: 12 clips" in out


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("clip0,dog\n", "expected a CSV file with the columns id and label, found ['clip0', 'dog']"),
        ("", "found none"),
        ("id,label\nclip0\n", "line 2: expected an id and a label"),
        ("id,label\nclip0,a\nclip0,b\n", "line 3: 'clip0' has the labels 'a' and 'b'"),
        ("id,label\nx,a\nclip0,\n", "has a label for none of the 12 clips, the first of which is 'clip0'"),
        ('id,label\nclip0,"a\n', "cannot be read as a CSV file"),
        (b"id,label\nclip0,\xff\n", "cannot be read as a CSV file"),
        (None, "There are no labels at"),
    ],
)
def test_wrong_labels(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str | bytes | None, sentence: str
) -> None:
    table = tmp_path / "labels.csv"
    if content is not None:
        table.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = outcome(capsys, "analyze", write(tmp_path / "e.npz"), "--labels", table)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1 and sentence in err


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ((), "required: FILE|RUN"),
        (("nowhere.npz",), "no embeddings file at nowhere.npz"),
        (("e.npz", "--classes", "some"), "expected an integer of at least 1, got 'some'"),
        (("e.npz", "--sample", "0"), "expected an integer of at least 1"),
        (("e.npz", "--tsne", "e.npz/x.png"), "cannot be written"),
        (("e.npz", "--json", "e.npz/x.json"), "cannot be written"),
    ],
)
def test_errors_are_one_line(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("e.npz"))
    code, _, err = outcome(capsys, "analyze", *argv)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and sentence in err


def test_defaults_are_those_of_the_functions() -> None:
    options = _parser().parse_args(["x"])
    assert (options.sample, options.classes, options.tsne_clips) == (SAMPLE, CLASSES, CLIPS)
