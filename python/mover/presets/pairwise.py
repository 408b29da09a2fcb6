"""Preset `pairwise`: InfoNCE of all pairs of modalities.

mean over pairs (p, q) and both directions of -log [exp(z^p_i · z^q_i / tau) / sum_j exp(z^p_i · z^q_j / tau)]

Source: van den Oord et al., Contrastive predictive coding, arXiv 1807.03748; both ways as in Radford et al., CLIP,
arXiv 2103.00020; here for every pair of modalities.
"""

from mover.presets.preset import Preset

PRESET = Preset(pairwise=1.0)
