"""Entropic transport between pairs of modalities, in one batched call."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mover import ops
from mover.config import TransportConfig
from mover.losses.embeddings import Clips
from mover.results import TransportResult

Pairs = Sequence[tuple[int, int]]
"""Positions of modalities."""


def transport_pairs(clips: Clips, pairs: Pairs, config: TransportConfig) -> TransportResult:
    """TransportResult with one problem per pair, (pairs, B, B), masses uniform over the rows that are there.

    Every modality has to have a row. The plan of a row that is not there is 0.
    """
    return ops.transport(*_sides(clips.rows, pairs), *pair_masses(clips, pairs), **settings(config))


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


def _sides(tensors: Sequence[Tensor], pairs: Pairs) -> tuple[Tensor, Tensor]:
    return torch.stack([tensors[first] for first, _ in pairs]), torch.stack([tensors[second] for _, second in pairs])
