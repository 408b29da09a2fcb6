"""From a tower's width to the shared space."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Projection(nn.Linear):
    """Linear map without bias from a tower's output (B, width) to the shared space (B, embed_dim)."""

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__(width, embed_dim, bias=False)

    def reset_parameters(self) -> None:
        """Start as a random map that keeps lengths in expectation, up to sqrt(embed_dim / width)."""
        nn.init.normal_(self.weight, std=self.in_features**-0.5)


def unit_rows(x: Tensor) -> Tensor:
    """Rows of x, float (B, d), scaled to length one, in float32 (B, d).

    A row that is zero becomes the first unit vector and passes no gradient back; one that is not finite becomes NaN.
    """
    x = x.float()
    zero = torch.linalg.vector_norm(x.detach(), dim=1) <= torch.finfo(torch.float32).tiny
    first = torch.zeros_like(x[:1])
    first[:, 0] = 1
    x = torch.where(zero.unsqueeze(1), first, x)
    return x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
