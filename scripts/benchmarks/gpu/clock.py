"""Time and memory of what runs on a GPU.

CUDA events around each call; before it the L2 cache is flushed, behind a pause that lets the host run ahead, so that a
call is not charged for what Python takes to begin it. After warm-ups each is timed for about SECONDS, at least LEAST
and at most MOST times: the median, and the 20th and 80th percentiles. Contenders are measured one after another.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

Run = Callable[[], Any]
SECONDS, LEAST, MOST = 0.25, 5, 100
LIMIT = 2.0  # seconds: what takes longer is timed once
NO_TIME = "no time was left"


class OutOfTime(Exception):
    """The time that the benchmarks were given is over."""

    def __init__(self) -> None:
        super().__init__(NO_TIME)


class Clock:
    """`deadline`, of time.monotonic: when no further measurement is begun."""

    device = torch.device("cuda")

    def __init__(self, deadline: float = float("inf")) -> None:
        self.deadline = deadline
        self.cache_bytes = torch.cuda.get_device_properties(0).L2_cache_size
        self._flushed = torch.empty(max(4 * self.cache_bytes, 2**26), dtype=torch.int8, device=self.device)

    def check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise OutOfTime

    def times(self, run: Run, separate: bool = False) -> dict:
        """{"ms": median, "low": 20th percentile, "high": 80th, "runs": count} of a call. `separate`: it uses streams
        of its own, as JAX does, so that what was queued before has to be waited for."""
        self.check_time()
        run()
        self.wait()
        begin = time.perf_counter()
        run()
        self.wait()
        took = time.perf_counter() - begin
        if took > LIMIT:
            return summary([1e3 * took])
        count = int(min(MOST, max(LEAST, SECONDS / max(took, 1e-6))))
        return summary(self.samples(run, count, separate))

    def samples(self, run: Run, count: int, separate: bool) -> list[float]:
        """Milliseconds of each of `count` calls."""
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
        for first, last in pairs:
            self._flushed.zero_()
            if separate:
                self.wait()
            else:
                torch.cuda._sleep(200_000)  # cycles, about a tenth of a millisecond
            first.record()
            run()
            last.record()
        self.wait()
        return [first.elapsed_time(last) for first, last in pairs]

    def seconds(self, run: Run) -> float:
        """The median of a call."""
        return self.times(run)["ms"] / 1e3

    def graph_of(self, run: Run) -> Run:
        """The call as a CUDA graph. Raises where it cannot be captured."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        self.wait()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return graph.replay

    def peak_mebibytes(self, run: Run) -> float:
        """Memory that a call takes above what is in use before it, at its highest; torch's allocator only."""
        run()
        gc.collect()
        self.wait()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        self.wait()
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    def wait(self) -> None:
        torch.cuda.synchronize()

    def free(self) -> None:
        """Gives memory back that nothing uses: for what comes next, and for libraries beside torch."""
        gc.collect()
        torch.cuda.empty_cache()


def summary(values: list[float]) -> dict:
    ordered = sorted(values)
    low, high = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.2, 0.8))
    return {"ms": statistics.median(values), "low": low, "high": high, "runs": len(values)}
