"""Training objectives over unit rows: each term is an nn.Module in a file of its own, `Objective` weighs them."""

from mover.losses.mover import MoverLoss
from mover.losses.objective import Objective, build_objective
from mover.losses.ot_barycenter import OTBarycenterLoss
from mover.losses.ot_loop import OTLoopLoss
from mover.losses.pairwise import PairwiseLoss
from mover.losses.volume_contrastive import VolumeContrastiveLoss

__all__ = [
    "MoverLoss",
    "OTBarycenterLoss",
    "OTLoopLoss",
    "Objective",
    "PairwiseLoss",
    "VolumeContrastiveLoss",
    "build_objective",
]
