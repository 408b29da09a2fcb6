"""Cross entropy of a square matrix of logits whose positives lie on the diagonal."""

from typing import Literal

import torch
from torch import Tensor

from mover import ops

Denominator = Literal["all", "negatives"]


def diagonal_cross_entropy(
    logits: Tensor, label_smoothing: float = 0.0, denominator: Denominator = "all", usable: Tensor | None = None
) -> Tensor:
    """logits (..., B, B) -> (...), the mean over rows of logsumexp_j logits_ij - sum_j q_ij logits_ij.

    q is 1 - label_smoothing on the diagonal plus label_smoothing / B everywhere. With denominator "negatives" the
    logsumexp leaves the diagonal out, as MOVER's eq. 9 is printed.
    usable, bool (..., B): rows and columns to take; the result is that of the smaller matrix, and 0 where fewer than
    two are left. Logits have to be finite everywhere.
    """
    positives = logits.diagonal(dim1=-2, dim2=-1)  # (..., B)
    if usable is None:
        average = logits.mean(-1)
    else:
        count = usable.sum(-1, keepdim=True)
        average = torch.where(usable.unsqueeze(-2), logits, 0).sum(-1) / count.clamp(min=1)
        # finite, so that a row without any usable column has a gradient of 0 and not NaN
        logits = logits.masked_fill(~usable.unsqueeze(-2), torch.finfo(logits.dtype).min)
    targets = (1 - label_smoothing) * positives + label_smoothing * average
    if denominator == "negatives":
        diagonal = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(diagonal, -torch.inf)
    terms = torch.logsumexp(logits, dim=-1) - targets
    if usable is None:
        return terms.mean(-1)
    enough = usable & (count >= 2)
    return (torch.where(enough, terms, 0) / count.clamp(min=1)).sum(-1)


def symmetric_cross_entropy(
    scores: Tensor,
    label_smoothing: float = 0.0,
    denominator: Denominator = "all",
    *,
    scale: Tensor | None = None,
    usable: Tensor | None = None,
) -> Tensor:
    """The mean of `diagonal_cross_entropy` of scale * scores over both directions. (..., B, B) -> (...).

    scale is a scalar, None is 1. With all clips usable it is one operator, `mover.ops.contrast`, which reads the scores
    once in each direction, where torch's own functions go over them a dozen times.
    """
    if usable is None:
        return ops.contrast(scores, scale, label_smoothing=label_smoothing, denominator=denominator)
    logits = scores if scale is None else scale * scores
    rows = diagonal_cross_entropy(logits, label_smoothing, denominator, usable)
    columns = diagonal_cross_entropy(logits.mT, label_smoothing, denominator, usable)
    return (rows + columns) / 2
