"""An experiment of runs of a moment, on three views of a few random vectors."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mover.data import Clip, Reference
from mover.data.manifest import write_manifest
from mover.experiments import runner
from mover.experiments.definition import Definition, load_definition
from mover.experiments.worker import run_job

VIEWS = ("one", "two", "three")

CONFIG = """\
modalities: [one, two, three]
data: {manifest: MANIFEST, workers: 0}
model:
  embed_dim: 8
  others:
    one: {kind: features, input_size: 6, hidden_size: 8}
    two: {kind: features, input_size: 6, hidden_size: 8}
    three: {kind: features, input_size: 6, hidden_size: 8}
objective: {anchor: one, preset: pairwise}
train: {steps: 6, batch_size: 8, validate_every: 3, checkpoint_every: 2, log_every: 1, device: cpu, threads: 1}
"""

EXPERIMENT = """\
title: Two objectives
asks: Which of two objectives is better?
config: CONFIG
seeds: 2
variants:
  plain: {}
  volume: {label: with volume, settings: {objective.volume_contrastive: 1.0}}
against: [plain]
columns: [one2two, one2two+three R@5]
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the runs, which are processes of their own."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def make_manifest(folder: Path, name: str = "manifest", prefix: str = "clip", seed: int = 0) -> Path:
    """16 training, 6 validation and 6 test clips, each a row of an array in each view."""
    random = np.random.default_rng(seed)
    latent = random.standard_normal((28, 6)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    for view in VIEWS:
        np.save(folder / f"{name}-{view}.npy", latent @ random.standard_normal((6, 6)).astype(np.float32))
    clips = [
        Clip(
            id=f"{prefix}{n}", split="train" if n < 16 else "val" if n < 22 else "test",
            others={view: Reference(folder / f"{name}-{view}.npy", n) for view in VIEWS},
        )
        for n in range(28)
    ]  # fmt: skip
    write_manifest(folder / f"{name}.jsonl", clips)
    return folder / f"{name}.jsonl"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes an experiment, trial.yaml, with its configuration and data; the folder becomes the current one."""
    monkeypatch.chdir(tmp_path)
    manifest = make_manifest(tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(CONFIG.replace("MANIFEST", str(manifest)))

    def write(text: str = EXPERIMENT) -> Path:
        path = tmp_path / "trial.yaml"
        path.write_text(text.replace("CONFIG", str(tmp_path / "tiny.yaml")))
        return path

    return write


@pytest.fixture
def define(write: Callable[..., Path]) -> Callable[..., Definition]:
    """That experiment, read."""
    return lambda text=EXPERIMENT: load_definition(write(text))


class InProcess:
    """Stands for the process of a run: makes it here and now, and has ended when it is looked at."""

    stdin = None

    def __init__(self, job: dict[str, Any], output: Path) -> None:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            self.returncode = run_job(job)
        with open(output, "a", encoding="utf-8") as file:
            file.write(said.getvalue())

    def poll(self) -> int:
        """Its exit code."""
        return self.returncode


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are made in this process, which saves them the seconds in which a new one imports torch."""
    monkeypatch.setattr(runner, "_spawn", lambda job, output, threads: InProcess(job, output))
    monkeypatch.setattr(runner, "_POLL", 0)
