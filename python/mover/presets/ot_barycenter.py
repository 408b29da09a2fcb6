"""Preset `ot-barycenter`: InfoNCE of all pairs, and the transport of all modalities to their barycenter.

pairwise  +  0.1 (1/K) sum_m OT_eps(P_m, Y), Y the barycenter of the modalities, held fixed

Source: Zhu & Luo, Enhancing multi-modal contrastive learning via optimal transport-based consistent modality
alignment, PRCV 2024; only its abstract was at hand: the formulas are those of docs/decisions.md.
"""

from mover.presets.preset import Preset

PRESET = Preset(pairwise=1.0, ot_barycenter=0.1)
