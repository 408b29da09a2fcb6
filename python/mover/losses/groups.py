"""Candidate groups: which groups of k clips are measured, and with which weights, where not all B^k can be.

Groups are made from the plans of the star, (k-1, B, B): from the anchor to every other modality. The weight of a
group (i_1, …, i_k) is that of the star coupling, a_{i_1} prod_m P^{(1,m)}_{i_1 i_m} / a_{i_1}, with a the masses of
the anchor's rows. Rows without mass are in no group. MOVER, section 2.2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mover.errors import UserError

MEMORY_BOUND = 1 << 30
"""Bytes that the groups of one call may take; more is refused before anything is allocated."""


class Groups(NamedTuple):
    """T groups: the row of each member, int64 (T, k), column m for modality m; and the weights, float64 (T)."""

    members: Tensor
    weights: Tensor


def conditionals(plans: Tensor, masses: Tensor | None) -> Tensor:
    """plans (..., B, B) that share the row masses (B), None uniform -> plans / masses, 0 in rows without mass."""
    if masses is None:
        return plans * plans.shape[-2]
    there = (masses > 0).unsqueeze(-1)
    return torch.where(there, plans / torch.where(there, masses.unsqueeze(-1), 1), 0)


def top_groups(plans: Tensor, masses: Tensor | None, count: int) -> Groups:
    """For every anchor all combinations of its `count` best matches in each modality, B count^(k-1) groups.

    The weights are those of the star coupling, renormalised to the sum 1; with count = 1 this is hard matching.
    Differentiable in plans through the weights; which groups there are is not. A count beyond B means B.
    """
    k, n = plans.shape[0] + 1, plans.shape[-1]
    count = min(count, n)
    plans = plans.double()  # torch sums the gradients of repeated float32 entries in no fixed order
    best = plans.detach().topk(count, dim=-1).indices  # (k-1, B, count)
    choices = torch.cartesian_prod(*[torch.arange(count, device=plans.device)] * (k - 1)).view(-1, k - 1)
    others = [best[m][:, choices[:, m]] for m in range(k - 1)]  # (B, count^(k-1)) each
    anchors = torch.arange(n, device=plans.device).unsqueeze(1).expand_as(others[0])
    members = torch.stack([anchors, *others], dim=-1).flatten(0, 1)
    weights = _anchor_masses(plans, masses)[members[:, 0]] * _matched(conditionals(plans, masses), members).prod(dim=0)
    kept = weights != 0  # a NaN stays, to be seen in the loss
    return Groups(members[kept], weights[kept] / weights.sum())


def sample_groups(plans: Tensor, masses: Tensor | None, draws: int) -> Groups:
    """For every anchor `draws` groups, each member drawn from the anchor's row of its plan, independently.

    Every group has the weight of what it stands for, 1 / (draws B) at convergence and uniform masses: the sum of
    weights times volumes is an unbiased estimate of eq. 8, and its gradient in plans one of the gradient of eq. 8.
    Draws from the default generator of torch on the device of the plans.
    """
    others, n, _ = plans.shape
    plans = plans.double()
    chances = plans.detach()
    rows = chances.sum(-1, keepdim=True)  # (k-1, B, 1)
    drawable = torch.where(rows > 0, chances, 1)  # rows without mass get the weight 0
    drawn = torch.multinomial(drawable.flatten(0, 1), draws, replacement=True).view(others, -1)  # (k-1, B draws)
    anchors = torch.arange(n, device=plans.device).repeat_interleave(draws)
    members = torch.stack([anchors, *drawn], dim=-1)
    # conditional over probability: the ratio of a row's mass in the plan to its mass, with the gradient of the plan
    probability = _matched(chances / torch.where(rows == 0, 1, rows), members)
    ratio = _matched(conditionals(plans, masses), members) / torch.where(probability == 0, 1, probability)
    weights = _anchor_masses(plans, masses)[anchors] * ratio.prod(dim=0) / draws
    kept = weights != 0
    return Groups(members[kept], weights[kept])


def check_size(groups: int, k: int, bytes_per_group: int, what: str, remedy: str) -> None:
    """Raises UserError, with the count, where so many groups of k members would not fit into MEMORY_BOUND."""
    size = groups * bytes_per_group
    if size > MEMORY_BOUND:
        raise UserError(
            f"{what} makes {groups:,} groups of {k} modalities, about {size / 2**30:.1f} GiB, more than the "
            f"{MEMORY_BOUND / 2**30:g} GiB that groups may take; {remedy}."
        )


def _anchor_masses(plans: Tensor, masses: Tensor | None) -> Tensor:
    n = plans.shape[-2]
    return plans.new_full((n,), 1 / n) if masses is None else masses.to(plans.dtype)


def _matched(matrices: Tensor, members: Tensor) -> Tensor:
    """matrices (k-1, B, B), members (T, k) -> (k-1, T), entries [anchor, member of modality m]."""
    others = torch.arange(matrices.shape[0], device=members.device).unsqueeze(1)
    return matrices[others, members[:, 0], members[:, 1:].T]
