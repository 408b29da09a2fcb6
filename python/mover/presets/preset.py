"""What a preset sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

GateBy = Literal["none", "transport", "softmax"]
"""What pairs that are given are doubted by."""
TERMS = ("mover", "volume_contrastive", "pairwise", "ot_loop", "ot_barycenter", "confident", "plan_targets", "pool")
"""The terms of an objective, by the names of the settings of their weights."""
OF_MATCHES = ("confident", "plan_targets", "pool")
"""Those that learn from rows which are not aligned, by matching them."""


@dataclass(frozen=True)
class Preset:
    """Weights of the terms, 0 where one is not part of it, the pairs of the pairwise term, and the doubt about pairs.

    pairwise_anchors: the modality in every pair of the pairwise term is the first of these that a run has; empty:
    all pairs.
    gate: by what pairs that are given are doubted.
    """

    mover: float = 0.0
    volume_contrastive: float = 0.0
    pairwise: float = 0.0
    ot_loop: float = 0.0
    ot_barycenter: float = 0.0
    confident: float = 0.0
    plan_targets: float = 0.0
    pool: float = 0.0
    pairwise_anchors: tuple[str, ...] = ()
    gate: GateBy = "none"

    def pairwise_anchor(self, modalities: Sequence[str]) -> str | None:
        """The modality in every pair, None for all pairs. Raises ValueError where the run has none that would do."""
        there = [name for name in self.pairwise_anchors if name in modalities]
        if there or not self.pairwise_anchors:
            return there[0] if there else None
        raise ValueError(
            f"it contrasts every modality with {' or '.join(self.pairwise_anchors)}, which is not among modalities "
            f"{list(modalities)}; add it, name another with objective.pairwise_anchor, or take preset pairwise"
        )
