"""Problems of transport, and processes that solve them with their rows divided among one, two, three and four."""

from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import gradcheck

from cases.operators import masses, unit_rows
from cases.star import embeddings
from mover import ops
from mover.config import TransportConfig
from mover.distributed.sinkhorn import own_rows, plan_of, sharded_potentials, sharded_sinkhorn
from mover.losses.mover import MoverLoss
from mover.losses.ot_loop import OTLoopLoss
from mover.losses.transport import solve_partial

PROCESSES = 4
DIVIDED = TransportConfig(epsilon=1.0, tol=1e-12, max_iter=1000, shard_rows=6)
WHOLE = DIVIDED.model_copy(update={"shard_rows": 7})


class Problem(NamedTuple):
    """What a solver is given, and how exact it is to be."""

    cost: Tensor
    a: Tensor | None
    b: Tensor | None
    epsilon: float
    tol: float
    max_iter: int = 5000
    solver: str = "auto"

    def settings(self) -> dict:
        return {"epsilon": self.epsilon, "tol": self.tol, "max_iter": self.max_iter, "solver": self.solver}


def problems() -> dict[str, Problem]:
    """By name; those of float64 converge to the end."""
    rows = lambda n, seed: unit_rows(3, n, 8, seed=seed)  # noqa: E731
    several = ops.cost(rows(13, 0), rows(13, 1))
    near = torch.nn.functional.normalize(rows(13, 0) + 0.5 * rows(13, 1), dim=-1)
    twice = near.clone()
    twice[:, 1] = twice[:, 0]
    # costs of a small range, plus offsets that no plan depends on: at this epsilon, exponents up to 800
    offsets = 2 * torch.rand(3, 1, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    offsets[:, :, 4] = 4
    far = several / 100 + offsets
    some = torch.ones(3, 13, dtype=torch.float64)
    some[0, :4] = some[1, 5:] = some[2, 12] = 0
    some /= some.sum(1, keepdim=True)
    found = {
        "three pairs": Problem(several, None, None, 0.5, 1e-12),
        "more columns": Problem(several[:, :9], masses(3, 9), masses(3, 13, seed=1), 1.0, 1e-12),
        "missing": Problem(several, some, some.flip(0), 0.5, 1e-12),
        "duplicates": Problem(ops.cost(twice, twice), None, None, 1.0, 1e-12),
        "far columns": Problem(far, None, None, 0.005, 1e-12),
        "far and missing": Problem(far, some, some.flip(0), 0.005, 1e-12),
        "a row each": Problem(several[:, :4, :4].contiguous(), None, None, 0.5, 1e-12),
        "processes without rows": Problem(several[:, :2, :2].contiguous(), None, None, 0.5, 1e-12),
        "one row": Problem(several[:, :1], None, None, 0.5, 1e-12),
        "plain updates": Problem(several, None, None, 0.5, 1e-9, solver="sinkhorn"),
        "crawling": Problem(several, some, None, 0.05, 1e-12, max_iter=300),
        "newton": Problem(several, None, some, 0.1, 1e-12, max_iter=100, solver="newton"),
        "not to the end": Problem(ops.cost(rows(13, 0), near), None, None, 0.05, 0.0, max_iter=7),
    }
    single = {name: found[name] for name in ("three pairs", "missing", "far and missing", "duplicates", "newton")}
    for name, problem in single.items():
        cost, a, b = (None if tensor is None else tensor.float() for tensor in problem[:3])
        found[f"{name}, float32"] = problem._replace(cost=cost, a=a, b=b, tol=0.0)
    return found


def broken() -> Problem:
    """Three pairs, of which the second has a cost that is not a number, in the last row."""
    problem = problems()["three pairs"]
    cost = problem.cost.clone()
    cost[1, -1, 2] = torch.nan
    return problem._replace(cost=cost)


def differentiated() -> Problem:
    """Two pairs, with a row and a column that are not there."""
    a, b = masses(2, 4), masses(2, 3, seed=1)
    a[0, 1] = b[1, 0] = 0
    a, b = a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)
    return Problem(problems()["three pairs"].cost[:2, :4, :3].clone(), a, b, 0.5, 1e-12)


def solve(rank: int, folder: str) -> None:
    """A process of PROCESSES: writes what it finds in groups of 1, 2, … of them to folder/RANK.pt."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    found = {}
    for size in range(1, PROCESSES + 1):
        group = dist.new_group(list(range(size)))
        if rank >= size:
            continue
        for name, problem in problems().items():
            found[size, name] = sharded_sinkhorn(*problem[:3], **problem.settings(), group=group)
        found[size, "broken"] = sharded_sinkhorn(*broken()[:3], **broken().settings(), group=group)
        found[size, "own rows"] = _own_rows(group)
        found[size, "gradient"] = _gradient(group)
    for config in (DIVIDED, WHOLE):
        with patch("mover.losses.transport.sharded_sinkhorn", wraps=sharded_sinkhorn) as divided:
            found[config.shard_rows] = _losses(config), divided.call_count
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def _own_rows(group: dist.ProcessGroup) -> tuple[slice, Tensor]:
    """The part of a plan that a process makes which has seen no other row."""
    cost, a, b, *_ = problem = problems()["more columns"]
    rows = own_rows(cost.shape[1], group)
    own = cost[:, rows].clone()
    found = sharded_potentials(own, a, b, rows, **problem.settings(), group=group)
    return rows, plan_of(own, found.f[:, rows], found.g, a[:, rows], b, problem.epsilon)


def _gradient(group: dist.ProcessGroup) -> Tensor:
    """That of a weighted sum of the plan; and finite differences say so, too, on all processes in step."""
    problem = differentiated()
    cost = problem.cost.clone().requires_grad_()
    plan = lambda c: sharded_sinkhorn(c, *problem[1:3], **problem.settings(), group=group).plan  # noqa: E731
    assert dist.get_world_size(group) != 2 or gradcheck(plan, cost)  # minutes of exchanges, if all did
    (gradient,) = torch.autograd.grad((plan(cost) * weights(cost)).sum(), cost)
    return gradient


def _losses(config: TransportConfig) -> dict[str, list[Tensor]]:
    """Of losses that need plans, of clips that lack modalities, too: the value and the gradient of the rows."""
    found = {}
    implicit = config.model_copy(update={"plan_gradient": "implicit"})
    guided = config.model_copy(update={"guide": 0.2})
    names = ["text", "video", "audio"]
    losses = {
        "mover": MoverLoss(names, "text", config),
        "mover, implicit": MoverLoss(names, "text", implicit),
        "mover, guided": MoverLoss(names, "text", guided),
        "mover, softmax": MoverLoss(names, "text", config, coupling="softmax"),
        "ot_loop": OTLoopLoss(names, config),
    }
    for name, loss in losses.items():
        for present in (None, {"video": torch.arange(6) > 1}):
            z = embeddings(names, 6, 8)
            value = loss(z, present)
            key = name if present is None else f"{name}, missing"
            found[key] = [value.detach(), *torch.autograd.grad(value, list(z.values()))]
    cost = problems()["three pairs"].cost[:, :5, :5].contiguous()  # six rows with the one that takes what is left
    found["partial"] = [solve_partial(cost, None, None, 0.6, config)]
    return found


def weights(cost: Tensor) -> Tensor:
    """Numbers of the shape of the cost."""
    return torch.linspace(-1, 1, cost.numel(), dtype=cost.dtype).reshape(cost.shape).cos()
