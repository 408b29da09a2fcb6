"""Entropic transport between pairs of modalities, in one batched call."""

from collections.abc import Sequence

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
    masses = clips.masses()
    a, b = (None, None) if masses is None else _sides(masses.unbind(), pairs)
    return ops.transport(
        *_sides(clips.rows, pairs),
        a,
        b,
        epsilon=config.epsilon,
        max_iter=config.max_iter,
        tol=config.tol,
        solver=config.solver,
    )


def pair_costs(clips: Clips, pairs: Pairs) -> Tensor:
    """Squared distances (pairs, B, B), without plans."""
    return ops.cost(*_sides(clips.rows, pairs))


def _sides(tensors: Sequence[Tensor], pairs: Pairs) -> tuple[Tensor, Tensor]:
    return torch.stack([tensors[first] for first, _ in pairs]), torch.stack([tensors[second] for _, second in pairs])
