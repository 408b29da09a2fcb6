"""What a CPU can tell of the model: the objective's memory and time, Sinkhorn with its rows divided, gloo's exchanges,
and whole steps of one and of two processes.

Every row is measured by processes of its own, each on one thread; times of exchanges are the least of many, those of
training steps medians of medians over rounds.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import measure
import training_runs

PARTS = ("objective", "solve", "epsilon", "exchange", "step")
WIDTH, NAMES = 512, ("text", "video", "audio")
OBJECTIVES = {  # settings of the objective → batches
    "mover, topk": ((1024, 2048, 4096), {"preset": "mover", "groups": "topk"}),
    "mover, hard": ((1024, 2048, 4096), {"preset": "mover", "groups": "hard"}),
    "gram": ((1024, 2048, 4096), {"preset": "gram"}),
    "pairwise": ((1024, 2048, 4096), {"preset": "pairwise"}),
}
SOLVES = ((2048, 1), (4096, 1), (2048, 2), (4096, 2))  # batch, processes
FULL_ITERATIONS = 20
EPSILONS = (0.2, 0.1, 0.07, 0.05)
BATCHES = (256, 1024, 4096)
PROCESSES = (2, 4)
SIZES = (1 << 12, 1 << 16, 1 << 20, 1 << 24, 1 << 26)  # bytes
STEPS = ((1, 32), (1, 64), (1, 128), (2, 64), (2, 128), (2, 256))  # processes, clips of a step
ROUNDS, STEPS_OF_A_RUN, WARM = 3, 12, 4


def run(part: str) -> list[dict]:
    """The rows of one of PARTS."""
    if part == "objective":
        return [_child({part: name, "batch": n}) for name, (batches, _) in OBJECTIVES.items() for n in batches]
    if part == "solve":
        return [_together(_solve, processes, {"batch": batch}) for batch, processes in SOLVES]
    if part == "epsilon":
        return [_child({part: value, "clips": batch}) for value in EPSILONS for batch in BATCHES]
    if part == "step":
        return steps()
    return [_together(_exchange, processes, {"bytes": size}) for processes in PROCESSES for size in SIZES]


def _child(setting: dict) -> dict:
    """A row, measured in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    words = [sys.executable, __file__, json.dumps(setting)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{setting} failed: {done.stderr.strip()[-400:]}")
    row = setting | json.loads(done.stdout.splitlines()[-1])
    print(row, flush=True)
    return row


def objective(setting: dict) -> dict:
    """CPU seconds and MiB of an objective, forward and backward, of random unit rows."""
    from mover.config import ObjectiveConfig

    torch.set_num_threads(1)
    again = _both_ways(ObjectiveConfig(**OBJECTIVES[setting["objective"]][1]), WIDTH, setting["batch"])
    peak = measure.peak_mebibytes(again)
    measure.keep_freed_pages(True)
    began = time.process_time()
    again()
    return {"CPU s": time.process_time() - began, "peak": peak}


def demo(setting: dict) -> dict:
    """Seconds of the demo's objective, forward and backward, with its transport term; and numbers of an embedding."""
    from mover.configs import load_config

    torch.set_num_threads(1)
    config = load_config("demo", {"objective.mover_start": 0.0})
    again = _both_ways(config.objective, config.model.embed_dim, setting["demo"])
    measure.keep_freed_pages(True)
    return {"s": statistics.median(measure.timed(again)[0] for _ in range(20)), "width": config.model.embed_dim}


def _both_ways(options, width: int, batch: int) -> Callable[[], None]:
    """An objective and its gradient, of random unit rows whose partners are near."""
    from mover.losses import build_objective

    loss = build_objective(options, NAMES)
    rows = torch.randn(3, batch, width, generator=torch.Generator().manual_seed(0))
    rows[1:] += rows[0]
    unit = torch.nn.functional.normalize(rows, dim=-1)
    z = {name: part.clone().requires_grad_() for name, part in zip(NAMES, unit, strict=True)}
    return lambda: loss(z)["total"].backward()


def steps() -> list[dict]:
    """Seconds of a step of `mover train` with the demo's towers, by one and by two processes, each on its core; what
    the objective is of it, measured alone; the parameters whose gradients are exchanged, and numbers of an embedding.
    Rounds alternate."""
    from safetensors.torch import load_file

    alone = {batch: _child({"demo": batch}) for batch in sorted({batch for _, batch in STEPS})}
    with tempfile.TemporaryDirectory() as folder:
        manifest = training_runs.make_clips(Path(folder) / "data", max(alone))
        taken: dict[tuple[int, int], list[float]] = {setting: [] for setting in STEPS}
        for _ in range(ROUNDS):
            for processes, batch in STEPS:
                run = training_runs.start(manifest, Path(folder), processes, batch, STEPS_OF_A_RUN)
                taken[processes, batch].append(batch / training_runs.clips_a_second(run, WARM))
        weights = load_file(run.log.parent / "checkpoints" / "last" / "model.safetensors")
    rows = [
        {"processes": processes, "batch": batch, "s": statistics.median(times), "objective": alone[batch]["s"],
         "width": alone[batch]["width"], "parameters": sum(weight.numel() for weight in weights.values())}
        for (processes, batch), times in taken.items()
    ]  # fmt: skip
    print(*rows, sep="\n", flush=True)
    return rows


def epsilon(setting: dict) -> dict:
    """Of rows whose partners have a mean cosine of 0.45: the share of a row's mass that the plan gives to its partner,
    and the iterations to an L1 error of 1e-3, of the operator and by rows."""
    from mover import ops
    from mover.distributed.sinkhorn import sharded_potentials

    torch.set_num_threads(1)
    generator, count = torch.Generator().manual_seed(0), setting["clips"]
    x = torch.nn.functional.normalize(torch.randn(1, count, WIDTH, generator=generator), dim=-1)
    noise = torch.randn(1, count, WIDTH, generator=generator) / WIDTH**0.5
    solved = ops.transport(x, torch.nn.functional.normalize(x / 2 + noise, dim=-1), epsilon=setting["epsilon"])
    masses = torch.full((1, count), 1 / count)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=0, world_size=1)
        options = {"epsilon": setting["epsilon"], "max_iter": 1000}
        alone = sharded_potentials(solved.cost, masses, masses, slice(0, count), **options)
        dist.destroy_process_group()
    share = float(solved.plan.diagonal(dim1=1, dim2=2).sum())
    return {"share": share, "iterations": int(solved.n_iter), "by rows": int(alone.n_iter)}


