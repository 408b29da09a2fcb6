"""InfoNCE between pairs of modalities: keeps the signs and the pairs right, which volumes cannot see."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from mover.losses.contrast import symmetric_cross_entropy
from mover.losses.embeddings import Present, anchor_first, check_embeddings, pairs_of
from mover.losses.temperature import Temperature


class PairwiseLoss(nn.Module):
    """The mean over pairs of modalities of the cross entropy of cos / tau, both ways; one tau for all pairs.

    The pairs are all, or those of `anchor`, where there is one.
    A pair is contrasted among the clips that have both of its modalities; pairs with fewer than two such clips are
    left out of the mean, and without any pair the loss is 0.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        anchor: str | None = None,
        *,
        temperature: float = 0.07,
        learn_temperature: bool = True,
        label_smoothing: float = 0.1,
    ) -> None:
        """Raises UserError for an unknown anchor, or a temperature outside [0.01, 1]."""
        super().__init__()
        self.modalities = list(modalities) if anchor is None else anchor_first(modalities, anchor)
        pairs = pairs_of(range(len(modalities)))
        self.pairs = pairs if anchor is None else pairs[: len(modalities) - 1]  # those of the anchor come first
        self.temperature = Temperature(temperature, learn_temperature)
        self.label_smoothing = label_smoothing

    def forward(
        self,
        z: Mapping[str, Tensor],
        present: Present | None = None,
        *,
        aligned: int | None = None,
        together: Collection[str] = (),
    ) -> Tensor:
        """z: unit rows (B, d) of every modality; present: which clips have it, bool (B,), None all -> scalar.

        aligned: the first so many rows are of one clip in every modality, None all; the others only in the modalities
        that are `together`, whose pairs are contrasted among all rows.
        Raises UserError for embeddings that do not fit.
        """
        clips = check_embeddings(z, self.modalities, present)
        first = torch.stack([clips.rows[p] for p, _ in self.pairs])  # (pairs, B, d)
        second = torch.stack([clips.rows[q] for _, q in self.pairs])
        with torch.autocast(first.device.type, enabled=False):
            cosines, scale = first @ second.mT, 1 / self.temperature()  # (pairs, B, B)
            there = clips.present
            known = first.shape[1] if aligned is None else aligned
            partly = known < first.shape[1]
            if there is None and partly:
                there = torch.ones(len(clips.rows), first.shape[1], dtype=torch.bool, device=first.device)
            if there is None:
                return symmetric_cross_entropy(cosines, self.label_smoothing, scale=scale).mean()
            both = torch.stack([there[p] & there[q] for p, q in self.pairs])  # (pairs, B)
            if partly:
                paired = torch.arange(first.shape[1], device=first.device) < known
                both &= paired | self._together(together).to(first.device).unsqueeze(1)
            terms = symmetric_cross_entropy(cosines, self.label_smoothing, scale=scale, usable=both)  # 0: left out
            return terms.sum() / (both.sum(-1) >= 2).sum().clamp(min=1)

    def _together(self, names: Collection[str]) -> Tensor:
        """bool (pairs,): the pairs of two of these modalities."""
        return torch.tensor([self.modalities[p] in names and self.modalities[q] in names for p, q in self.pairs])
