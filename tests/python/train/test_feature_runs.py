"""Whole runs from the feature cache: the losses, embeddings and checkpoints of runs that decode and run the towers."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mover.cli import main
from mover.config import Config
from mover.configs import load_config
from mover.data.dataset import ClipDataset
from mover.data.sampling import CAPTION
from mover.errors import UserError
from mover.evaluate.embeddings_file import load_embeddings
from mover.evaluate.run import evaluate_checkpoint
from mover.models import VideoEncoder
from mover.train import trainer
from mover.train.logging import read_log
from mover.train.trainer import train

FROZEN = {f"model.{m}.trained_layers": 0 for m in ("text", "video", "audio")}


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "draw_curves", lambda log, path, title: None)
    monkeypatch.setattr(trainer, "draw_plans", lambda plans, path, title: None)


@pytest.fixture
def base(settings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    more = {"data.cache": "features", "data.cache_folder": str(tmp_path / "cache"), "output": str(tmp_path / "runs")}
    return {**settings, **FROZEN, **more, "train.batch_size": 5, "model.video.dropout": 0.3}


def lines(config: Config, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_log(config.folder / "log.jsonl") if line["kind"] == kind]


def run(settings: dict[str, Any], **options: Any) -> Config:
    config = load_config("demo", settings)
    train(config, console=Console(quiet=True), **options)
    return config


def test_losses_and_embeddings_are_those_of_a_run_that_runs_the_towers(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With frames and windows fixed, as the cache fixes them; captions are drawn, and layers over time drop out."""
    random = ClipDataset._random
    with monkeypatch.context() as patch:
        patch.setattr(ClipDataset, "_random", lambda self, p, e, i: random(self, p, e, i) if p == CAPTION else None)
        live = run({**base, "name": "live", "data.cache": "none"})
    # from here on neither media nor towers in the steps: one encoding of each clip and caption before them
    encoded: list[int] = []
    body_output = VideoEncoder.body_output
    monkeypatch.setattr(
        VideoEncoder, "body_output", lambda self, pixels: encoded.append(len(pixels)) or body_output(self, pixels)
    )
    cached = run({**base, "name": "cached"})
    assert sum(encoded) == 18
    for one, other in zip(lines(live, "train"), lines(cached, "train"), strict=True):
        assert one["terms"] == pytest.approx(other["terms"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
        assert one["rows"] == other["rows"]
    assert [c["R@1"] for c in lines(live, "validation")] == [c["R@1"] for c in lines(cached, "validation")]

    encoded.clear()
    again = run({**base, "name": "again"})
    assert encoded == []
    assert lines(again, "validation") == lines(cached, "validation")
    assert [c["terms"] for c in lines(again, "train")] == [c["terms"] for c in lines(cached, "train")]

    embeddings = []
    said: list[str] = []
    for config in (live, cached, cached):
        out = tmp_path / f"{len(embeddings)}.npz"
        evaluate_checkpoint(config.folder / "checkpoints" / "best", device="cpu", embeddings_out=out, say=said.append)
        embeddings.append(load_embeddings(out))
    assert sum(encoded) == 6 + 6  # the test split: once by the towers themselves, once for the cache
    for m, rows in embeddings[0].vectors.items():
        np.testing.assert_allclose(embeddings[1].vectors[m], rows, atol=1e-5)
        assert np.array_equal(embeddings[1].vectors[m], embeddings[2].vectors[m])
    counts = [line.partition(",")[0] for line in said if "video tower" in line]
    assert counts == ["frozen video tower: 0 outputs found", "frozen video tower: 6 outputs found"]


def test_a_run_says_what_it_found(base: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    flags = [word for name, value in {**base, "train.steps": 1}.items() for word in (f"--{name}", str(value))]
    for found, computed in ((0, 18), (18, 0)):
        assert main(["train", "--config", "demo", *flags, "--overwrite"]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert f"frozen video tower: {found} outputs found, {computed} to compute" in out
        assert re.search(rf"feature cache {base['data.cache_folder']}: \d\.\d MB for these towers /", out)
    assert main(["train", "--config", "demo", *flags, "--data.frames", "3", "--overwrite"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "frozen video tower: 0 outputs found, 18 to compute" in out
    assert re.search(r"\d\.\d MB for these towers, \d\.\d MB for others or other settings \(folders: 2\)", out)


def test_a_resumed_run_is_that_which_was_never_stopped(base: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run({**base, "name": "whole"})
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Display, "step", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        cut = run({**base, "name": "cut"})
    assert [line["step"] for line in lines(cut, "train")] == [1]
    run({**base, "name": "cut"}, resume=True)
    assert [line["terms"] for line in lines(cut, "train")] == [line["terms"] for line in lines(whole, "train")]
    assert len(lines(cut, "train")) == 4


def test_the_cache_may_neither_come_nor_go_on_resume(base: dict[str, Any]) -> None:
    short = {**base, "train.steps": 1}
    run(short)
    longer = {**base, "train.steps": 2}
    with pytest.raises(UserError, match="data.cache is features there and memory here"):
        run({**longer, "data.cache": "memory"}, resume=True)
    config = run({**longer, "data.cache_folder": str(base["data.cache_folder"]) + "2"}, resume=True)
    assert [line["step"] for line in lines(config, "train")] == [1, 2]
    live = {**short, "name": "live", "data.cache": "memory"}
    run(live)
    with pytest.raises(UserError, match="data.cache is memory there and features here"):
        run({**live, "train.steps": 2, "data.cache": "features"}, resume=True)
    run({**live, "train.steps": 2, "data.cache": "none"}, resume=True)


def test_without_a_frozen_tower_there_is_nothing_to_cache(
    base: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    free = {**base, **dict.fromkeys(FROZEN, "none")}
    with pytest.raises(UserError, match=r"data\.cache: features.*no tower.*is frozen.*model\.text\.trained_layers 0"):
        load_config("demo", free)
    assert load_config("demo", {**free, "model.audio.trained_layers": 0}).frozen == ("audio",)
    with pytest.raises(UserError, match="no tower of this run is frozen"):
        load_config(
            "demo",
            {**base, "model.text.trained_layers": 1, "modalities": "text,video", "model.video.trained_layers": 2},
        )


def test_by_default_the_cache_lies_beside_the_manifest(base: dict[str, Any]) -> None:
    config = load_config("demo", {**base, "data.cache_folder": "none", "data.manifest": "a/b/manifest.jsonl"})
    assert config.data.cache_path("feature") == Path("a/b/manifest.feature-cache")
