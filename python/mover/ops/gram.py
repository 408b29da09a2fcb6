"""Gram matrices of groups of vectors, and log-determinants of symmetric positive definite matrices."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mover.ops.inputs import at_least_float32
from mover.ops.registration import Context, Gradients, register_operator
from mover.results import LogdetResult


def gram(v: Tensor) -> Tensor:
    """Gram matrices V V^T, accumulated in float64.

    Args:
        v: groups of k >= 1 vectors, (..., k, d).

    Returns:
        (..., k, k), symmetric.

    Raises:
        RuntimeError: shapes or types that do not fit.

    Source: MOVER, section 2.3.
    """
    return torch.ops.mover.gram(at_least_float32(v))


def logdet(g: Tensor, *, backend: str = "auto") -> LogdetResult:
    """Log-determinants by Cholesky factorisation in float64. Only the lower triangle is read.

    The logarithm of a volume is half of it; as a loss use `logdet(gram(v) + eps**2 * I)` with eps = 1e-3, because
    its gradient grows like one over the angle between the vectors.

    Args:
        g: symmetric positive definite matrices (..., k, k), k >= 1.
        backend: "auto" or "registers"; "cusolver" is for CUDA devices.

    Returns:
        LogdetResult. A matrix that is not positive definite has logdet -inf, gradient 0 and info > 0; data never
        raise. The gradient is the symmetric inverse.

    Raises:
        RuntimeError: shapes or types that do not fit, or a backend that is not offered.
    """
    return LogdetResult(*torch.ops.mover.logdet(at_least_float32(g), backend))


def _fake_gram(v: Tensor) -> Tensor:
    return v.new_empty((*v.shape[:-1], v.shape[-2]))


def _fake_gram_backward(grad_gram: Tensor, v: Tensor) -> Tensor:
    return v.new_empty(v.shape)


def _setup_gram(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gram_backward(ctx: Context, needs: Sequence[bool], grad_gram: Tensor) -> Gradients:
    (v,) = ctx.saved_tensors
    return (torch.ops.mover.gram_backward(grad_gram, v),)


register_operator(
    "gram",
    fake=_fake_gram,
    fake_backward=_fake_gram_backward,
    setup_context=_setup_gram,
    backward=_gram_backward,
)


def _fake_logdet(g: Tensor, backend: str = "auto") -> tuple[Tensor, Tensor]:
    return g.new_empty(g.shape[:-2]), g.new_empty(g.shape[:-2], dtype=torch.int32)


def _fake_logdet_backward(grad_logdet: Tensor, g: Tensor, backend: str) -> Tensor:
    return g.new_empty(g.shape)


def _setup_logdet(ctx: Context, inputs: tuple[Any, ...], outputs: tuple[Tensor, Tensor]) -> None:
    g, ctx.backend = inputs
    ctx.save_for_backward(g)
    ctx.mark_non_differentiable(outputs[1])


def _logdet_backward(ctx: Context, needs: Sequence[bool], grad_logdet: Tensor, _: Tensor | None) -> Gradients:
    (g,) = ctx.saved_tensors
    return torch.ops.mover.logdet_backward(grad_logdet, g, ctx.backend), None


register_operator(
    "logdet",
    fake=_fake_logdet,
    fake_backward=_fake_logdet_backward,
    setup_context=_setup_logdet,
    backward=_logdet_backward,
)
