"""The volume that every anchor spans with every group: the contrastive matrix and the retrieval score."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mover.ops.inputs import at_least_float32
from mover.ops.registration import Context, Gradients, gradient_shape, register_operator


def volume_scores(
    anchor: Tensor,
    others: Tensor,
    mask: Tensor | None = None,
    *,
    score: str = "volume",
    precision: str = "float32",
) -> Tensor:
    """Vol(anchor_i, others_j) for all i and j, from products of the rows, without stacking any group.

    Args:
        anchor: unit rows (n, d).
        others: unit rows of the other k - 1 modalities, (m, k-1, d), k = 2 to 8.
        mask: must be None in this version.
        score: "volume".
        precision: as in `cost`.

    Returns:
        (n, m): 0 for a perfectly aligned group, 1 for an orthogonal one. Its transpose scores (others) -> anchor.

    Raises:
        RuntimeError: shapes, types or devices that do not fit, k out of range, options that are not offered.

    Source: MOVER, eq. 7 and 9.
    """
    return torch.ops.mover.volume_scores(at_least_float32(anchor), at_least_float32(others), mask, score, precision)


def _fake(
    anchor: Tensor, others: Tensor, mask: Tensor | None = None, score: str = "volume", precision: str = "float32"
) -> Tensor:
    return anchor.new_empty((anchor.shape[0], others.shape[0]))


def _fake_backward(
    grad_scores: Tensor,
    anchor: Tensor,
    others: Tensor,
    mask: Tensor | None,
    score: str,
    precision: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    return gradient_shape(anchor, needs[0]), gradient_shape(others, needs[1])


def _setup_context(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    anchor, others, mask, ctx.score, ctx.precision = inputs
    ctx.save_for_backward(anchor, others, mask)


def _backward(ctx: Context, needs: Sequence[bool], grad_scores: Tensor) -> Gradients:
    anchor, others, mask = ctx.saved_tensors
    grads = torch.ops.mover.volume_scores_backward(
        grad_scores, anchor, others, mask, ctx.score, ctx.precision, needs[:2]
    )
    return (*grads, None, None, None)


register_operator(
    "volume_scores", fake=_fake, fake_backward=_fake_backward, setup_context=_setup_context, backward=_backward
)
