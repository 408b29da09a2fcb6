"""Soft targets from a plan: rows of unknown order are contrasted with all they may belong to, by how sure it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from mover.config import MatchingConfig
from mover.losses.embeddings import Present, anchor_first, check_embeddings
from mover.losses.matching import both_there, matched_shares, unit_cosines, units_of
from mover.losses.temperature import Temperature


class PlanTargetsLoss(nn.Module):
    """The mean over the modalities of the cross entropy of their cosines with the anchor against the plan, both ways.

    For the anchor and another modality, or some that are together, and their plan P over n rows of each side, with the
    shares T_ij = P_ij / a_i of row i (of column j: over b_j): mean_i of -sum_j T_ij log softmax_j(cos_ij / tau), and
    the same from the columns. T has no gradient. By
    softmax, T is the softmax of the row, or of the column. The threshold of the matching is not used: all of the plan
    counts. Of modalities that are together, cos is the mean.

    Rows that are not there take no part; where a modality has fewer than two, the loss is 0 and so is its gradient.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        anchor: str,
        matching: MatchingConfig,
        *,
        temperature: float = 0.07,
        learn_temperature: bool = True,
    ) -> None:
        """Raises UserError for an unknown anchor, or a temperature outside [0.01, 1]."""
        super().__init__()
        self.modalities = anchor_first(modalities, anchor)
        self.matching = matching
        self.temperature = Temperature(temperature, learn_temperature)

    def forward(
        self, z: Mapping[str, Tensor], present: Present | None = None, *, together: Collection[str] = ()
    ) -> Tensor:
        """z: unit rows (n, d) of every modality, in any order; present: which are there, bool (n,), None all -> scalar.

        together: modalities in the same order as each other.
        Raises UserError for embeddings that do not fit.
        """
        clips = check_embeddings(z, self.modalities, present)
        if clips.fewest() < 2:
            return clips.zero()
        units = units_of(self.modalities, together)
        with torch.no_grad():
            rows = matched_shares(clips, self.matching, units, side="rows")
            columns = matched_shares(clips, self.matching, units, side="columns")
        with torch.autocast(clips.rows[0].device.type, enabled=False):
            logits = unit_cosines(clips, units) / self.temperature()  # (units-1, n, n)
        both = both_there(clips, units)
        if both is not None:
            logits = logits.masked_fill(~both, torch.finfo(logits.dtype).min)
        return (_cross_entropy(logits, rows) + _cross_entropy(logits.mT, columns.mT)) / 2


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean over pairs, and over the rows whose targets are not 0, of -sum_j T_ij log softmax_j(logits_ij)."""
    logs = torch.where(targets > 0, logits.log_softmax(-1), 0)
    counted = (targets > 0).any(-1).sum(-1).clamp(min=1)  # (k-1)
    return -((targets * logs).sum((-2, -1)) / counted).mean()
