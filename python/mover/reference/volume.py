"""Volumes from vectors by QR, and the sum over all triples term by term."""

import torch
from torch import Tensor


def volume(v: Tensor, eps: float = 0.0) -> Tensor:
    """v (..., k, d) -> (...) float64: sqrt(det(V V^T) + eps^2), from the diagonal of R in V^T = Q R.

    All but the first vector are replaced by their difference to it, which leaves the volume as it is and keeps the
    digits of nearly parallel vectors. More vectors than dimensions span no volume.
    """
    v = v.double()
    k, d = v.shape[-2:]
    if k > d:
        return v.new_full(v.shape[:-2], eps)
    edges = torch.cat([v[..., :1, :], v[..., 1:, :] - v[..., :1, :]], dim=-2)
    triangle = torch.linalg.qr(edges.mT).R  # (..., k, k)
    product = triangle.diagonal(dim1=-2, dim2=-1).abs().prod(-1)
    return product if eps == 0 else (product.square() + eps**2).sqrt()


def triple_volumes(c12: Tensor, c13: Tensor, c23: Tensor) -> Tensor:
    """Squared distances of three sets of unit rows -> (n1, n2, n3) float64, the volume of every triple."""
    alpha = (c12.double() / 2)[:, :, None]  # 1 - cos
    beta = (c13.double() / 2)[:, None, :]
    gamma = (c23.double() / 2)[None, :, :]
    mixed = (beta - gamma) + alpha * (1 - beta)
    square = alpha * (2 - alpha) * beta * (2 - beta) - mixed.square()
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1).sqrt(), 0)


def expected_volume(
    c12: Tensor,
    c13: Tensor,
    c23: Tensor,
    p12: Tensor | None = None,
    p13: Tensor | None = None,
    p23: Tensor | None = None,
) -> Tensor:
    """sum_ijl p12_ij p13_il p23_jl Vol(i, j, l), scalar float64, with all triples in memory."""
    terms = triple_volumes(c12, c13, c23)  # (n1, n2, n3)
    for weights, axis in ((p12, 2), (p13, 1), (p23, 0)):
        if weights is not None:
            terms = terms * weights.double().unsqueeze(axis)
    return terms.sum()
