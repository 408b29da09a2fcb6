"""Contrast of volumes, MOVER eq. 9-10: the true group of an anchor is to have the smallest volume."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mover import ops
from mover.errors import UserError
from mover.losses.contrast import Denominator, symmetric_cross_entropy
from mover.losses.embeddings import MOST_MODALITIES, Present, anchor_first, check_embeddings
from mover.losses.temperature import Temperature


class VolumeContrastiveLoss(nn.Module):
    """Cross entropy of the logits -Vol(anchor_i, others_j) / tau, both ways: anchor to groups and groups to anchor.

    Positives are the aligned clips, i = j. `denominator` "all" keeps the positive in the sum, "negatives" leaves it
    out as eq. 9 is printed.

    Clips without the anchor, or with nothing but the anchor, are left out; with fewer than two others the loss is 0.
    Volumes of groups that lack different modalities cannot be compared: where a clip that takes part lacks one, the
    logits of the whole batch are those of the span distance, sqrt(1 - |E^T anchor|^2) with E an orthonormal basis of
    the group's span, = Vol(anchor, others) / Vol(others).
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
        """Raises UserError for an unknown anchor, more than eight modalities, or a temperature outside [0.01, 1]."""
        super().__init__()
        if len(modalities) > MOST_MODALITIES:
            raise UserError(
                f"The volume contrast takes at most {MOST_MODALITIES} modalities, got {len(modalities)}. "
                "Set objective.volume_contrastive to 0, or train fewer modalities."
            )
        self.modalities = anchor_first(modalities, anchor)
        self.temperature = Temperature(temperature, learn_temperature)
        self.label_smoothing = label_smoothing
        self.denominator: Denominator = denominator

    def forward(self, z: Mapping[str, Tensor], present: Present | None = None) -> Tensor:
        """z: unit rows (B, d) of every modality; present: which clips have it, bool (B,), None all -> scalar.

        Raises UserError for embeddings that do not fit.
        """
        clips = check_embeddings(z, self.modalities, present)
        anchor, others = clips.rows[0], torch.stack(clips.rows[1:], dim=1)
        if clips.present is None:
            volumes = ops.volume_scores(anchor, others)  # (B, B)
            return self._contrast(volumes)
        mask = clips.present[1:].T  # (B, k-1)
        usable = clips.present[0] & mask.any(dim=1)
        mask = mask | ~usable.unsqueeze(1)  # a group without members has no distance; it is left out below
        if bool(mask.all()):
            scores = ops.volume_scores(anchor, others)
        else:
            scores = ops.volume_scores(anchor, others, mask, score="span")
        return self._contrast(scores, usable)

    def _contrast(self, scores: Tensor, usable: Tensor | None = None) -> Tensor:
        scale = -1 / self.temperature()
        return symmetric_cross_entropy(scores, self.label_smoothing, self.denominator, scale=scale, usable=usable)
