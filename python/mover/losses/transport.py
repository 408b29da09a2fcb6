"""Entropic transport between pairs of modalities, in one batched call.

Of a large batch the processes of a run divide the rows among themselves while they solve (`transport.shard_rows`). All
of them then have to ask for the same plans, and all get them whole.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from mover import ops
from mover.config import TransportConfig
from mover.distributed.sinkhorn import sharded_sinkhorn
from mover.losses.embeddings import Clips
from mover.results import SinkhornResult, TransportResult

Pairs = Sequence[tuple[int, int]]
"""Positions of modalities."""


def transport_pairs(clips: Clips, pairs: Pairs, config: TransportConfig) -> TransportResult:
    """TransportResult with one problem per pair, (pairs, B, B), masses uniform over the rows that are there.

    Every modality has to have a row. The plan of a row that is not there is 0.
    """
    a, b = pair_masses(clips, pairs)
    if not _divides(clips.rows[0].shape[0], config):
        return ops.transport(*_sides(clips.rows, pairs), a, b, **settings(config))
    cost = pair_costs(clips, pairs)
    plan, *others = solve(cost, a, b, config)
    return TransportResult(plan, cost, *others)


def solve(cost: Tensor, a: Tensor | None, b: Tensor | None, config: TransportConfig) -> SinkhornResult:
    """The plans of costs (pairs, B, B) with masses (pairs, B), None uniform. No gradient goes to the masses."""
    solver = sharded_sinkhorn if _divides(cost.shape[-1], config) else ops.sinkhorn
    return solver(cost, a, b, **settings(config))


def solve_partial(cost: Tensor, a: Tensor | None, b: Tensor | None, mass: float, config: TransportConfig) -> Tensor:
    """The plans (pairs, B, B) that transport only `mass`, in (0, 1], of masses a, b (pairs, B) that sum to 1.

    argmin of <P, C> + epsilon (KL(P | a b^T) + KL(s | a) + KL(t | b)) over P, s, t >= 0 with P 1 + s = a,
    P^T 1 + t = b and sum P = mass: s and t are what is left of rows and columns. It is the problem of `solve` with one
    more row and column, which cost nothing and take all that is left, but not from each other.

    Source: Chapel et al., "Partial optimal transport with applications on positive-unlabeled learning" (2020).
    """
    if mass == 1:
        return solve(cost, a, b, config).plan
    pairs, n, m = cost.shape
    left = 1 - mass
    a, b = (
        pad(cost.new_full((pairs, size), 1 / size) if masses is None else masses, (0, 1), value=left) / (1 + left)
        for masses, size in ((a, n), (b, m))
    )
    padded = pad(cost, (0, 1, 0, 1))
    padded[:, -1, -1] = 2 * cost.detach().amax((-2, -1)) + 100 * config.epsilon  # exp(-100): nothing goes there
    return (1 + left) * solve(padded, a, b, config).plan[:, :n, :m]


def envelope_values(solved: TransportResult, clips: Clips, pairs: Pairs) -> Tensor:
    """The optimal value (pairs) of each problem that `transport_pairs` solved, as `ops.transport_value` has it.

    Its gradient is that of the envelope theorem, dOT/dC = P, and asks for no linear solve.
    """
    a, b = pair_masses(clips, pairs)
    n = solved.f.shape[-1]
    values = (solved.f * (1 / n if a is None else a)).sum(-1) + (solved.g * (1 / n if b is None else b)).sum(-1)
    linear = (solved.plan.detach() * solved.cost).sum((-2, -1))
    return linear + (values - linear).detach()


def self_values(clips: Clips, config: TransportConfig) -> Tensor:
    """The optimal value (k) of transport from every modality to itself."""
    if _divides(clips.rows[0].shape[0], config):
        itself = [(m, m) for m in range(len(clips.rows))]
        return envelope_values(transport_pairs(clips, itself, config), clips, itself)
    rows, masses = torch.stack(clips.rows), clips.masses()
    return ops.transport_value(rows, rows, masses, masses, **settings(config))


def settings(config: TransportConfig) -> dict[str, Any]:
    """The arguments by which the operators solve."""
    return {"epsilon": config.epsilon, "max_iter": config.max_iter, "tol": config.tol, "solver": config.solver}


def pair_costs(clips: Clips, pairs: Pairs) -> Tensor:
    """Squared distances (pairs, B, B), without plans."""
    return ops.cost(*_sides(clips.rows, pairs))


def pair_masses(clips: Clips, pairs: Pairs) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """The masses (pairs, B) of the rows of the first and of the second modality; None where every row is there."""
    masses = clips.masses()
    return (None, None) if masses is None else _sides(masses.unbind(), pairs)


def _divides(size: int, config: TransportConfig) -> bool:
    """Whether the processes of the run solve together for plans of so many rows."""
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return several and 0 < config.shard_rows <= size


def _sides(tensors: Sequence[Tensor], pairs: Pairs) -> tuple[Tensor, Tensor]:
    return torch.stack([tensors[first] for first, _ in pairs]), torch.stack([tensors[second] for _, second in pairs])
