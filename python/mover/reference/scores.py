"""The volume of every anchor with every group, by stacking all groups."""

import torch
from torch import Tensor

from mover.reference.volume import volume


def volume_scores(anchor: Tensor, others: Tensor) -> Tensor:
    """anchor (n, d), others (m, k-1, d) -> (n, m) float64: Vol(anchor_i, others_j)."""
    n, m = anchor.shape[0], others.shape[0]
    groups = torch.cat(
        [anchor.double()[:, None, None].expand(n, m, 1, -1), others.double()[None].expand(n, m, -1, -1)], dim=2
    )  # (n, m, k, d)
    return volume(groups)
