"""Groups and their weights by plain loops: the star coupling of MOVER's equation 8, and what is kept of it."""

from collections.abc import Sequence
from itertools import combinations, product

import torch
from torch import Tensor

from cases.operators import unit_rows
from mover import reference

Weights = dict[tuple[int, ...], Tensor]


def embeddings(names: Sequence[str], n: int, d: int) -> dict[str, Tensor]:
    """Unit rows (n, d), float64, of modalities that resemble each other; leaves that ask for a gradient."""
    common = unit_rows(n, d, seed=9)
    return {
        name: torch.nn.functional.normalize(common + 0.6 * unit_rows(n, d, seed=seed), dim=1).requires_grad_()
        for seed, name in enumerate(names, start=1)
    }


def sets(sizes: dict[str, int], d: int) -> dict[str, Tensor]:
    """`embeddings` of which every modality keeps its first rows only, as many as `sizes` says."""
    z = embeddings(list(sizes), max(sizes.values()), d)
    return {name: z[name].detach()[:size].requires_grad_() for name, size in sizes.items()}


def mixed(z: dict[str, Tensor]) -> dict[str, Tensor]:
    """The rows of every modality in a random order of its own."""
    return {
        name: rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(m))]
        for m, (name, rows) in enumerate(z.items())
    }


def star_weights(plans: list[Tensor], masses: Tensor) -> Weights:
    """plans (B, B) from the anchor to every other modality, masses (B) of the anchor -> weight of every group."""
    n = len(masses)
    weights = {}
    for group in product(range(n), repeat=len(plans) + 1):
        i = group[0]
        if masses[i] == 0:
            continue
        weight = masses[i]
        for plan, j in zip(plans, group[1:], strict=True):
            weight = weight * plan[i, j] / masses[i]
        weights[group] = weight
    return weights


def best_weights(plans: list[Tensor], masses: Tensor, count: int) -> Weights:
    """Of those the groups of each anchor's `count` best matches, renormalised to the sum 1."""
    kept = {}
    for group, weight in star_weights(plans, masses).items():
        best = [set(plan[group[0]].argsort(descending=True)[:count].tolist()) for plan in plans]
        if all(j in row for row, j in zip(best, group[1:], strict=True)) and weight > 0:
            kept[group] = weight
    total = sum(kept.values())
    return {group: weight / total for group, weight in kept.items()}


def members(rows: list[Tensor], group: tuple[int, ...]) -> Tensor:
    """The rows (k, d) of a group."""
    return torch.stack([tensor[i] for tensor, i in zip(rows, group, strict=True)])


def weighted_volume(rows: list[Tensor], weights: Weights) -> Tensor:
    """sum of weight times volume."""
    return torch.stack([w * reference.volume(members(rows, group)) for group, w in weights.items()]).sum()


def weighted_log_volume(rows: list[Tensor], weights: Weights) -> Tensor:
    """sum of weight times 1/2 log det(V V^T + 1e-6 I)."""
    terms = []
    for group, weight in weights.items():
        vectors = members(rows, group)
        smoothed = vectors @ vectors.T + 1e-6 * torch.eye(len(group), dtype=vectors.dtype)
        terms.append(weight * torch.linalg.slogdet(smoothed).logabsdet / 2)
    return torch.stack(terms).sum()


def weighted_cosine_distance(rows: list[Tensor], weights: Weights) -> Tensor:
    """sum of weight times the mean over pairs of 1 - cos."""
    terms = []
    for group, weight in weights.items():
        vectors = members(rows, group)
        distances = [1 - (first * second).sum() for first, second in combinations(vectors, 2)]
        terms.append(weight * sum(distances) / len(distances))
    return torch.stack(terms).sum()


def coupled(
    rows: Sequence[Tensor],
    present: Sequence[Tensor],
    epsilon: float,
    coupling: str = "transport",
    guide: float = 0.0,
    aligned: int | None = None,
) -> tuple[list[Tensor], Tensor]:
    """Plans (B, B) from the first modality to every other, and the masses (B) of its rows; of rows that are there only.

    The cost of (i, i) is lowered by `guide` for the first `aligned` rows. "softmax": row by row, of the cosines.
    """
    n = len(rows[0])
    here = [i for i in range(n) if present[0][i]]
    masses = torch.tensor([1 / len(here) if i in here else 0.0 for i in range(n)], dtype=torch.float64)
    plans = []
    for other, mask in zip(rows[1:], present[1:], strict=True):
        there = [j for j in range(n) if mask[j]]
        known = [[float(i == j and (aligned is None or i < aligned)) for j in there] for i in here]
        cost = reference.cost(rows[0][here], other[there]) - guide * torch.tensor(known, dtype=torch.float64)
        if coupling == "transport":
            small = reference.sinkhorn(cost, epsilon=epsilon).plan
        else:
            cosines = 1 - cost / 2
            entries = [[(cosine / (epsilon / 2)).exp() for cosine in row] for row in cosines]
            small = torch.stack([torch.stack(row) / (len(here) * sum(row)) for row in entries])
        plan = torch.zeros(n, n, dtype=torch.float64)
        plan[torch.tensor(here)[:, None], torch.tensor(there)] = small
        plans.append(plan)
    return plans, masses


def tangent(gradient: Tensor, rows: Tensor) -> Tensor:
    """The part along the sphere: all that is defined of the gradient of a function of unit rows."""
    return gradient - (gradient * rows).sum(-1, keepdim=True) * rows