def _together(body: Callable, processes: int, setting: dict) -> dict:
    """A row of several processes that gloo connects: the longest time of any."""
    context = multiprocessing.get_context("spawn")
    found = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        parts = [
            context.Process(target=_member, args=(body, rank, processes, folder, setting, found))
            for rank in range(processes)
        ]
        for part in parts:
            part.start()
        times = [found.get() for _ in parts]
        for part in parts:
            part.join()
    row = {"processes": processes} | setting | {name: max(one[name] for one in times) for name in times[0]}
    print(row, flush=True)
    return row


def _member(body: Callable, rank: int, processes: int, folder: str, setting: dict, found) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes)
    found.put(body(setting))
    dist.destroy_process_group()


def _least(run: Callable, times: int) -> float:
    taken = []
    for _ in range(times):
        dist.barrier()
        taken.append(measure.timed(run)[0])
    return min(taken)


def _solve(setting: dict) -> dict:
    """FULL_ITERATIONS plain iterations of one pair, each with its all-reduce; and one process alone by the operator."""
    from mover import ops
    from mover.distributed.sinkhorn import own_rows, sharded_potentials

    batch = setting["batch"]
    x, y = torch.nn.functional.normalize(
        torch.randn(2, 1, batch, 64, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    rows = own_rows(batch)
    cost, masses = ops.cost(x[:, rows], y), torch.full((1, batch), 1 / batch)
    options = {"epsilon": 0.1, "max_iter": FULL_ITERATIONS, "tol": 0.0, "solver": "sinkhorn"}
    measure.keep_freed_pages(True)
    divided = _least(lambda: sharded_potentials(cost, masses, masses, rows, **options), 8)
    if dist.get_world_size() > 1:
        return {"s": divided}
    return {"s": divided, "operator": _least(lambda: ops.sinkhorn(cost, **options), 8)}


def _exchange(setting: dict) -> dict:
    """Seconds of an all-reduce of so many bytes, and of an all-gather to so many."""
    mine = torch.ones(setting["bytes"] // 4)
    part = mine[: len(mine) // dist.get_world_size()].clone()
    return {
        "all_reduce": _least(lambda: dist.all_reduce(mine), 30),
        "all_gather": _least(lambda: dist.all_gather_into_tensor(mine, part), 30),
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    body = next(body for body in (objective, epsilon, demo) if body.__name__ in given)
    print(json.dumps(body(given)))
