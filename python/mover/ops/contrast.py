"""Cross entropy of a square matrix of scores whose positives lie on the diagonal, both ways."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mover.ops.inputs import at_least_float32
from mover.ops.registration import Context, Gradients, register_operator


def contrast(
    scores: Tensor, scale: Tensor | None = None, *, label_smoothing: float = 0.0, denominator: str = "all"
) -> Tensor:
    """The mean of the cross entropies of rows and of columns of the logits scale * scores, each averaged over the rows.

    Args:
        scores: (..., B, B), the positive of row and column i at (i, i).
        scale: a scalar, None is 1: -1 / temperature for volumes, 1 / temperature for cosines.
        label_smoothing: 0 to 1, the share of the target spread evenly over all.
        denominator: "all", or "negatives" to leave the positive out of the log-sum-exp, as MOVER's eq. 9 is printed.

    Returns:
        (...). One read of the scores forward and one backward; no array of their size is kept but they.

    Raises:
        RuntimeError: shapes, types or devices that do not fit, or an option out of range.

    Source: MOVER, eq. 9 and 10.
    """
    scores = at_least_float32(scores)
    if scale is not None:
        scale = scale.to(scores.dtype)
    return torch.ops.mover.contrast(scores, scale, label_smoothing, denominator)[0]


def _fake(
    scores: Tensor, scale: Tensor | None = None, label_smoothing: float = 0.0, denominator: str = "all"
) -> tuple[Tensor, Tensor, Tensor]:
    return scores.new_empty(scores.shape[:-2]), scores.new_empty(scores.shape[:-1]), scores.new_empty(scores.shape[:-1])


def _fake_backward(
    grad_loss: Tensor,
    scores: Tensor,
    scale: Tensor | None,
    rows: Tensor,
    columns: Tensor,
    label_smoothing: float,
    denominator: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    return scores.new_empty(scores.shape), scores.new_empty(() if needs[1] else (0,))


def _setup_context(ctx: Context, inputs: tuple[Any, ...], outputs: tuple[Tensor, Tensor, Tensor]) -> None:
    scores, scale, ctx.label_smoothing, ctx.denominator = inputs
    _, rows, columns = outputs
    ctx.save_for_backward(scores, scale, rows, columns)
    ctx.mark_non_differentiable(rows, columns)


def _backward(ctx: Context, needs: Sequence[bool], grad_loss: Tensor, *_: None) -> Gradients:
    scores, scale, rows, columns = ctx.saved_tensors
    grads = torch.ops.mover.contrast_backward(
        grad_loss, scores, scale, rows, columns, ctx.label_smoothing, ctx.denominator, needs[:2]
    )
    return (*grads, None, None)


register_operator(
    "contrast", fake=_fake, fake_backward=_fake_backward, setup_context=_setup_context, backward=_backward
)
