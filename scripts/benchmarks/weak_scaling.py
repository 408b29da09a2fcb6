"""Weak scaling: clips a second of one training process and of two, each on a core of its own and with as many clips.

`mover train` with the towers and the objective of the demo, clips of the embedded data set decoded before; one process
with a batch of 64, two with one of 128 between them, connected by gloo. Each computes the objective of the whole batch.
"2, apart" are two runs of one process each at the same time: what the cores give that share a machine. Rounds
alternate; the table has the medians over rounds of the median clips a second of a run, without its first steps.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from tables import table as markdown

SHARE, STEPS, WARM, ROUNDS = 64, 12, 4, 5
KINDS = (("1", 1, 1), ("2", 1, 2), ("2, apart", 2, 1))  # name, runs at the same time, processes of each
QUICK = (6, 3, 1, 1)


def run(quick: bool) -> list[dict]:
    """One row for each round and number of processes; a machine of one core has no more than one."""
    share, steps, warm, rounds = QUICK if quick else (SHARE, STEPS, WARM, ROUNDS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        counts = [f"--train={2 * share}", "--val=2", "--test=2"]
        subprocess.run(
            [sys.executable, "-m", "mover", "synth", "--out", data, *counts], check=True, capture_output=True
        )
        for turn in range(rounds):
            for kind, runs, size in KINDS:
                if runs * size > (os.cpu_count() or 1):
                    continue
                started = [_start(size, number, share * size, steps, data, Path(folder)) for number in range(runs)]
                rate = sum(_clips_a_second(*run, warm) for run in started)
                rows.append({"processes": kind, "batch": share * size, "round": turn, "clips/s": rate})
                print(f"processes {kind}: {rate:.1f} clips/s", flush=True)
    return rows


def _start(
    size: int, number: int, batch: int, steps: int, data: Path, folder: Path
) -> tuple[Path, list[subprocess.Popen[str]]]:
    """The log and the processes of a run, on the cores from `number` on."""
    log = folder / f"run-{number}" / "log.jsonl"
    log.unlink(missing_ok=True)
    settings = {
        "data.manifest": data / "manifest.jsonl", "output": folder, "name": f"run-{number}", "train.batch_size": batch,
        "train.steps": steps, "train.log_every": 1, "train.validate_every": 1000, "train.checkpoint_every": 1000,
        "train.threads": 1, "train.device": "cpu", "train.diagnose_every": 0, "data.cache": "memory",
        "objective.mover_start": 0,
    }  # fmt: skip
    words = ["train", "--config", "demo", "--overwrite", *(f"{name}={value}" for name, value in settings.items())]
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    world = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = []
    for rank in range(size):
        own = {key: str(value) for key, value in {**world, "RANK": rank, "LOCAL_RANK": rank}.items()}
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "mover", *words], env={**os.environ, "OMP_NUM_THREADS": "1", **own},
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                preexec_fn=partial(os.sched_setaffinity, 0, {number + rank}),
            )
        )  # fmt: skip
    return log, started


def _clips_a_second(log: Path, started: list[subprocess.Popen[str]], warm: int) -> float:
    """The median over the steps of a run, once it has ended."""
    said = [process.communicate()[1] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"training failed: {' '.join(said).strip()[-400:]}")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return statistics.median([line["samples_per_second"] for line in lines if line["kind"] == "train"][warm:])


def table(rows: list[dict]) -> str:
    """Markdown."""
    rates = {
        kind: statistics.median(row["clips/s"] for row in rows if row["processes"] == kind)
        for kind in dict.fromkeys(row["processes"] for row in rows)
    }
    batches = {row["processes"]: row["batch"] for row in rows}
    lines = [[kind, str(batches[kind]), f"{rate:.1f}", f"{rate / rates['1']:.2f}x"] for kind, rate in rates.items()]
    return markdown(["processes", "batch", "clips a second", "against one"], lines)
