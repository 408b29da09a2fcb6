"""The presets of the objective, one file each: which terms, at which weight, and where they come from."""

from mover.presets import (
    gram,
    image_anchor,
    mover,
    mover_noisy,
    mover_paper,
    mover_pool,
    mover_sets,
    ot_barycenter,
    ot_loop,
    pairwise,
    text_anchor,
)
from mover.presets.preset import OF_MATCHES, TERMS, GateBy, Preset

PRESETS: dict[str, Preset] = {
    "mover": mover.PRESET,
    "mover-paper": mover_paper.PRESET,
    "mover-sets": mover_sets.PRESET,
    "mover-pool": mover_pool.PRESET,
    "mover-noisy": mover_noisy.PRESET,
    "gram": gram.PRESET,
    "pairwise": pairwise.PRESET,
    "text-anchor": text_anchor.PRESET,
    "image-anchor": image_anchor.PRESET,
    "ot-loop": ot_loop.PRESET,
    "ot-barycenter": ot_barycenter.PRESET,
}

__all__ = ["OF_MATCHES", "PRESETS", "TERMS", "GateBy", "Preset"]
