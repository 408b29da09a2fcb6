"""The total objective: weighted terms, presets, and the late start of the mover term. MOVER eq. 11."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mover.config import ObjectiveConfig
from mover.errors import UserError
from mover.losses.embeddings import Present, check_embeddings, pairs_of
from mover.losses.mover import MoverLoss
from mover.losses.pairwise import PairwiseLoss
from mover.losses.transport import transport_pairs
from mover.losses.volume_contrastive import VolumeContrastiveLoss

# weights of (mover, volume_contrastive, pairwise)
PRESETS = {
    "mover": (1.0, 1.0, 1.0),
    "mover-paper": (1.0, 1.0, 0.0),
    "gram": (0.0, 1.0, 0.0),
    "pairwise": (0.0, 0.0, 1.0),
}


def resolve_weights(config: ObjectiveConfig) -> dict[str, float]:
    """The final weight of every term: that of the preset, unless the configuration sets its own."""
    explicit = {
        "mover": config.mover,
        "volume_contrastive": config.volume_contrastive,
        "pairwise": config.pairwise,
    }
    preset = dict(zip(explicit, PRESETS[config.preset], strict=True))
    return {name: preset[name] if weight is None else weight for name, weight in explicit.items()}


def build_objective(config: ObjectiveConfig, modalities: Sequence[str]) -> "Objective":
    """The objective of a run. Raises UserError where its settings do not fit each other."""
    return Objective(config, modalities)


class Objective(nn.Module):
    """Weighted sum of the terms `mover`, `volume_contrastive` and `pairwise`; a term of weight 0 does not exist."""

    def __init__(self, config: ObjectiveConfig, modalities: Sequence[str]) -> None:
        """Raises UserError if all weights are 0, and what the terms raise."""
        super().__init__()
        self.config = config
        self.modalities = list(modalities)
        self.weights = {name: weight for name, weight in resolve_weights(config).items() if weight > 0}
        if not self.weights:
            raise UserError("All weights of the objective are 0. Set objective.mover, volume_contrastive or pairwise.")
        self.terms = nn.ModuleDict({name: self._build(name) for name in self.weights})

    def _build(self, name: str) -> nn.Module:
        config = self.config
        if name == "mover":
            return MoverLoss(
                self.modalities,
                config.anchor,
                config.transport,
                groups=config.groups,
                topk=config.topk,
                samples=config.samples,
                weights=config.weights,
                volume=config.volume,
            )
        if name == "volume_contrastive":
            return VolumeContrastiveLoss(
                self.modalities,
                config.anchor,
                temperature=config.temperature,
                learn_temperature=config.learn_temperature,
                label_smoothing=config.label_smoothing,
                denominator=config.denominator,
            )
        return PairwiseLoss(
            self.modalities,
            temperature=config.temperature,
            learn_temperature=config.learn_temperature,
            label_smoothing=config.label_smoothing,
        )

    def weight(self, name: str, progress: float) -> float:
        """The weight of a term when the share `progress` of the run is done, in [0, 1].

        The mover term has weight 0 up to `mover_start` and rises linearly over the share `mover_warmup` after it.
        """
        full = self.weights.get(name, 0.0)
        if name != "mover":
            return full
        since = progress - self.config.mover_start
        if self.config.mover_warmup == 0:
            return full if since >= 0 else 0.0
        return full * min(max(since / self.config.mover_warmup, 0.0), 1.0)

    def forward(
        self, z: Mapping[str, Tensor], progress: float = 1.0, present: Present | None = None
    ) -> dict[str, Tensor]:
        """Every term that has a weight now, unweighted, under its name, and their weighted sum as "total".

        z: unit rows (B, d) of every modality. progress: share of the run that is done, in [0, 1].
        present: which clips have a modality, bool (B,) for each, None all; the other rows may hold anything, and
        their gradient is exactly 0. A term that finds too few rows is 0, with gradient 0.
        Raises UserError for embeddings that do not fit.
        """
        clips = check_embeddings(z, self.modalities, present)
        present = present if clips.present is not None else None
        for term in self.terms.values():
            if isinstance(term, MoverLoss):
                term.check_batch(clips.rows[0].shape[0])  # at the first step, also where the term starts late
        terms = {name: term(z, present) for name, term in self.terms.items() if self.weight(name, progress) > 0}
        if not terms:  # before the start of the only term: gradients of 0 rather than none
            return {"total": clips.zero()}
        total = torch.stack([self.weight(name, progress) * term for name, term in terms.items()]).sum()
        return {**terms, "total": total}

    @torch.no_grad()
    def plans(self, z: Mapping[str, Tensor], present: Present | None = None) -> dict[str, Tensor]:
        """The entropic plan (B, B) of every pair of modalities, under "first-second"; no gradient.

        present: which clips have a modality, bool (B,) for each, None all. Masses are uniform over the rows that are
        there, the plan is 0 elsewhere; a pair with a modality that no clip has is left out.
        Raises UserError for embeddings that do not fit.
        """
        clips = check_embeddings(z, self.modalities, present)
        there = [clips.present is None or bool(clips.present[m].any()) for m in range(len(self.modalities))]
        pairs = [(p, q) for p, q in pairs_of(range(len(self.modalities))) if there[p] and there[q]]
        if not pairs:
            return {}
        plans = transport_pairs(clips, pairs, self.config.transport).plan
        return {f"{self.modalities[p]}-{self.modalities[q]}": plan for (p, q), plan in zip(pairs, plans, strict=True)}
