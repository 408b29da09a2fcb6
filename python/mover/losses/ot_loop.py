"""A consistent loop of transport distances: modalities whose rows need not be paired are drawn together as sets."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mover.config import TransportConfig
from mover.errors import UserError
from mover.losses.embeddings import Present, check_sets
from mover.losses.transport import envelope_values, self_values, transport_pairs

LEAST_RETURN = 1e-12
"""Chances of returning below it count as it does, with gradient 0: the logarithm stays finite."""


class OTLoopLoss(nn.Module):
    """sum over m of S_eps(P_m, P_{m+1}) + cycle R_cyc, for any k >= 2 modalities in a loop; which rows pair up is
    not used.

    S_eps(p, q) = OT_eps(p, q) - (OT_eps(p, p) + OT_eps(q, q)) / 2 is the debiased distance of two sets of rows.
    R_cyc = -mean_i log (T^12 T^23 … T^k1)_ii, over the rows i of the first modality: who goes once around the loop
    by the plans is to come back. T is a plan with its rows normalised; its gradient goes through the plans, exactly.
    k = 2 is one pair, with T^21 the normalised transpose of its plan. The loop follows the order of `modalities`.

    A modality may have more rows than another: smaller sets are filled up with rows of mass 0. Masses are uniform
    over the rows that are there. Where a modality has fewer than two, the loss and its gradient are 0.

    Source: Zhu & Luo, PRCV 2024; of debiasing, Feydy et al., Interpolating between optimal transport and MMD using
    Sinkhorn divergences, AISTATS 2019.
    """

    def __init__(self, modalities: Sequence[str], transport: TransportConfig, *, cycle: float = 1.0) -> None:
        """Raises UserError for fewer than two modalities."""
        super().__init__()
        if len(modalities) < 2:
            raise UserError(
                f"The ot_loop term goes from one modality to the next and needs at least two, got {list(modalities)}. "
                "Set objective.ot_loop to 0, or train more modalities."
            )
        self.modalities = list(modalities)
        self.transport, self.cycle = transport, cycle

    def forward(self, z: Mapping[str, Tensor], present: Present | None = None) -> Tensor:
        """z: unit rows (B_m, d) of every modality; present: which are there, bool (B_m,), None all -> scalar.

        Raises UserError for embeddings that do not fit.
        """
        clips = check_sets(z, self.modalities, present)
        if clips.fewest() < 2:
            return clips.zero()
        k = len(self.modalities)
        pairs = [(0, 1)] if k == 2 else [(m, (m + 1) % k) for m in range(k)]
        solved = transport_pairs(clips, pairs, self.transport)
        distances = envelope_values(solved, clips, pairs).sum()
        # every modality is in as many pairs as any other, and each pair takes half of its own value
        distances = distances - self_values(clips, self.transport).sum() * len(pairs) / k
        if self.cycle == 0:
            return distances
        return distances + self.cycle * cycle_loss(solved.plan, None if clips.present is None else clips.present[0])


def cycle_loss(plans: Tensor, first: Tensor | None) -> Tensor:
    """R_cyc of the plans (pairs, B, B) of a loop; first: rows (B,) of its first modality that are there -> scalar."""
    with torch.autocast(plans.device.type, enabled=False):
        steps = list(_row_normalised(plans))
        if len(steps) == 1:
            steps.append(_row_normalised(plans[0].mT))
        *onward, home = steps
        walk = onward[0]
        for step in onward[1:]:
            walk = walk @ step  # (B, B)
        returns = (walk * home.mT).sum(-1)  # (B), the diagonal of walk @ home
        costs = -returns.clamp(min=LEAST_RETURN).log()
        if first is None:
            return costs.mean()
        return torch.where(first, costs, 0).sum() / first.sum()


def _row_normalised(plans: Tensor) -> Tensor:
    """(..., B, B), rows summing to 1; rows without mass are 0."""
    sums = plans.sum(-1, keepdim=True)
    return plans / torch.where(sums == 0, 1, sums)
