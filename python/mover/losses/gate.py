"""Doubt about pairs that are given as aligned: what a plan would hardly match is left out of the contrasts."""

from __future__ import annotations

import torch
from torch import Tensor

from mover.config import GateConfig, MatchedBy, MatchingConfig
from mover.losses.embeddings import Clips
from mover.losses.matching import matched_shares


@torch.no_grad()
def trusted_rows(clips: Clips, by: MatchedBy, gate: GateConfig) -> Tensor:
    """bool (B,): the rows of the first modality, the anchor, that are taken to go with the others of their clip.

    All but the `gate.wrong` of them whose own clip gets the least share of their mass (`matched_shares`), the other
    modalities being one side with the mean of their costs: by the plan of the batch that matches all mass but that
    share, or by softmax. A clip without the anchor, or without another modality, is trusted.

    Source: the known share of wrong labels is that of co-teaching, Han et al. (2018).
    """
    size, others = clips.rows[0].shape[0], list(range(1, len(clips.rows)))
    if clips.fewest() < 2:  # nothing to compare with
        return torch.ones(size, dtype=torch.bool, device=clips.rows[0].device)
    mass = 1 - gate.wrong if by == "transport" else 1.0
    shares = matched_shares(clips, MatchingConfig(by=by, epsilon=gate.epsilon, mass=mass), [[0], others])
    own = shares[0].diagonal()
    comparable = torch.ones_like(own, dtype=torch.bool)
    if clips.present is not None:
        comparable = clips.present[0] & clips.present[1:].any(dim=0)
    own = torch.where(comparable, own, torch.inf)
    return own.argsort(stable=True).argsort() + 1 > gate.wrong * comparable.sum()
