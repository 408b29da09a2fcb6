"""Preset `mover-pool`: some clips are aligned, the partners of the others are somewhere in the training set.

contrast of -Vol / tau and mean over pairs of InfoNCE, on the aligned rows  +  (1/k) sum over modalities of share · the
same of a batch's rows and the kept embeddings of the groups that one plan over all unaligned clips puts them into,
mutually and with more than `objective.matching.threshold` of a row's mass; share is that of the rows in such groups

Source: as `mover-sets`, with the plan over the data set in place of the batch.
"""

from mover.presets.preset import Preset

PRESET = Preset(volume_contrastive=1.0, pairwise=1.0, pool=1.0)
