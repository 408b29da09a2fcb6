"""Cross entropy of a square matrix of logits whose positives lie on the diagonal."""

from typing import Literal

import torch
from torch import Tensor

from mover import ops

Denominator = Literal["all", "negatives"]


def diagonal_cross_entropy(logits: Tensor, label_smoothing: float = 0.0, denominator: Denominator = "all") -> Tensor:
    """logits (..., B, B) -> (...), the mean over rows of logsumexp_j logits_ij - sum_j q_ij logits_ij.

    q is 1 - label_smoothing on the diagonal plus label_smoothing / B everywhere. With denominator "negatives" the
    logsumexp leaves the diagonal out, as MOVER's eq. 9 is printed.
    """
    positives = logits.diagonal(dim1=-2, dim2=-1)  # (..., B)
    targets = (1 - label_smoothing) * positives + label_smoothing * logits.mean(-1)
    if denominator == "negatives":
        diagonal = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(diagonal, -torch.inf)
    return (torch.logsumexp(logits, dim=-1) - targets).mean(-1)


def symmetric_cross_entropy(
    scores: Tensor,
    label_smoothing: float = 0.0,
    denominator: Denominator = "all",
    scale: Tensor | None = None,
) -> Tensor:
    """The mean of `diagonal_cross_entropy` of scale * scores over both directions. (..., B, B) -> (...).

    scale is a scalar, None is 1. On a CPU it is one operator, `mover.ops.contrast`, which reads the scores twice in
    all, where torch's own functions go over them a dozen times.
    """
    if scores.device.type == "cpu":
        return ops.contrast(scores, scale, label_smoothing=label_smoothing, denominator=denominator)
    logits = scores if scale is None else scale * scores
    rows = diagonal_cross_entropy(logits, label_smoothing, denominator)
    columns = diagonal_cross_entropy(logits.mT, label_smoothing, denominator)
    return (rows + columns) / 2
