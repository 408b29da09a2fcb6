"""Cross entropy of scores, by log-sum-exp of rows and columns."""

import torch
from torch import Tensor


def contrast(
    scores: Tensor, scale: Tensor | None = None, *, label_smoothing: float = 0.0, denominator: str = "all"
) -> Tensor:
    """scores (..., B, B) -> (...) float64, positives on the diagonal, both directions."""
    logits = scores.double() if scale is None else scale.double() * scores.double()
    count = logits.shape[-1]
    targets = (1 - label_smoothing) * torch.eye(count, dtype=torch.float64) + label_smoothing / count
    summed = logits
    if denominator == "negatives":
        summed = logits.masked_fill(torch.eye(count, dtype=torch.bool), -torch.inf)
    rows = torch.logsumexp(summed, dim=-1).mean(-1)
    columns = torch.logsumexp(summed, dim=-2).mean(-1)
    return (rows + columns) / 2 - (targets * logits).sum((-2, -1)) / count
