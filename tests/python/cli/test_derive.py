"""mover derive: what it writes, what it says, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from mover.cli import main
from mover.data import Clip, Reference, read_manifest
from mover.data.manifest import write_manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    clips = [
        Clip(
            f"c{i}", (f"caption {i}",), split="train" if i < 20 else "test", label="ab"[i % 2],
            others={"depth": Reference(tmp_path / "data" / "depth.npy", i)},
        )
        for i in range(30)
    ]  # fmt: skip
    path = tmp_path / "data" / "manifest.jsonl"
    write_manifest(path, clips)
    (path.parent / "tokenizer.json").touch()
    return path


def test_everything_at_once(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "other" / "derived.jsonl"
    flags = ["--unseen", "a", "--without", "depth=0.2", "--shared-captions", "2", "--mismatched", "0.6"]
    assert main(["derive", str(manifest), "--out", str(out), *flags]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:4] == [
        "unseen classes (1): a; 10 training clips dropped",
        "2 of 10 lack depth",
        "10 training clips have the captions of 5",
        "6 of 10 training clips have text of another",
    ]
    assert said[4] == f"20 clips: {out}"
    assert said[5] == f"train with data.tokenizer={manifest.parent / 'tokenizer.json'}, which lies beside the old " \
        "manifest only"  # fmt: skip
    clips = read_manifest(out)
    assert {c.label for c in clips if c.split == "train"} == {"b"}
    assert clips[0].others["depth"].path == manifest.parent / "depth.npy"


def test_modalities_other_than_text_are_named(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = manifest.with_name("derived.jsonl")
    assert main(["derive", str(manifest), "--out", str(out), "--mismatched", "depth=0.5,text=1", "--seed", "4"]) == 0
    said = capsys.readouterr().out
    assert "10 of 20 training clips have depth of another\n20 of 20 training clips have text of another\n" in said
    assert "tokenizer" not in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "Nothing would be changed"),
        (["--mismatched", "1.4"], "expected a share above 0 and at most 1, got '1.4'"),
        (["--mismatched", "nan"], "expected a share"),
        (["--without", "audio"], "expected MODALITY=SHARE, got 'audio'"),
        (["--without", "text=.1,text=.2"], "named twice"),
        (["--unseen", "z"], "No clip has the class 'z'"),
        (["--shared-captions", "0"], "at least 1, got '0'"),
    ],
)
def test_one_line_on_what_is_wrong(
    manifest: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    out = manifest.with_name("derived.jsonl")
    assert main(["derive", str(manifest), "--out", str(out), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_the_manifest_is_not_overwritten(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = manifest.read_bytes()
    assert main(["derive", str(manifest), "--out", str(manifest), "--mismatched", ".5"]) == 2
    assert "is the manifest that is read" in capsys.readouterr().err
    assert manifest.read_bytes() == before
    assert main(["derive", str(manifest), "--out", str(manifest / "x.jsonl"), "--mismatched", ".5"]) == 2
    assert "cannot be written" in capsys.readouterr().err
