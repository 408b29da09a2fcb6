"""Contrast of volumes, MOVER eq. 9-10: the true group of an anchor is to have the smallest volume."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from mover import ops
from mover.config import Anchoring, ContrastBy, Coupling, Positives, TransportConfig
from mover.errors import UserError
from mover.losses.anchoring import anchor_orders
from mover.losses.contrast import Denominator, symmetric_cross_entropy
from mover.losses.cosine_distance import cosine_scores
from mover.losses.coupling import couple
from mover.losses.embeddings import MOST_MODALITIES, Clips, Present, anchor_first, check_embeddings
from mover.losses.temperature import Temperature

_MIXTURES = {"paired": 0.0, "transport": 1.0}
"""The share of matched positives, where `positives` says all of it."""


class VolumeContrastiveLoss(nn.Module):
    """(1 - s) CE(L^paired) + s CE(L^transport), with s 0 for positives "paired", 1 for "transport", `mixture` for
    "mixed".

    CE is the mean of the cross entropies of the rows (anchor to groups) and of the columns (groups to anchor) of B x B
    logits whose positives lie on the diagonal; `denominator` "all" keeps the positive in the sum, "negatives" leaves it
    out as eq. 9 is printed. The anchors are the rows of one modality, and
    - L^paired_ij = -Vol(anchor_i, others of clip j) / tau: the group of an anchor is its own clip, and its negatives
      are the other clips. Only the first `aligned` clips take part.
    - L^transport_ij = -Vol(anchor_i, rows j_2(j), ..., j_k(j)) / tau, with j_m(j) the row of modality m to which the
      plan from the anchors sends most of the mass of anchor j: the group of an anchor is the one matched to it, and
      its negatives are those matched to the other anchors. Row i against column i is (i, j_2(i), ..., j_k(i)). All
      clips take part, and which of them belong together is not used, but for costs that transport.guide lowers. A
      group that several anchors share counts as often. No gradient goes through the choice. Plans are those of
      `transport` and `coupling`; with "softmax" matches are nearest neighbours.

    `contrast_by` "span": Vol(anchor, others) / Vol(others), the distance of the anchor from the span of the others, in
    place of Vol; a group whose others agree is then near no anchor but its own. "cosine": the mean of 1 - cos over all
    pairs of the group; of it the pairs among the others weigh in for the rows and cancel for the columns.
    `anchoring`: the named modality ("fixed"), each in turn by the step, the named one first ("rotating"), or the mean
    over every modality as the anchor ("all"). All share one temperature.

    Missing modalities. Paired: clips without the anchor, or with nothing but the anchor, are left out; with fewer than
    two others the loss is 0, and with "all" that anchor is left out of the mean. Volumes of groups that lack different
    modalities cannot be compared: where a clip that takes part lacks one, the logits of the whole batch are those of
    the span distance, sqrt(1 - |E^T anchor|^2) with E an orthonormal basis of the group's span; a mean of 1 - cos is
    that of the pairs that are there. Transport: clips without the anchor are left out and groups are complete, of rows
    that are there, as in the mover term; where a modality has fewer than two, it is 0.
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
        contrast_by: ContrastBy = "volume",
        anchoring: Anchoring = "fixed",
        positives: Positives = "paired",
        mixture: float = 0.5,
        transport: TransportConfig | None = None,
        coupling: Coupling = "transport",
    ) -> None:
        """Raises UserError for an unknown anchor, more than eight modalities, or a temperature outside [0.01, 1]."""
        super().__init__()
        if contrast_by != "cosine" and len(modalities) > MOST_MODALITIES:
            raise UserError(
                f"The volume contrast takes at most {MOST_MODALITIES} modalities, got {len(modalities)}. "
                "Set objective.volume_contrastive to 0, objective.contrast_by to cosine, or train fewer modalities."
            )
        self.modalities = anchor_first(modalities, anchor)
        self.temperature = Temperature(temperature, learn_temperature)
        self.label_smoothing = label_smoothing
        self.denominator: Denominator = denominator
        self.contrast_by, self.anchoring = contrast_by, anchoring
        self.matched = _MIXTURES.get(positives, mixture)
        self.transport, self.coupling = transport or TransportConfig(), coupling

    def forward(
        self,
        z: Mapping[str, Tensor],
        present: Present | None = None,
        *,
        step: int = 0,
        aligned: int | None = None,
    ) -> Tensor:
        """z: unit rows (B, d) of every modality -> scalar.

        present: which clips have a modality, bool (B,), None all. step: for anchors that rotate. aligned: the first so
        many clips are known pairs, None all.
        Raises UserError for embeddings that do not fit.
        """
        clips = check_embeddings(z, self.modalities, present)
        turns = [clips.in_order(order) for order in anchor_orders(len(self.modalities), self.anchoring, step)]
        parts = []
        if self.matched < 1:
            parts.append((1 - self.matched) * self._of_pairs(turns, aligned))
        if self.matched > 0:
            parts.append(self.matched * self._of_matches(turns, aligned))
        return torch.stack(parts).sum()

    def _of_pairs(self, turns: Sequence[Clips], aligned: int | None) -> Tensor:
        """The mean over anchors that have a term, 0 without any."""
        known = [clips if aligned is None else clips.part(0, aligned) for clips in turns]
        counted = [clips for clips in known if clips.rows[0].shape[0] >= 2]
        if not counted:
            return turns[0].zero()
        terms, usable = zip(*(self._paired(clips) for clips in counted), strict=True)
        return torch.stack(terms).sum() / max(sum(usable), 1)

    def _paired(self, clips: Clips) -> tuple[Tensor, bool]:
        """The contrast of the clips as they are, and whether there are two that can be compared; else it is 0."""
        anchor, others = clips.rows[0], torch.stack(clips.rows[1:], dim=1)
        if clips.present is None:
            return self._contrast(self._scores(anchor, others)), True
        mask = clips.present[1:].T  # (B, k-1)
        usable = clips.present[0] & mask.any(dim=1)
        mask = mask | ~usable.unsqueeze(1)  # a group without members has no distance; it is left out below
        complete = bool(mask.all())
        scores = self._scores(anchor, others, None if complete else mask)
        return self._contrast(scores, usable), int(usable.sum()) >= 2

    def _of_matches(self, turns: Sequence[Clips], aligned: int | None) -> Tensor:
        if turns[0].fewest() < 2:
            return turns[0].zero()
        return torch.stack([self._matched(clips, aligned) for clips in turns]).mean()

    def _matched(self, clips: Clips, aligned: int | None) -> Tensor:
        """The contrast of every anchor with the groups that are matched to the anchors."""
        star = [(0, m) for m in range(1, len(clips.rows))]
        with torch.no_grad():
            mass, best = couple(clips, star, self.transport, self.coupling, aligned).plans.max(dim=-1)  # (k-1, B)
        # torch.nn.functional.embedding sums the gradients of rows that repeat in a fixed order
        groups = [embedding(j, rows) for j, rows in zip(best, clips.rows[1:], strict=True)]
        others = torch.stack(groups, dim=1)  # (B, k-1, d)
        others = torch.where(mass.T.isnan().unsqueeze(-1), torch.nan, others)  # a plan of NaN is to be seen in the loss
        usable = None if clips.present is None else clips.present[0]
        return self._contrast(self._scores(clips.rows[0], others), usable)

    def _scores(self, anchor: Tensor, others: Tensor, mask: Tensor | None = None) -> Tensor:
        """anchor (B, d), others (B, k-1, d), mask (B, k-1) where members are missing, None all -> (B, B)."""
        if self.contrast_by == "cosine":
            return cosine_scores(anchor, others, mask)
        comparable = self.contrast_by == "volume" and mask is None
        return ops.volume_scores(anchor, others, mask, score="volume" if comparable else "span")

    def _contrast(self, scores: Tensor, usable: Tensor | None = None) -> Tensor:
        scale = -1 / self.temperature()
        return symmetric_cross_entropy(scores, self.label_smoothing, self.denominator, scale=scale, usable=usable)
