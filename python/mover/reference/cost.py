"""Squared Euclidean distances, by differences."""

from torch import Tensor


def cost(x: Tensor, y: Tensor) -> Tensor:
    """x (..., n, d), y (..., m, d) -> (..., n, m) float64: sum_t (x_it - y_jt)^2."""
    differences = x.double().unsqueeze(-2) - y.double().unsqueeze(-3)  # (..., n, m, d)
    return differences.square().sum(-1)
