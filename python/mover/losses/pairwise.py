"""InfoNCE between all pairs of modalities: keeps the signs and the pairs right, which volumes cannot see."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mover.losses.contrast import symmetric_cross_entropy
from mover.losses.embeddings import check_embeddings, pairs_of
from mover.losses.temperature import Temperature


class PairwiseLoss(nn.Module):
    """The mean over all pairs of modalities of the cross entropy of cos / tau, both ways; one tau for all pairs."""

    def __init__(
        self,
        modalities: Sequence[str],
        *,
        temperature: float = 0.07,
        learn_temperature: bool = True,
        label_smoothing: float = 0.1,
    ) -> None:
        """Raises UserError for a temperature outside [0.01, 1]."""
        super().__init__()
        self.modalities = list(modalities)
        self.temperature = Temperature(temperature, learn_temperature)
        self.label_smoothing = label_smoothing

    def forward(self, z: Mapping[str, Tensor]) -> Tensor:
        """z: unit rows (B, d) of every modality -> scalar. Raises UserError for embeddings that do not fit."""
        rows = dict(zip(self.modalities, check_embeddings(z, self.modalities), strict=True))
        pairs = pairs_of(self.modalities)
        first = torch.stack([rows[name] for name, _ in pairs])  # (pairs, B, d)
        second = torch.stack([rows[name] for _, name in pairs])
        with torch.autocast(first.device.type, enabled=False):
            cosines = first @ second.mT  # (pairs, B, B)
            return symmetric_cross_entropy(cosines / self.temperature(), self.label_smoothing).mean()
