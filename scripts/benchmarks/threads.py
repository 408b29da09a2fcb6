"""Two threads against one: transport, volume scores and the sum over triples.

One process, not pinned; the number of threads changes from call to call, so that both see the same machine. "products"
are torch's own, a control: where they gain nothing, the machine has no second processor to spare. Transport: three
pairs of "aligned" rows, d = 512, epsilon .1, an L1 error of 1e-3. Scores: the volumes of three modalities, d = 512.
Triples: plans of random rows, d = 128. float32; W is a fixed weight of the loss.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import contrast
import torch
import triples
from measure import interleaved
from problems import gradients, make, mover_plan
from tables import digits
from tables import table as markdown

import mover.ops

PAIRS, WIDTH, EPSILON, TOL = 3, 512, 0.1, 1e-3
SIZES, QUICK = (512, 1024, 2048), (256,)
TRIPLES, QUICK_TRIPLES = (128, 256, 512), (64,)


def run(quick: bool) -> list[dict]:
    """One row for each operation and size, from a process of its own that is not pinned."""
    if os.cpu_count() == 1:
        return []
    sizes, triple_sizes = (QUICK, QUICK_TRIPLES) if quick else (SIZES, TRIPLES)
    command = [sys.executable, Path(__file__), json.dumps(sizes), json.dumps(triple_sizes)]
    variables = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    child = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True)
    rows = json.loads(child.stdout)
    for row in rows:
        print(f"threads {row['operation']} {row['size']} {row['what']}: {row['speedup']:.2f}x", flush=True)
    return rows


def _rows(sizes: list[int], triple_sizes: list[int]) -> list[dict]:
    rows = []
    for size in sizes:
        problem = make("aligned", size, WIDTH, PAIRS, EPSILON, TOL)
        plan = mover_plan(problem, TOL)
        rows.append(_row("products", size, "forward", lambda: problem.x @ problem.y.mT))
        rows.append(_row("transport", size, "forward", lambda: plan(problem.x, problem.y)))
        rows.append(_row("transport", size, "forward + backward", lambda: gradients(plan, problem)))
        modalities = [problem.x[0], problem.y[0], problem.x[1]]
        others = torch.stack(modalities[1:], 1)
        weighted = lambda *r: (contrast.ours(*r) * problem.weight[0]).sum()  # noqa: E731
        rows.append(_row("scores", size, "forward", lambda: mover.ops.volume_scores(modalities[0], others)))
        rows.append(_row("scores", size, "forward + backward", lambda: contrast.gradients(weighted, modalities)))
    for size in triple_sizes:
        costs, plans = triples.problem(size)
        total = mover.ops.expected_volume
        rows.append(_row("triples", size, "forward", lambda: total(*costs, *plans)))
        rows.append(_row("triples", size, "forward + gradients", lambda: triples.gradients(total, costs, plans)))
    return rows


def _row(operation: str, size: int, what: str, call: Callable[[], object]) -> dict:
    def with_threads(count: int) -> Callable[[], object]:
        def run() -> object:
            torch.set_num_threads(count)
            return call()

        return run

    times = interleaved({str(count): with_threads(count) for count in (1, 2)})
    speedup = times["1"]["ms"] / times["2"]["ms"]
    return {"operation": operation, "size": size, "what": what, "times": times, "speedup": speedup}


def table(rows: list[dict]) -> str:
    """Markdown."""
    if not rows:
        return "This machine has one processor."
    lines = [
        [
            row["operation"],
            str(row["size"]),
            row["what"],
            digits(row["times"]["1"]["ms"]),
            digits(row["times"]["2"]["ms"]),
            f"{row['speedup']:.2f}",
        ]
        for row in rows
    ]
    return markdown(["", "B", "", "one thread, ms", "two threads, ms", "speed-up"], lines)


if __name__ == "__main__":
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    json.dump(_rows(*(json.loads(argument) for argument in sys.argv[1:])), sys.stdout)
