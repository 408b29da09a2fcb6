"""How close a result has to be: no looser than plain torch in the same type, up to 4 units in the last place."""

import torch
from torch import Tensor


def assert_accurate(ours: Tensor, plain: Tensor, exact: Tensor) -> None:
    """max|ours - exact| <= 2 max|plain - exact| + 4 ulp of the largest entry of `exact` (float64).

    In float64 `exact` has rounding errors of its own, so 64 ulp are allowed there.
    """
    assert ours.dtype == plain.dtype
    assert ours.shape == exact.shape
    ulp = torch.finfo(ours.dtype).eps * float(exact.abs().max())
    allowed = 64 * ulp
    if ours.dtype == torch.float32:
        allowed = 2 * float((plain.double() - exact).abs().max()) + 4 * ulp
    error = float((ours.double() - exact).abs().max())
    assert error <= allowed, f"error {error:.3g}, allowed {allowed:.3g}"


def relative_error(ours: Tensor, exact: Tensor) -> float:
    """|ours - exact|_F / |exact|_F."""
    return float((ours.double() - exact).norm() / exact.norm())
