"""The operators of `mover.ops` as definitions: plain torch in float64, one file per stage.

They say what an operator means and serve as the oracle of the tests: short, slow, differentiable by autograd as many
times as torch allows, and free of C. Inputs of any float type are taken to float64.
"""

from mover.reference.contrast import contrast
from mover.reference.cost import cost
from mover.reference.gram import gram, logdet
from mover.reference.scores import volume_rank, volume_scores, volume_topk
from mover.reference.sinkhorn import plan_gradient, sinkhorn, transport, transport_value
from mover.reference.volume import expected_volume, group_volume, volume

__all__ = [
    "contrast",
    "cost",
    "expected_volume",
    "gram",
    "group_volume",
    "logdet",
    "plan_gradient",
    "sinkhorn",
    "transport",
    "transport_value",
    "volume",
    "volume_rank",
    "volume_scores",
    "volume_topk",
]
