"""Preset `mover-paper`: the terms of the paper and no other.

sum over groups of pi(i_1, …, i_k) Vol(i_1, …, i_k)  +  contrast of -Vol / tau

Source: You & Liu, MOVER, arXiv 2508.12149, eq. 8-11.
"""

from mover.presets.preset import Preset

PRESET = Preset(mover=1.0, volume_contrastive=1.0)
