"""Contrast of volumes, MOVER eq. 9-10: the true group of an anchor is to have the smallest volume."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mover import ops
from mover.losses.contrast import Denominator, symmetric_cross_entropy
from mover.losses.embeddings import anchor_first, check_embeddings
from mover.losses.temperature import Temperature


class VolumeContrastiveLoss(nn.Module):
    """Cross entropy of the logits -Vol(anchor_i, others_j) / tau, both ways: anchor to groups and groups to anchor.

    Positives are the aligned clips, i = j. `denominator` "all" keeps the positive in the sum, "negatives" leaves it
    out as eq. 9 is printed.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        anchor: str,
        *,
        temperature: float = 0.07,
        learn_temperature: bool = True,
        label_smoothing: float = 0.1,
        denominator: Denominator = "all",
    ) -> None:
        """Raises UserError for an unknown anchor or a temperature outside [0.01, 1]."""
        super().__init__()
        self.modalities = anchor_first(modalities, anchor)
        self.temperature = Temperature(temperature, learn_temperature)
        self.label_smoothing = label_smoothing
        self.denominator: Denominator = denominator

    def forward(self, z: Mapping[str, Tensor]) -> Tensor:
        """z: unit rows (B, d) of every modality -> scalar. Raises UserError for embeddings that do not fit."""
        anchor, *others = check_embeddings(z, self.modalities)
        volumes = ops.volume_scores(anchor, torch.stack(others, dim=1))  # (B, B)
        return symmetric_cross_entropy(-volumes / self.temperature(), self.label_smoothing, self.denominator)
