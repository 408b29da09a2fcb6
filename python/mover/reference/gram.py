"""Gram matrices and log-determinants."""

import torch
from torch import Tensor

from mover.results import LogdetResult


def gram(v: Tensor) -> Tensor:
    """v (..., k, d) -> (..., k, k) float64: V V^T."""
    return v.double() @ v.double().mT


def logdet(g: Tensor) -> LogdetResult:
    """g (..., k, k) -> LogdetResult in float64: twice the sum of the logarithms of Cholesky's diagonal.

    Reads the lower triangle; -inf where a leading minor is not positive, whose order is `info`.
    """
    factor, info = torch.linalg.cholesky_ex(g.double())
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    good = (info == 0).unsqueeze(-1)
    logs = torch.where(good, torch.where(good, diagonal, 1).log(), -torch.inf)
    return LogdetResult(2 * logs.sum(-1), info)
