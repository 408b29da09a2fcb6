"""Preset `text-anchor`: InfoNCE of every other modality against text.

mean over m != text and both directions of -log [exp(t_i · z^m_i / tau) / sum_j exp(t_i · z^m_j / tau)]

Source: Zhu et al., LanguageBind, arXiv 2310.01852, with one learned temperature for all pairs. Also the contrast of
Chen et al., VAST, arXiv 2305.18500, between text and single modalities: without the fused modalities, the matching
head and the captioning.
"""

from mover.presets.preset import Preset

PRESET = Preset(pairwise=1.0, pairwise_anchors=("text",))
