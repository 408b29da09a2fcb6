"""The mean of 1 - cos over the pairs of a group, in place of its volume: of listed groups, over all groups, as scores.

It is a mean over pairs, so sums over all groups need only the masses that pairs of rows have in the coupling, (B, B)
for each pair of modalities, whatever their number. 1 - cos is half the squared distance of unit rows. In [0, 2].
"""

import torch
from torch import Tensor

from mover.losses.embeddings import pairs_of


def group_cosine_distances(costs: Tensor, groups: Tensor) -> Tensor:
    """costs (k(k-1)/2, B, B) of all pairs in lexicographic order, groups int64 (T, k) -> (T) float64."""
    costs = costs.double()  # before the gather: torch sums float32 gradients of repeated entries in no fixed order
    pairs = pairs_of(range(groups.shape[1]))
    total = costs.new_zeros(groups.shape[0])
    for cost, (p, q) in zip(costs, pairs, strict=True):
        total = total + cost[groups[:, p], groups[:, q]]
    return total / (2 * len(pairs))


def star_cosine_distance(costs: Tensor, conditionals: Tensor, masses: Tensor | None) -> Tensor:
    """The sum over all B^k groups of star weight times distance -> scalar.

    The weight of a group (i_1, ..., i_k) is a_{i_1} prod_m T^m[i_1, i_m], T the conditionals (k-1, B, B) and a the
    masses (B) of the anchor's rows, None uniform; costs as in `group_cosine_distances`. Rows of T may have any sum s^m:
    the pair (p, q) has the masses sum over i of a_i T^p[i, j] T^q[i, l] prod s^m[i], m all others, and those of the
    anchor with q are a_i T^q[i, l] prod s^m[i].
    """
    n = costs.shape[-1]
    a = costs.new_full((n,), 1 / n) if masses is None else masses
    sums = conditionals.sum(-1)  # (k-1, B)
    pairs = pairs_of(range(conditionals.shape[0] + 1))
    total = costs.new_zeros(())
    with torch.autocast(costs.device.type, enabled=False):
        for cost, (p, q) in zip(costs, pairs, strict=True):
            rest = [m - 1 for m in range(1, len(sums) + 1) if m not in (p, q)]
            weighted = conditionals[q - 1] * (a * sums[rest].prod(dim=0)).unsqueeze(1)
            pair = weighted if p == 0 else conditionals[p - 1].mT @ weighted  # (B, B)
            total = total + (pair * cost).sum()
    return total / (2 * len(pairs))


def cyclic_cosine_distance(costs: Tensor, plans: Tensor) -> Tensor:
    """The mean distance of all triples (i, j, l) of weight p12[i,j] p13[i,l] p23[j,l] -> scalar; 0 without weight.

    costs, plans: (3, B, B) of the pairs (1,2), (1,3), (2,3).
    """
    p12, p13, p23 = plans
    with torch.autocast(plans.device.type, enabled=False):
        pairs = torch.stack([p12 * (p13 @ p23.mT), p13 * (p12 @ p23), p23 * (p12.mT @ p13)])
    mass = pairs[0].sum()
    return (pairs * costs).sum() / (6 * torch.where(mass == 0, 1, mass))


def cosine_scores(anchor: Tensor, others: Tensor, mask: Tensor | None = None) -> Tensor:
    """anchor (n, d), others (m, k-1, d) -> (n, m): the distance of the group of anchor_i and others_j.

    mask: (m, k-1) bool, which members are present, None all; the mean is over the pairs of those. Members that are not
    present have to be finite. 0 where none is.

    The pairs among the others do not depend on the anchor: they weigh in where an anchor chooses among groups, and
    cancel where a group chooses among anchors.
    """
    if mask is None:
        count = others.new_full((others.shape[0],), others.shape[1])
    else:
        others = torch.where(mask.unsqueeze(-1), others, 0)
        count = mask.sum(1).to(others.dtype)
    with torch.autocast(anchor.device.type, enabled=False):
        sums = others.sum(1)  # (m, d)
        among = (sums.square().sum(-1) - others.square().sum((-2, -1))) / 2  # sum of the cosines among the others
        pairs = count * (count + 1) / 2
        return (pairs - among - anchor @ sums.mT) / pairs.clamp(min=1)
