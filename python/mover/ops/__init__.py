"""Documented functions over `torch.ops.mover`, in pipeline order: cost, sinkhorn, gram, volume, scores.

Shapes: n and m points, d embedding width, k modalities, `...` any leading batch sizes (equal among the inputs).
Types: float32 and float64 in and out, float16 and bfloat16 are raised to float32; under autocast everything but
float64 runs in float32. Any memory layout is accepted. Wrong shapes, types, devices and values raise RuntimeError
with a sentence that names the operator and the argument. NaN or Inf in one problem of a batch makes that problem NaN
and leaves the others as they are.
Gradients are first order and reverse mode: forward mode, `torch.func` and double backward raise RuntimeError.
"""

from mover.ops.contrast import contrast
from mover.ops.cost import cost
from mover.ops.gram import gram, logdet
from mover.ops.scores import volume_rank, volume_scores, volume_topk
from mover.ops.sinkhorn import sinkhorn, transport, transport_value
from mover.ops.volume import expected_volume, group_volume, volume
from mover.results import LogdetResult, RankResult, SinkhornResult, TopkResult, TransportResult

__all__ = [
    "LogdetResult",
    "RankResult",
    "SinkhornResult",
    "TopkResult",
    "TransportResult",
    "contrast",
    "cost",
    "expected_volume",
    "gram",
    "group_volume",
    "logdet",
    "sinkhorn",
    "transport",
    "transport_value",
    "volume",
    "volume_rank",
    "volume_scores",
    "volume_topk",
]
