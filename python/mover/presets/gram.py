"""Preset `gram`: contrast of volumes between the anchor (text by default) and the groups of the other modalities.

mean over both directions of -log [exp(-Vol(t_i, others_i) / tau) / sum_j exp(-Vol(t_i, others_j) / tau)], the sum
over groups j for a given text, over texts for a given group

Source: Cicchetti et al., Gramian multimodal representation learning and alignment, arXiv 2412.11959, without its
data-anchor matching head.
"""

from mover.presets.preset import Preset

PRESET = Preset(volume_contrastive=1.0)
