"""Scores of every anchor with every group, by volume or distance from the span: the contrastive matrix; and retrieval
by them without the matrix."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mover.ops.inputs import at_least_float32
from mover.ops.registration import (
    Context,
    Gradients,
    gradient_shape,
    register_operator,
    register_without_gradient,
)
from mover.results import RankResult, TopkResult


def volume_scores(
    anchor: Tensor,
    others: Tensor,
    mask: Tensor | None = None,
    *,
    score: str = "volume",
    precision: str = "float32",
) -> Tensor:
    """The score of anchor_i with others_j for all i and j, from products of the rows, without stacking any group.

    Args:
        anchor: unit rows (n, d).
        others: unit rows of the other k - 1 modalities, (m, k-1, d), k = 2 to 8.
        mask: (m, k-1) bool, which members are present; None is all. Rows of missing members may hold anything.
        score: "volume", of the anchor and the members present, or "span", the distance sqrt(1 - |E^T t|^2) of the
            anchor t from the span of the members present, E an orthonormal basis of it. Spans of groups with different
            members present are comparable, volumes are not; with one member they are equal.
        precision: as in `cost`.

    Returns:
        (n, m): 0 for a perfectly aligned group, 1 for an orthogonal one; NaN where no member is present. Its
        transpose scores (others) -> anchor. The gradient of a score of 0 or NaN without members, and that of missing
        members, is 0. For the backward the alphas 1 - cos of all pairs are kept, k - 1 arrays of the size of the
        scores.

    Raises:
        RuntimeError: shapes, types or devices that do not fit, k out of range, a score or precision that is not
            offered.

    Source: MOVER, eq. 7 and 9.
    """
    return torch.ops.mover.volume_scores(at_least_float32(anchor), at_least_float32(others), mask, score, precision)


def volume_topk(
    anchor: Tensor, others: Tensor, topk: int, mask: Tensor | None = None, *, score: str = "volume"
) -> TopkResult:
    """The best groups of every anchor, without the (n, m) matrix of scores.

    Args:
        anchor, others, mask: as in `volume_scores`.
        topk: 1 to m.
        score: "volume" or "span", small is good; or "cosine", the sum over the members present of anchor . member,
            large is good.

    Returns:
        values, indices (int64), both (n, topk): best first, equal scores in the order of their indices, NaN after
        every number. The values are the very bits of `volume_scores`; they carry no gradient (take `volume_scores` of
        the groups chosen for one).

    Raises:
        RuntimeError: as `volume_scores`, and topk out of range.
    """
    values, indices = torch.ops.mover.volume_topk(at_least_float32(anchor), at_least_float32(others), topk, mask, score)
    return TopkResult(values, indices)


def volume_rank(
    anchor: Tensor, others: Tensor, target: Tensor, mask: Tensor | None = None, *, score: str = "volume"
) -> RankResult:
    """Where the target of every anchor stands among all groups, without the (n, m) matrix of scores.

    Args:
        anchor, others, mask, score: as in `volume_topk`.
        target: (n) int64, the group that belongs to each anchor, 0 to m - 1.

    Returns:
        better, tied, both (n) int64: how many groups score better than the target, and how many others exactly the
        same, in the very bits of `volume_scores`. A target that scores NaN has better = m - 1, tied = 0; others that
        do are never better or tied.

    Raises:
        RuntimeError: as `volume_scores`, and a target that is no group.
    """
    better, tied = torch.ops.mover.volume_rank(at_least_float32(anchor), at_least_float32(others), target, mask, score)
    return RankResult(better, tied)


def _fake(
    anchor: Tensor, others: Tensor, mask: Tensor | None = None, score: str = "volume", precision: str = "float32"
) -> Tensor:
    return anchor.new_empty((anchor.shape[0], others.shape[0]))


def _fake_with_alphas(
    anchor: Tensor, others: Tensor, mask: Tensor | None = None, score: str = "volume", precision: str = "float32"
) -> tuple[Tensor, Tensor]:
    alphas = anchor.new_empty((anchor.shape[0], others.shape[0], others.shape[1]))
    return _fake(anchor, others), alphas


def _fake_backward(
    grad_scores: Tensor,
    anchor: Tensor,
    others: Tensor,
    mask: Tensor | None,
    alphas: Tensor,
    score: str,
    precision: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    return gradient_shape(anchor, needs[0]), gradient_shape(others, needs[1])


def _setup_context(ctx: Context, inputs: tuple[Any, ...], outputs: tuple[Tensor, Tensor]) -> None:
    anchor, others, mask, ctx.score, ctx.precision = inputs
    alphas = outputs[1]
    ctx.save_for_backward(anchor, others, mask, alphas)
    ctx.mark_non_differentiable(alphas)


def _backward(ctx: Context, needs: Sequence[bool], grad_scores: Tensor, *grad_alphas: None) -> Gradients:
    anchor, others, mask, alphas = ctx.saved_tensors
    grads = torch.ops.mover.volume_scores_backward(
        grad_scores, anchor, others, mask, alphas, ctx.score, ctx.precision, needs[:2]
    )
    return (*grads, None, None, None)


register_operator("volume_scores_with_alphas", fake=_fake_with_alphas, setup_context=_setup_context, backward=_backward)
register_operator(
    "volume_scores",
    fake=_fake,
    fake_backward=_fake_backward,
    setup_context=_setup_context,
    backward=_backward,
    keeping="volume_scores_with_alphas",
)


def _fake_topk(
    anchor: Tensor, others: Tensor, topk: int, mask: Tensor | None = None, score: str = "volume"
) -> tuple[Tensor, Tensor]:
    values = anchor.new_empty((anchor.shape[0], topk))
    return values, torch.empty_like(values, dtype=torch.int64)


def _fake_rank(
    anchor: Tensor, others: Tensor, target: Tensor, mask: Tensor | None = None, score: str = "volume"
) -> tuple[Tensor, Tensor]:
    better = anchor.new_empty((anchor.shape[0],), dtype=torch.int64)
    return better, torch.empty_like(better)


register_without_gradient("volume_topk", fake=_fake_topk)
register_without_gradient("volume_rank", fake=_fake_rank)
