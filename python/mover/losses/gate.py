"""Doubt about pairs that are given as aligned: what a plan would hardly match is left out of the contrasts."""

from __future__ import annotations

import torch
from torch import Tensor

from mover.config import GateConfig, MatchingConfig
from mover.losses.embeddings import Clips
from mover.losses.matching import matched_shares


@torch.no_grad()
def trusted_rows(clips: Clips, gate: GateConfig) -> Tensor:
    """bool (B,): the rows of the first modality, the anchor, that go with those of the other modalities of their clip.

    A row is trusted where each other modality that its clip has gets at least `gate.threshold` of the row's mass, by
    the entropic plan of the batch or by softmax (`matched_shares`). A clip without the anchor is trusted.
    """
    if clips.fewest() < 2:  # nothing to compare with
        return torch.ones(clips.rows[0].shape[0], dtype=torch.bool, device=clips.rows[0].device)
    by = "softmax" if gate.by == "softmax" else "transport"
    matching = MatchingConfig(by=by, epsilon=gate.epsilon, mass=gate.mass)
    shares = matched_shares(clips, matching, [[m] for m in range(len(clips.rows))])
    doubted = shares.diagonal(dim1=-2, dim2=-1) < gate.threshold  # (k-1, B)
    if clips.present is not None:
        doubted &= clips.present[0] & clips.present[1:]
    return ~doubted.any(dim=0)
