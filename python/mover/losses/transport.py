"""Entropic transport between all pairs of modalities, in one batched call."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mover import ops
from mover.config import TransportConfig
from mover.losses.embeddings import pairs_of
from mover.results import TransportResult


def transport_pairs(rows: Mapping[str, Tensor], modalities: Sequence[str], config: TransportConfig) -> TransportResult:
    """rows (B, d) of each modality -> TransportResult with one problem per pair, (k(k-1)/2, B, B), uniform masses.

    Pairs stand in lexicographic order of the modalities' positions.
    """
    pairs = pairs_of(modalities)
    return ops.transport(
        torch.stack([rows[first] for first, _ in pairs]),
        torch.stack([rows[second] for _, second in pairs]),
        epsilon=config.epsilon,
        max_iter=config.max_iter,
        tol=config.tol,
        solver=config.solver,
    )
