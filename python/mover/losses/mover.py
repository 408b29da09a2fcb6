"""The transport-weighted volume, MOVER eq. 8: matched groups are pulled to a small volume."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mover import ops
from mover.config import Anchoring, CandidateGroups, Coupling, JointWeights, TransportConfig, VolumeKind
from mover.errors import UserError
from mover.losses.anchoring import anchor_orders
from mover.losses.cosine_distance import cyclic_cosine_distance, group_cosine_distances, star_cosine_distance
from mover.losses.coupling import couple
from mover.losses.embeddings import MOST_MODALITIES, Clips, Present, anchor_first, check_embeddings, pairs_of
from mover.losses.groups import Groups, check_size, conditionals, sample_groups, top_groups
from mover.losses.log_volume import group_log_volumes, pair_log_volumes
from mover.losses.transport import pair_costs


class MoverLoss(nn.Module):
    """sum over groups of pi(i_1, ..., i_k) Vol(i_1, ..., i_k), for any k >= 2 modalities.

    pi is the star coupling of the entropic plans P^(1,m) from the anchor to the other modalities, with a the masses
    of the anchor's rows: prod_m P^(1,m)[i_1, i_m] / a_{i_1}^(k-2). It is a true coupling and sums to 1, so the loss
    is a mean volume, in [0, 1].

    `groups` says which groups are summed over: "all" of them, exactly, for k = 2 and 3; the "hard" matches of every
    anchor; all combinations of its `topk` best matches ("topk"), both with the weights renormalised to the sum 1; or
    `samples` draws per anchor ("sample"), an unbiased estimate of the sum over all. "auto" is "all" for k = 2 and 3
    (only 2 for logarithms) and "topk" beyond.
    `weights` "cyclic", for k = 3 and all groups: the product of the three plans, renormalised to the sum 1. It has no
    anchor.
    `volume` "log": 1/2 log det(G + 1e-6 I) in place of the volume; over all groups for k = 2 only. "cosine": the mean
    of 1 - cos over the pairs of the group; over all groups for any k.
    `coupling` "softmax": the rows of P^(1,m) are those of a softmax of the cosines of temperature epsilon / 2; pi sums
    to 1 all the same, but rows of the other modalities may have any mass.
    `anchoring` "rotating": at step t the anchor is the modality at position t mod k, the named one first. "all": the
    mean of the loss over every modality as the anchor, at k times the cost.

    Missing modalities: masses are uniform over the rows that a modality has, and groups consist of such rows only.
    Where a modality has fewer than two, no group is complete and matched by more than chance: the loss is 0.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        anchor: str,
        transport: TransportConfig,
        *,
        groups: CandidateGroups = "auto",
        topk: int = 4,
        samples: int = 16,
        weights: JointWeights = "star",
        volume: VolumeKind = "volume",
        coupling: Coupling = "transport",
        anchoring: Anchoring = "fixed",
    ) -> None:
        """Raises UserError for an unknown anchor and for settings that do not fit each other."""
        super().__init__()
        self.modalities = anchor_first(modalities, anchor)
        self.transport, self.topk, self.samples = transport, topk, samples
        self.weights, self.volume, self.coupling = weights, volume, coupling
        self.anchoring: Anchoring = "fixed" if weights == "cyclic" else anchoring
        self.groups = _resolve_groups(groups, len(self.modalities), volume, weights)
        if weights == "cyclic" and coupling == "softmax":
            raise UserError(
                "objective.weights: cyclic multiplies plans between all modalities, and objective.coupling: softmax "
                "makes them from an anchor only. Set objective.weights to star, or objective.coupling to transport."
            )

    def check_batch(self, size: int) -> None:
        """Raises UserError, with the count, where a batch of so many clips makes more groups than memory may hold."""
        k = len(self.modalities)
        # just above the peaks measured, 16 k to 59 k; Gram matrices of logarithms are float64 and have gradients
        bytes_per_group = {"volume": 56 * k, "cosine": 64 * k, "log": 56 * k + 32 * k * k}[self.volume]
        if self.groups == "topk":
            count = size * min(self.topk, size) ** (k - 1)
            what, remedy = f"objective.topk = {self.topk}", "lower objective.topk or set objective.groups to hard"
        elif self.groups == "sample":
            count = size * self.samples
            what, remedy = f"objective.samples = {self.samples}", "lower objective.samples"
        else:
            return
        if self.anchoring == "all":  # those of every anchor are kept for the backward pass
            count *= k
            what += " with objective.anchoring all"
        check_size(count, k, bytes_per_group, f"{what} at a batch of {size}", remedy)

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
        many clips are known pairs, None all, for costs that transport.guide lowers.
        Raises UserError for embeddings that do not fit, and for more groups than memory may hold.
        """
        clips = check_embeddings(z, self.modalities, present)
        self.check_batch(clips.rows[0].shape[0])
        if clips.fewest() < 2:
            return clips.zero()
        orders = anchor_orders(len(self.modalities), self.anchoring, step)
        return torch.stack([self._with_anchor(clips.in_order(order), aligned) for order in orders]).mean()

    def _with_anchor(self, clips: Clips, aligned: int | None) -> Tensor:
        """The loss with the first modality as the anchor."""
        k = len(clips.rows)
        pairs = pairs_of(range(k))
        coupled = pairs if self.weights == "cyclic" else pairs[: k - 1]  # the star's pairs come first
        plans, costs = couple(clips, coupled, self.transport, self.coupling, aligned)
        if len(coupled) < len(pairs):
            costs = torch.cat([costs, pair_costs(clips, pairs[len(coupled) :])])
        masses = clips.masses()
        if masses is not None:
            masses = masses[0]
        if self.groups == "all":
            return self._over_all(clips, plans, costs, masses)
        listed = self._listed(plans, masses)
        measure = {"volume": ops.group_volume, "log": group_log_volumes, "cosine": group_cosine_distances}[self.volume]
        return (listed.weights.to(costs.dtype) * measure(costs, listed.members).to(costs.dtype)).sum()

    def _over_all(self, clips: Clips, plans: Tensor, costs: Tensor, masses: Tensor | None) -> Tensor:
        if self.volume == "cosine":
            if self.weights == "cyclic":
                return cyclic_cosine_distance(costs, plans)
            return star_cosine_distance(costs, conditionals(plans, masses), masses)
        if len(clips.rows) == 2:
            if self.volume == "log":
                return (plans[0] * pair_log_volumes(costs[0]).to(plans.dtype)).sum()
            anchor, other = clips.rows
            return (plans[0] * ops.volume_scores(anchor, other.unsqueeze(1))).sum()
        c12, c13, c23 = costs
        if self.weights == "cyclic":
            p12, p13, p23 = plans
            with torch.autocast(plans.device.type, enabled=False):
                mass = ((p12 @ p23) * p13).sum()
            total = ops.expected_volume(c12, c13, c23, p12, p13, p23)
            return total / torch.where(mass == 0, 1, mass)
        return ops.expected_volume(c12, c13, c23, plans[0], conditionals(plans[1], masses), None)

    def _listed(self, plans: Tensor, masses: Tensor | None) -> Groups:
        if self.groups == "sample":
            return sample_groups(plans, masses, self.samples)
        return top_groups(plans, masses, 1 if self.groups == "hard" else self.topk)


def _resolve_groups(groups: CandidateGroups, k: int, volume: VolumeKind, weights: JointWeights) -> CandidateGroups:
    """The groups of a run, "auto" resolved. Raises UserError where the settings do not fit k modalities."""
    most_for_all = 2 if volume == "log" else 3
    if groups == "auto":  # the same for cosines as for volumes, so that the two can be compared
        groups = "all" if k <= most_for_all else "topk"
    if weights == "cyclic" and (k != 3 or groups != "all" or volume == "log"):
        raise UserError(
            "objective.weights: cyclic is the product of three plans over all groups of volumes or cosines, got "
            f"{k} modalities, objective.groups {groups} and objective.volume {volume}. Set objective.weights to star."
        )
    if groups == "all" and k > most_for_all and volume != "cosine":
        raise UserError(
            f"objective.groups: all sums over all groups of at most {most_for_all} modalities with objective.volume "
            f"{volume}, got {k}. Set objective.groups to topk, sample or hard."
        )
    if volume == "volume" and k > MOST_MODALITIES:
        raise UserError(
            f"The mover term measures volumes of at most {MOST_MODALITIES} modalities, got {k}. "
            "Set objective.volume to log, objective.mover to 0, or train fewer modalities."
        )
    return groups
