"""The main job in miniature, by its commands: clips, training, Recall@K."""

import json
from pathlib import Path

import pytest
import torch

from mover.cli import main

NAMES = ["T2V", "V2T", "T2A", "A2T", "V2A", "A2V", "T2VA", "VA2T"]


def test_from_nothing_to_recall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    try:
        assert main(["synth", "--out", "data/demo", "--train", "16", "--val", "4", "--test", "5"]) == 0
        steps = ["--train.steps", "4", "--train.batch_size", "8", "--train.threads", "1", "--train.device", "cpu"]
        assert main(["train", "--config", "demo", *steps]) == 0
        capsys.readouterr()
        assert main(["evaluate", "--checkpoint", "runs/demo/checkpoints/best", "--save-embeddings", "e.npz"]) == 0
        shown = capsys.readouterr().out
        assert all(name in shown for name in [*NAMES, "R@1", "95 %", "R@5", "R@10", "MdR", "MRR", "N"])
        metrics = json.loads(Path("runs/demo/metrics.json").read_text())
        assert [name for name in metrics if not name.startswith("_") and " " not in name] == NAMES
        assert all(metrics[name]["N"] == 5 for name in NAMES)
        assert main(["evaluate", "--embeddings", "e.npz", "--json", "again.json"]) == 0
        again = json.loads(Path("again.json").read_text())
        assert {name: again[name] for name in NAMES} == {name: metrics[name] for name in NAMES}
        for name in ("curves.png", "plan.png", "log.jsonl", "config.yaml"):
            assert Path("runs/demo", name).stat().st_size
    finally:
        torch.set_num_threads(threads)


def test_import_makes_a_manifest_and_a_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["synth", "--out", "s", "--train", "2", "--val", "1", "--test", "1"]) == 0
    full = ["--protocol", "full"]
    for name, annotations, options in (("msrvtt", "s/MSRVTT_data.json", full), ("audiocaps", "s/audiocaps", [])):
        out = Path(name) / "manifest.jsonl"
        capsys.readouterr()
        paths = ["--annotations", annotations, "--media", "s/videos", "--out", str(out)]
        assert main(["import", name, *paths, *options]) == 0
        assert f"{out}: 4 clips" in capsys.readouterr().out
        assert len(out.read_text().splitlines()) == 4
        assert (out.parent / "tokenizer.json").exists()
