"""A data set of a few real clips and the smallest run on it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mover.config import Config
from mover.configs import load_config
from mover.data.synthetic import generate

TINY = {
    "train.steps": 4, "train.batch_size": 6, "train.log_every": 1, "train.validate_every": 2,
    "train.checkpoint_every": 2, "train.threads": 1, "train.device": "cpu", "data.workers": 0, "data.image_size": 32,
    "data.frames": 2, "data.audio_seconds": 1.0, "model.embed_dim": 16,
    "model.text.layers": 1, "model.text.hidden_size": 16, "model.text.heads": 2, "model.text.intermediate_size": 16,
    "model.text.dropout": 0.1,
    "model.video.layers": 1, "model.video.hidden_size": 16, "model.video.heads": 2, "model.video.intermediate_size": 16,
    "model.audio.layers": 1, "model.audio.hidden_size": 16, "model.audio.heads": 2, "model.audio.intermediate_size": 16,
    "model.audio.embed_dim": 16,
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Equal arithmetic in every run, and no contention."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training, 6 validation and 6 test clips."""
    return generate(tmp_path_factory.mktemp("clips") / "data", train=12, validation=6, test=6, progress=False)


@pytest.fixture(scope="session")
def settings(manifest: Path) -> dict[str, Any]:
    """Dotted settings of a run of seconds, dropout on."""
    return {**TINY, "data.manifest": str(manifest)}


@pytest.fixture
def config(settings: dict[str, Any], tmp_path: Path) -> Config:
    """That run, in a folder of its own."""
    return load_config("demo", {**settings, "output": str(tmp_path / "runs")})
