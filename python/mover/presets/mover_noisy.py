"""Preset `mover-noisy`: some of the pairs that are given are wrong, `objective.gate.wrong` of them.

contrast of -Vol / tau and mean over pairs of InfoNCE, on rows of which those anchors are masked that a partial plan of
the batch gives the least of their own clip

Source: You & Liu, MOVER, arXiv 2508.12149, eq. 5 and 9; the known share of wrong labels: Han et al., Co-teaching, 2018.
"""

from mover.presets.preset import Preset

PRESET = Preset(volume_contrastive=1.0, pairwise=1.0, gate="transport")
