"""Preset `mover`: the transport-weighted volume, the volume contrast and InfoNCE of all pairs.

sum over groups of pi(i_1, …, i_k) Vol(i_1, …, i_k)  +  contrast of -Vol / tau  +  mean over pairs of InfoNCE

Source: You & Liu, MOVER, arXiv 2508.12149, eq. 8-11; the pairwise term is an addition (docs/decisions.md says why).
"""

from mover.presets.preset import Preset

PRESET = Preset(mover=1.0, volume_contrastive=1.0, pairwise=1.0)
