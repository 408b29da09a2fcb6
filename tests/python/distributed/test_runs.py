"""Whole runs under torchrun: one folder, one log, the losses of one process, exact resume, a clean stop of all."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from cases.processes import torchrun, torchrun_command, torchrun_environment
from mover.config import Config
from mover.configs import load_config, save_config
from mover.data.synthetic import generate
from mover.train.logging import read_log
from mover.train.trainer import train

_SIZES = {"layers": 1, "hidden_size": 16, "heads": 2, "intermediate_size": 16}
SETTINGS: dict[str, Any] = {
    "train.steps": 6, "train.batch_size": 7, "train.log_every": 1, "train.validate_every": 3,
    "train.checkpoint_every": 2, "train.threads": 1, "train.device": "cpu", "data.workers": 0, "data.image_size": 32,
    "data.frames": 2, "data.audio_seconds": 1.0, "evaluate.batch_size": 2, "model.embed_dim": 16,
    "model.audio.embed_dim": 16,
    **{f"model.{tower}.{name}": value for tower in ("text", "video", "audio") for name, value in _SIZES.items()},
    "model.audio.layers": 2,
}  # fmt: skip
STILL = {f"model.{tower}.dropout": 0.0 for tower in ("text", "video", "audio")}
TRAIN = str(Path(__file__).parents[3] / "scripts" / "train.py")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("clips") / "data", train=15, validation=6, test=6, progress=False)


def config_of(manifest: Path, folder: Path, name: str, **settings: Any) -> tuple[Config, str]:
    """A configuration, and the file that holds it."""
    given = {**SETTINGS, "data.manifest": manifest, "output": folder / "runs", "name": name, **settings}
    config = load_config("demo", given)
    path = folder / f"{name}.yaml"
    save_config(config, path)
    return config, str(path)


def lines(config: Config, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_log(config.folder / "log.jsonl") if line["kind"] == kind]


def test_a_run_of_two_processes_is_that_of_one(manifest: Path, tmp_path: Path) -> None:
    alone, _ = config_of(manifest, tmp_path, "alone", **STILL)
    train(alone, console=Console(quiet=True))
    together, path = config_of(manifest, tmp_path, "together", **STILL)
    done = torchrun(2, TRAIN, "--config", path, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 processes (ddp)" in done.stdout and done.stdout.count("done: ") == 1
    assert "Warning" not in done.stderr
    for own, other in zip(lines(alone, "train"), lines(together, "train"), strict=True):
        assert other["loss"] == pytest.approx(own["loss"], abs=2e-4)
        assert other["rows"] == own["rows"] and other["grad_norm"] == pytest.approx(own["grad_norm"], rel=1e-2)
    assert [line["clips"] for line in lines(together, "validation")] == [
        line["clips"] for line in lines(alone, "validation")
    ]
    for folder in ("last", "best"):
        first, second = (load_file(c.folder / "checkpoints" / folder / "model.safetensors") for c in (alone, together))
        assert first.keys() == second.keys()


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_stopped_run_resumes_to_the_same_bits(manifest: Path, tmp_path: Path, parallel: str) -> None:
    """With dropout: each process has the state of its own generator back."""
    settings = {"train.parallel": parallel, "train.batch_size": 6, "train.steps": 12}
    through, path = config_of(manifest, tmp_path, "through", **settings)
    done = torchrun(2, TRAIN, "--config", path, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    halves, path = config_of(manifest, tmp_path, "halves", **settings)
    process = start(path, tmp_path)
    stop_after_a_step(process, halves)
    step = lines(halves, "train")[-1]["step"]
    done = torchrun(2, TRAIN, "--config", path, "--resume", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"from step {step}" in done.stdout or step == 12
    for kind in ("train", "validation"):
        timeless = [
            [{k: v for k, v in line.items() if k not in ("samples_per_second", "peak_mib")} for line in lines(c, kind)]
            for c in (through, halves)
        ]
        assert timeless[0] == timeless[1]
    first, second = (load_file(c.folder / "checkpoints" / "last" / "model.safetensors") for c in (through, halves))
    assert all(torch.equal(first[name], second[name]) for name in first)


def start(path: str, folder: Path) -> subprocess.Popen[str]:
    """Two processes that train in the background."""
    return subprocess.Popen(
        torchrun_command(2, TRAIN, "--config", path), cwd=folder, env=torchrun_environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def stop_after_a_step(process: subprocess.Popen[str], config: Config) -> str:
    """SIGTERM once a step is logged; what the processes said."""
    try:
        while not lines(config, "train"):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    return out


def test_a_signal_stops_all_processes_with_a_checkpoint(manifest: Path, tmp_path: Path) -> None:
    config, path = config_of(manifest, tmp_path, "stopped", **{"train.steps": 100000, "train.validate_every": 100000})
    out = stop_after_a_step(start(path, tmp_path), config)
    found = re.search(r"stopped after step (\d+) of 100000", out)
    assert found, out
    stopped = int(found[1])
    assert lines(config, "train")[-1]["step"] == stopped
    assert (config.folder / "checkpoints" / "last" / "state.pt").is_file()
    more = [f"--train.steps={stopped + 2}", "--resume"]
    done = torchrun(2, TRAIN, "--config", str(config.folder / "config.yaml"), *more, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in lines(config, "train")] == list(range(1, stopped + 3))


def test_an_error_is_said_once_and_all_processes_end(manifest: Path, tmp_path: Path) -> None:
    _, path = config_of(manifest, tmp_path, "wrong", **{"train.batch_size": 500})
    done = torchrun(2, TRAIN, "--config", path, folder=tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("A batch of 500 needs as many clips, and only 15") == 1


def test_a_full_disk_is_said_once_also_of_a_run_in_shards(manifest: Path, tmp_path: Path) -> None:
    """The state of the optimiser is larger than any file may be, and every process writes its part of it."""
    config, path = config_of(manifest, tmp_path, "full", **{"train.parallel": "fsdp", "train.batch_size": 6})
    limited = tmp_path / "limited.py"
    limited.write_text(
        "import resource, runpy\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        f"runpy.run_path({TRAIN!r}, run_name='__main__')\n"
    )
    done = torchrun(2, str(limited), "--config", path, folder=tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("cannot be written (File too large)") == 1, done.stderr
    assert "CheckpointException" not in done.stderr
    assert not list((config.folder / "checkpoints").iterdir())
