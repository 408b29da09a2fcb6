"""Runs of `mover train` to be timed: the demo's towers and objective, by processes that gloo connects.

Each process has one thread and a core of its own; clips are decoded before the first step.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path


@dataclass
class Started:
    """A run that trains: its log, and its processes."""

    log: Path
    processes: list[subprocess.Popen[str]]


def make_clips(folder: Path, count: int) -> Path:
    """The manifest of `count` clips of the embedded data set to train on."""
    counts = [f"--train={count}", "--val=2", "--test=2"]
    subprocess.run([sys.executable, "-m", "mover", "synth", "--out", folder, *counts], check=True, capture_output=True)
    return folder / "manifest.jsonl"


def start(manifest: Path, output: Path, processes: int, batch: int, steps: int, core: int = 0) -> Started:
    """A run of `batch` clips a step, of all processes together, on the cores from `core` on."""
    log = output / f"run-{core}" / "log.jsonl"
    log.unlink(missing_ok=True)
    settings = {
        "data.manifest": manifest, "output": output, "name": f"run-{core}", "train.batch_size": batch,
        "train.steps": steps, "train.log_every": 1, "train.validate_every": 1000, "train.checkpoint_every": 1000,
        "train.threads": 1, "train.device": "cpu", "train.diagnose_every": 0, "data.cache": "memory",
        "objective.mover_start": 0,
    }  # fmt: skip
    words = ["train", "--config", "demo", "--overwrite", *(f"{name}={value}" for name, value in settings.items())]
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    world = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = []
    for rank in range(processes):
        own = {key: str(value) for key, value in {**world, "RANK": rank, "LOCAL_RANK": rank}.items()}
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "mover", *words], env={**os.environ, "OMP_NUM_THREADS": "1", **own},
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                preexec_fn=partial(os.sched_setaffinity, 0, {core + rank}),
            )
        )  # fmt: skip
    return Started(log, started)


def clips_a_second(run: Started, warm: int) -> float:
    """Once the run has ended: the median over its steps, without the first `warm`."""
    said = [process.communicate()[1] for process in run.processes]
    if any(process.returncode for process in run.processes):
        raise RuntimeError(f"training failed: {' '.join(said).strip()[-400:]}")
    lines = [json.loads(line) for line in run.log.read_text().splitlines()]
    return statistics.median([line["samples_per_second"] for line in lines if line["kind"] == "train"][warm:])
