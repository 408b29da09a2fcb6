"""Preset `ot-loop`: InfoNCE of all pairs, and a consistent loop of transport distances as a regulariser.

pairwise  +  0.1 [sum_m S_eps(P_m, P_{m+1}) + beta R_cyc], R_cyc = -mean_i log (T^12 T^23 … T^K1)_ii

Source: Zhu & Luo, Enhancing multi-modal contrastive learning via optimal transport-based consistent modality
alignment, PRCV 2024; only its abstract was at hand: the formulas are those of docs/decisions.md.
"""

from mover.presets.preset import Preset

PRESET = Preset(pairwise=1.0, ot_loop=0.1)
