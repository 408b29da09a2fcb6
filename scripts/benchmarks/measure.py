"""How the benchmarks measure: one pinned thread, contenders in turn, medians, peak memory, and what they ran on."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch

Run = Callable[[], object]


def pin_one_thread() -> None:
    """Restricts the process to one processor and torch to one thread."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)


def interleaved(contenders: dict[str, Run], seconds: float = 2.0, least: int = 5, most: int = 200) -> dict[str, dict]:
    """Median milliseconds of each contender. All run in turn, A B C A B C …, so that a machine that changes its speed
    changes it for all. `seconds` is the time aimed at for the slowest contender.

    Returns:
        name → {"ms": median, "low": 20th percentile, "high": 80th percentile, "runs": count}.
    """
    slowest = 0.0
    for run in contenders.values():
        begin = time.perf_counter()
        run()
        slowest = max(slowest, time.perf_counter() - begin)
    rounds = int(min(most, max(least, seconds / slowest)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            gc.collect()
            begin = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: _summary(values) for name, values in times.items()}


def _summary(values: list[float]) -> dict:
    ordered = sorted(values)
    pick = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))]  # noqa: E731
    return {"ms": statistics.median(values), "low": pick(0.2), "high": pick(0.8), "runs": len(values)}


def peak_mebibytes(run: Run) -> float:
    """Memory that `run` takes above what is in use before it, at its highest (resident pages; Linux with glibc)."""
    run()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # give freed pages back, so that taking them again shows
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise KeyError(key)


def environment() -> dict:
    """Processor, versions and commit."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    flags = Path("/proc/cpuinfo").read_text()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True
    ).stdout
    import mover

    return {
        "processor": model,
        "instruction set": "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "baseline",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mover": mover.__version__,
        "commit": commit + (" with changes" if dirty.strip() else ""),
    }
