"""Partial transport by loops over its definition."""

import torch
from torch import Tensor


def partial_plan(cost: Tensor, a: Tensor, b: Tensor, mass: float, epsilon: float) -> Tensor:
    """P = a_i u_i exp(-C_ij / epsilon) v_j b_j, s = a_i u_i x, t = y v_j b_j, until each sum is what it has to be:
    P 1 + s = a, P^T 1 + t = b, sum s = sum t = 1 - mass."""
    n, m = cost.shape
    kernel = (-cost / epsilon).exp()
    u, v = torch.ones(n, dtype=cost.dtype), torch.ones(m, dtype=cost.dtype)
    x = y = 1.0
    for _ in range(20000):
        for i in range(n):
            u[i] = 1 / (sum(kernel[i, j] * v[j] * b[j] for j in range(m)) + x)
        x = (1 - mass) / sum(float(a[i] * u[i]) for i in range(n))
        for j in range(m):
            v[j] = 1 / (sum(a[i] * u[i] * kernel[i, j] for i in range(n)) + y)
        before, y = y, (1 - mass) / sum(float(v[j] * b[j]) for j in range(m))
        if abs(y / before - 1) < 1e-14:
            break
    return (a * u).unsqueeze(1) * kernel * (v * b)
