"""The logarithm of the volume, smoothed: 1/2 log det(G + eps^2 I) with G the Gram matrix of a group of unit rows.

Its gradient grows like one over the angle between the rows, and eps = 1e-3 is where it stops growing. Everything is
float64 and computed from the squared distances, G_ij = 1 - C_ij / 2, which hold the digits of close rows.
"""

import torch
from torch import Tensor

from mover import ops

EPS = 1e-3


def pair_log_volumes(cost: Tensor) -> Tensor:
    """Squared distances (...) of pairs of unit rows -> (...) float64: the logarithm of the volume of each pair."""
    alpha = cost.double() / 2  # 1 - cos
    return ((EPS**2 + alpha) * (2 + EPS**2 - alpha)).log() / 2  # (1 + eps^2)^2 - cos^2


def group_log_volumes(costs: Tensor, groups: Tensor) -> Tensor:
    """costs (k(k-1)/2, B, B) of all pairs in lexicographic order, groups int64 (T, k) -> (T) float64."""
    k = groups.shape[1]
    costs = costs.double()  # before the gather: torch sums float32 gradients of repeated entries in no fixed order
    diagonal = costs.new_full((groups.shape[0],), 1 + EPS**2)
    entries = [[diagonal] * k for _ in range(k)]
    pairs = [(p, q) for p in range(k) for q in range(p + 1, k)]
    for cost, (p, q) in zip(costs, pairs, strict=True):
        entries[p][q] = entries[q][p] = 1 - cost[groups[:, p], groups[:, q]] / 2
    grams = torch.stack([torch.stack(row, dim=-1) for row in entries], dim=-2)  # (T, k, k)
    return ops.logdet(grams).logdet / 2
