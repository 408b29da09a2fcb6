"""The volume of the parallelotope that a group of vectors spans: of stacked groups, of listed groups of unit rows, and
summed over all triples."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mover.ops.inputs import at_least_float32
from mover.ops.registration import Context, Gradients, gradient_shape, register_operator


def volume(v: Tensor, eps: float = 0.0) -> Tensor:
    """Volumes sqrt(det(V V^T) + eps^2) of groups of any vectors, in float64 inside.

    Args:
        v: groups of k = 1 to 8 vectors, (..., k, d).
        eps: >= 0, in the unit of the volume; smooths the volume near 0.

    Returns:
        (...). Nearly parallel vectors keep their digits. Groups that are linearly dependent to working precision
        have the volume eps and the gradient 0.

    Raises:
        RuntimeError: shapes or types that do not fit, k out of range, eps < 0.

    Source: MOVER, eq. 7.
    """
    return torch.ops.mover.volume(at_least_float32(v), eps)


def group_volume(costs: Tensor, groups: Tensor) -> Tensor:
    """Volumes of listed groups of unit rows, from their squared distances alone.

    Args:
        costs: squared distances of the unit rows of every pair of k modalities, (P, B, B), P = k(k-1)/2 in the order
            (1,2), (1,3), ..., (1,k), (2,3), ..., (k-1,k), as `cost` or `transport` return them.
        groups: (T, k) int64, k = 2 to 8; column m holds row numbers of modality m, 0 to B - 1. Groups may repeat.

    Returns:
        (T). Groups that are linearly dependent to working precision have the volume 0 and the gradient 0. The
        gradient flows to the costs of the listed pairs and is summed in the order of the groups.

    Raises:
        RuntimeError: shapes, types or devices that do not fit, or a row number that no row has.

    Source: MOVER, section 2.2.
    """
    return torch.ops.mover.group_volume(at_least_float32(costs), groups)


def expected_volume(
    c12: Tensor,
    c13: Tensor,
    c23: Tensor,
    p12: Tensor | None = None,
    p13: Tensor | None = None,
    p23: Tensor | None = None,
) -> Tensor:
    """The sum over all triples i, j, l of p12[i,j] p13[i,l] p23[j,l] Vol(i, j, l) of three sets of unit rows.

    Args:
        c12, c13, c23: squared distances of the unit rows, (n1, n2), (n1, n3), (n2, n3), as `cost` or `transport`
            return them.
        p12, p13, p23: weights of the same shapes; None is ones. The star coupling of two plans that share the
            masses a of set 1 is p12 = plan12, p13 = plan13 / a[:, None] (0 where a is 0), p23 = None.

    Returns:
        A scalar. Memory grows with the squares of the sizes only. The gradient flows to all six; those that no one
        asks for are not computed.

    Raises:
        RuntimeError: shapes, types or devices that do not fit.

    Source: MOVER, eq. 8 for k = 3.
    """
    tensors = (at_least_float32(tensor) for tensor in (c12, c13, c23, p12, p13, p23))
    return torch.ops.mover.expected_volume(*tensors)


def _fake_volume(v: Tensor, eps: float = 0.0) -> Tensor:
    return v.new_empty(v.shape[:-2])


def _fake_volume_backward(grad_volume: Tensor, v: Tensor, eps: float) -> Tensor:
    return v.new_empty(v.shape)


def _setup_volume(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    v, ctx.eps = inputs
    ctx.save_for_backward(v)


def _volume_backward(ctx: Context, needs: Sequence[bool], grad_volume: Tensor) -> Gradients:
    (v,) = ctx.saved_tensors
    return torch.ops.mover.volume_backward(grad_volume, v, ctx.eps), None


register_operator(
    "volume",
    fake=_fake_volume,
    fake_backward=_fake_volume_backward,
    setup_context=_setup_volume,
    backward=_volume_backward,
)


def _fake_groups(costs: Tensor, groups: Tensor) -> Tensor:
    return costs.new_empty((groups.shape[0],))


def _fake_groups_backward(grad_volume: Tensor, costs: Tensor, groups: Tensor) -> Tensor:
    return costs.new_empty(costs.shape)


def _setup_groups(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _groups_backward(ctx: Context, needs: Sequence[bool], grad_volume: Tensor) -> Gradients:
    return torch.ops.mover.group_volume_backward(grad_volume, *ctx.saved_tensors), None


register_operator(
    "group_volume",
    fake=_fake_groups,
    fake_backward=_fake_groups_backward,
    setup_context=_setup_groups,
    backward=_groups_backward,
)


def _fake_expected(
    c12: Tensor,
    c13: Tensor,
    c23: Tensor,
    p12: Tensor | None = None,
    p13: Tensor | None = None,
    p23: Tensor | None = None,
) -> Tensor:
    return c12.new_empty(())


def _fake_expected_backward(
    grad_value: Tensor,
    c12: Tensor,
    c13: Tensor,
    c23: Tensor,
    p12: Tensor | None,
    p13: Tensor | None,
    p23: Tensor | None,
    needs: Sequence[bool],
) -> tuple[Tensor, ...]:
    return tuple(gradient_shape(like, need) for like, need in zip((c12, c13, c23) * 2, needs, strict=True))


def _setup_expected(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _expected_backward(ctx: Context, needs: Sequence[bool], grad_value: Tensor) -> Gradients:
    return torch.ops.mover.expected_volume_backward(grad_value, *ctx.saved_tensors, needs)


register_operator(
    "expected_volume",
    fake=_fake_expected,
    fake_backward=_fake_expected_backward,
    setup_context=_setup_expected,
    backward=_expected_backward,
)
