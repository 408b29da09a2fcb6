"""How the benchmarks measure: one pinned thread, contenders in turn, medians, peak memory, and what they ran on."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import os
import platform
import statistics
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Run = Callable[[], Any]
LIMIT = 4.0  # seconds: a contender whose one call takes longer is not called again, nor for larger sizes
SECONDS, MOST = 1.5, 100  # how long each contender is timed at each size, and at most how often
PEERS = ("pot", "geomloss", "ott-jax", "jax", "numpy")  # whose versions are recorded


class TooSlow(Exception):
    """One call of a contender takes more than LIMIT seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"one call takes {seconds:.0f} s")


def pin_one_thread() -> None:
    """Restricts the process to one processor, and torch and XLA (if it is imported later) to one thread."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["JAX_PLATFORMS"] = "cpu"
    torch.set_num_threads(1)


def keep_freed_pages(keep: bool) -> None:
    """Whether glibc's malloc keeps freed memory. By default it gives every large block back to the system and takes it
    again page by page, which costs temporaries of many MiB up to half of their time. Timings keep it, for all
    contenders alike; without glibc nothing changes."""
    malloc = ctypes.CDLL(None)
    if hasattr(malloc, "mallopt"):
        most_mapped, trim_threshold = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
        malloc.mallopt(most_mapped, 0 if keep else 65536)
        malloc.mallopt(trim_threshold, -1 if keep else 128 * 1024)
        malloc.malloc_trim(0)


def timed(run: Run) -> tuple[float, Any]:
    """Seconds that one call takes, and what it returns."""
    begin = time.perf_counter()
    result = run()
    return time.perf_counter() - begin, result


def fewest_iterations(error_after: Callable[[int], float], tol: float, most: int = 2000) -> int:
    """The fewest iterations after which the error, which falls as they grow, is at most `tol`; found by doubling and
    bisection. Raises TooSlow, or ArithmeticError where `most` do not suffice."""

    def reached(count: int) -> bool:
        seconds, error = timed(lambda: error_after(count))
        if seconds > LIMIT:
            raise TooSlow(seconds)
        return error <= tol

    low, high = 0, 8
    while not reached(high):
        low, high = high, 2 * high
        if high > most:
            raise ArithmeticError(f"does not reach an L1 error of {tol:g} in {low} iterations")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def interleaved(contenders: dict[str, Run], least: int = 5) -> dict[str, dict]:
    """Median milliseconds of each contender. They run in turn, A B C A B C …, so that a machine that changes its speed
    changes it for all; a slow one sits out some of the rounds, evenly. After a first call that does not count, each
    runs for about SECONDS, at least `least` and at most MOST times, or not again if that call exceeded LIMIT.

    Returns:
        name → {"ms": median, "low": 20th percentile, "high": 80th percentile, "runs": count}.
    """
    keep_freed_pages(True)
    first = {name: timed(run)[0] for name, run in contenders.items()}
    again = {name: int(min(MOST, max(least, SECONDS / took))) for name, took in first.items() if took <= LIMIT}
    times = {name: [1e3 * took] if took > LIMIT else [] for name, took in first.items()}
    rounds = max(again.values(), default=0)
    gc.collect()
    gc.freeze()  # what exists by now need not be looked at before every call
    for turn in range(rounds):
        for name, count in again.items():
            if (turn + 1) * count // rounds > turn * count // rounds:
                gc.collect()
                times[name].append(1e3 * timed(contenders[name])[0])
    gc.unfreeze()
    return {name: _summary(values) for name, values in times.items()}


def _summary(values: list[float]) -> dict:
    ordered = sorted(values)
    pick = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))]  # noqa: E731
    return {"ms": statistics.median(values), "low": pick(0.2), "high": pick(0.8), "runs": len(values)}


def peak_mebibytes(run: Run, warm: bool = True) -> float:
    """Memory that `run` takes above what is in use before it, at its highest (resident pages; Linux with glibc).
    `warm` calls it once before, so that what is loaded or allocated once does not count."""
    if warm:
        run()
    gc.collect()
    keep_freed_pages(False)  # taking pages again must show
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise KeyError(key)


def absent(error: Exception) -> str:
    """Why a contender is not in a table, in a few words."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    if isinstance(error, TooSlow | ArithmeticError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")] or [""]
    causes = [line.rsplit("Error: ", 1)[1] for line in lines if "Error: " in line]  # of a traceback within the message
    return f"raises {type(error).__name__}: {textwrap.shorten((causes or lines)[-1 if causes else 0], 90)}"


def environment() -> dict:
    """Processor, versions and commit."""
    information = Path("/proc/cpuinfo").read_text()
    models = [line.split(":", 1)[1].strip() for line in information.splitlines() if line.startswith("model name")]
    git = lambda *words: subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()  # noqa: E731
    # Results that other benchmarks have just written are no changes.
    dirty = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)docs")
    import mover

    versions = {}
    for name in PEERS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "processor": models[0] if models else platform.processor(),
        "instruction set": "AVX-512" if "avx512f" in information else "AVX2" if "avx2" in information else "baseline",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mover": mover.__version__,
        **versions,
        "commit": git("rev-parse", "--short", "HEAD") + (" with changes" if dirty else ""),
    }
