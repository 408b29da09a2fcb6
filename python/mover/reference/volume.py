"""Volumes from vectors by QR, of listed groups from their distances, and the sum over all triples term by term."""

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


def group_volume(costs: Tensor, groups: Tensor) -> Tensor:
    """costs (k(k-1)/2, B, B) squared distances of unit rows, groups (T, k) -> (T) float64.

    det of M_rs = alpha_1r + alpha_1s - alpha_rs - alpha_1r alpha_1s, r, s >= 2: the Gram matrix less its first row and
    column, without cancellation for close rows.
    """
    k = groups.shape[1]
    alpha = costs.new_zeros((k, k, groups.shape[0]), dtype=torch.float64)  # 1 - cos
    pairs = [(r, s) for r in range(k) for s in range(r + 1, k)]
    for cost, (r, s) in zip(costs.double(), pairs, strict=True):
        entries = cost[groups[:, r], groups[:, s]] / 2
        alpha = alpha.index_put((torch.tensor([r, s]), torch.tensor([s, r])), torch.stack([entries, entries]))
    first = alpha[0, 1:]  # (k-1, T)
    matrix = first[:, None] + first[None] - alpha[1:, 1:] - first[:, None] * first[None]
    square = torch.linalg.det(matrix.permute(2, 0, 1))
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1).sqrt(), 0)


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
