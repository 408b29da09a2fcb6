"""Which device a run gets."""

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mover.errors import UserError
from mover.train import device as module
from mover.train.device import operators_run_on, peak_memory, pick_device, to_device


def test_names_that_are_no_device() -> None:
    for name in ("gpu", "tpu", "mps", "cuda:x", ""):
        with pytest.raises(UserError, match=f"must be auto, cpu, cuda or cuda:N, got '{name}'"):
            pick_device(name)
    with pytest.raises(UserError, match="'cuda:99' is not on this machine"):
        pick_device("cuda:99")
    assert pick_device("cpu").type == "cpu"
    assert operators_run_on(torch.device("cpu"))


def test_a_gpu_is_used_only_if_the_operators_run_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for built in (True, False):
        monkeypatch.setattr(module, "operators_run_on", lambda device, built=built: built)
        assert pick_device("auto").type == ("cuda" if built else "cpu")
    with pytest.raises(UserError, match="built for the CPU only; use cpu"):
        pick_device("cuda")


def test_a_batch_moves_with_all_its_tensors() -> None:
    batch = {"ids": ["a"], "video": {"pixels": torch.zeros(1)}, "index": torch.zeros(1)}
    moved = to_device(batch, torch.device("meta"))
    assert moved["ids"] == ["a"]
    assert moved["video"]["pixels"].device.type == moved["index"].device.type == "meta"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_peak_memory_on_a_cpu_is_that_of_the_process() -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    assert peak_memory(torch.device("cpu")) == pytest.approx(kibibytes / 1024, rel=0.02)


def pages_taken(**environment: str) -> int:
    """Page faults of a process that keeps freed memory, and fills and frees 16 MiB a hundred times."""
    program = """
import resource
import torch
from mover.train.device import keep_freed_memory
keep_freed_memory()
def fill():
    torch.empty(2**22).fill_(1.0)
for _ in range(20):
    fill()
taken = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = taken()
for _ in range(100):
    fill()
print(taken() - first)
"""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, env=kept | environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_freed_memory_is_kept_unless_the_environment_says_otherwise() -> None:
    pages = 100 * 2**24 // resource.getpagesize()
    assert pages_taken() < pages / 10
    assert pages_taken(MALLOC_MMAP_THRESHOLD_="1048576") > pages / 2
    assert pages_taken(GLIBC_TUNABLES="glibc.malloc.mmap_threshold=1048576") > pages / 2
