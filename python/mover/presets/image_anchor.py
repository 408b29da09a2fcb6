"""Preset `image-anchor`: InfoNCE of every other modality against the pictures, video or image.

mean over m != video and both directions of -log [exp(v_i · z^m_i / tau) / sum_j exp(v_i · z^m_j / tau)]

Source: Girdhar et al., ImageBind, arXiv 2305.05665, with one learned temperature for all pairs.
"""

from mover.presets.preset import Preset

PRESET = Preset(pairwise=1.0, pairwise_anchors=("video", "image"))
