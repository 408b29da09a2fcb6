"""A bounded run of every fuzz target of the Python package, the same inputs each time. scripts/fuzz has long ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")
FOUND = RUN.with_name("found")
RUNS = {
    "manifest": 1500, "importers": 400, "config": 300, "features": 800, "embeddings": 200, "beats": 60,
    "tokenizer": 200, "media": 120, "media_index": 500,
}  # fmt: skip
"""Target to inputs: a few seconds each."""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """run.py in a process of its own, for a crash to end."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run([sys.executable, RUN, *words], capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.parametrize("target", RUNS)
def test_targets_refuse_what_is_wrong(target: str, tmp_path: Path) -> None:
    done = run(target, "--runs", str(RUNS[target]), "--keep", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failures" in done.stdout and not list(tmp_path.iterdir())


def test_every_target_has_a_run() -> None:
    names = subprocess.run([RUN.parents[2] / "scripts" / "fuzz", "--list"], capture_output=True, text=True, check=True)
    assert set(names.stdout.split()) == {"arguments", "numbers", *RUNS}


@pytest.mark.parametrize("target", sorted({path.name.partition("-")[0] for path in FOUND.iterdir()}))
def test_what_once_failed_fails_no_more(target: str, tmp_path: Path) -> None:
    """An input a file, as scripts/fuzz kept it: <target>-<what was wrong with it>."""
    done = run(target, *map(str, sorted(FOUND.glob(f"{target}-*"))), "--keep", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
