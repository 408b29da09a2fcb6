"""Transport of all modalities to their barycenter: modalities whose rows need not be paired meet in the middle."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mover import ops
from mover.config import TransportConfig
from mover.errors import UserError
from mover.losses.embeddings import Present, anchor_first, check_sets
from mover.losses.transport import settings

LEAST_ROUNDS, MOST_ROUNDS = 1, 5


class OTBarycenterLoss(nn.Module):
    """(1/k) sum over m of OT_eps(P_m, Y) for any k >= 2 modalities, Y their barycenter; which rows pair up is not used.

    Y starts from the anchor's rows and has their masses b. In each of `rounds` rounds every row of it becomes the
    mean, over modalities, of what is transported to it: y_j = (1/k) sum_m sum_i P^m_ij z^m_i / b_j, P^m the plan from
    modality m to the Y before. Rows of Y do not have unit norm. Y is held fixed in the gradient, which is that of the
    optimum only at the optimum: dR/dz^m_i = (2/k) sum_j P^m_ij (z^m_i - y_j).

    A modality may have more rows than another: smaller sets are filled up with rows of mass 0. Masses are uniform
    over the rows that are there. Where a modality has fewer than two, the loss and its gradient are 0.

    Source: Zhu & Luo, PRCV 2024; the rounds: Cuturi & Doucet, Fast computation of Wasserstein barycenters, ICML 2014,
    algorithm 2.
    """

    def __init__(self, modalities: Sequence[str], anchor: str, transport: TransportConfig, *, rounds: int = 2) -> None:
        """Raises UserError for fewer than two modalities, an unknown anchor, or rounds outside 1 to 5."""
        super().__init__()
        if len(modalities) < 2:
            raise UserError(
                f"The ot_barycenter term brings modalities together and needs at least two, got {list(modalities)}. "
                "Set objective.ot_barycenter to 0, or train more modalities."
            )
        if not LEAST_ROUNDS <= rounds <= MOST_ROUNDS:
            raise UserError(f"objective.barycenter_rounds: expected {LEAST_ROUNDS} to {MOST_ROUNDS}, got {rounds}.")
        self.modalities = anchor_first(modalities, anchor)
        self.transport, self.rounds = transport, rounds

    def forward(self, z: Mapping[str, Tensor], present: Present | None = None) -> Tensor:
        """z: unit rows (B_m, d) of every modality; present: which are there, bool (B_m,), None all -> scalar.

        Raises UserError for embeddings that do not fit.
        """
        clips = check_sets(z, self.modalities, present)
        if clips.fewest() < 2:
            return clips.zero()
        rows, masses = torch.stack(clips.rows), clips.masses()  # (k, B, d), (k, B)
        center = self.barycenter(rows, masses).expand_as(rows)
        b = None if masses is None else masses[0]
        return ops.transport_value(rows, center, masses, b, **settings(self.transport)).mean()

    @torch.no_grad()
    def barycenter(self, rows: Tensor, masses: Tensor | None) -> Tensor:
        """rows (k, B, d), the anchor's first, masses (k, B), None uniform -> Y (B, d), 0 where the anchor has none."""
        center, n = rows[0], rows.shape[1]
        b = rows.new_full((n,), 1 / n) if masses is None else masses[0]
        for _ in range(self.rounds):
            plans = ops.transport(rows, center.expand_as(rows), masses, b, **settings(self.transport)).plan
            with torch.autocast(rows.device.type, enabled=False):
                arrived = (plans.mT @ rows).mean(0)  # (B, d)
            center = arrived / torch.where(b == 0, 1, b).unsqueeze(1)
        return center
