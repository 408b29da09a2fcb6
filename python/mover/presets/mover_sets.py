"""Preset `mover-sets`: some clips are aligned, of the others it is known only that sets of them belong together.

contrast of -Vol / tau and mean over pairs of InfoNCE, on the aligned rows  +  share · the same on confident groups:
rows (i, j_2, …, j_k) that the plans from the anchor match mutually, each with more than `objective.matching.threshold`
of a row's mass; share is that of the rows in such groups

Source: the positives of You & Liu, MOVER, arXiv 2508.12149, eq. 9, which transport chooses, kept only where the plan is
sure; for data as in Zhu & Luo, PRCV 2024.
"""

from mover.presets.preset import Preset

PRESET = Preset(volume_contrastive=1.0, pairwise=1.0, confident=1.0)
