"""Scores of every anchor with every group, group by group, and retrieval by them from the whole matrix."""

import torch
from torch import Tensor

from mover.reference.volume import volume
from mover.results import RankResult, TopkResult


def volume_scores(anchor: Tensor, others: Tensor, mask: Tensor | None = None, score: str = "volume") -> Tensor:
    """anchor (n, d), others (m, k-1, d), mask (m, k-1) -> (n, m) float64, NaN for groups without members.

    score: "volume" of anchor and members present, "span", the distance of the anchor from their span, or "cosine", the
    sum of their inner products with it.
    """
    anchor, others = anchor.double(), others.double()
    scores = []
    for j in range(others.shape[0]):
        members = others[j] if mask is None else others[j, mask[j]]  # (present, d)
        if members.shape[0] == 0:
            scores.append(anchor.new_full(anchor.shape[:1], torch.nan))
        elif score == "cosine":
            scores.append((anchor @ members.mT).sum(1))
        elif score == "span":
            projection = anchor @ torch.linalg.pinv(members, rtol=1e-10) @ members
            scores.append((anchor - projection).norm(dim=1))
        else:
            groups = [anchor[:, None], members.expand(anchor.shape[0], *members.shape)]
            scores.append(volume(torch.cat(groups, dim=1)))
    return torch.stack(scores, dim=1) if scores else anchor.new_zeros((anchor.shape[0], 0))


def volume_topk(
    anchor: Tensor, others: Tensor, topk: int, mask: Tensor | None = None, score: str = "volume"
) -> TopkResult:
    """The topk best groups of every anchor, best first, ties by index, NaN last."""
    return topk_of(volume_scores(anchor, others, mask, score), topk, score)


def volume_rank(
    anchor: Tensor, others: Tensor, target: Tensor, mask: Tensor | None = None, score: str = "volume"
) -> RankResult:
    """How many groups score better than the target of every anchor, and how many others the same."""
    return rank_of(volume_scores(anchor, others, mask, score), target, score)


def topk_of(scores: Tensor, topk: int, score: str = "volume") -> TopkResult:
    """`volume_topk` from the matrix of scores, in the type it has."""
    keys = -scores if score == "cosine" else scores
    indices = torch.sort(keys, dim=1, stable=True).indices[:, :topk]  # NaN sorts last
    return TopkResult(scores.gather(1, indices), indices)


def rank_of(scores: Tensor, target: Tensor, score: str = "volume") -> RankResult:
    """`volume_rank` from the matrix of scores, in the type it has."""
    keys = -scores if score == "cosine" else scores
    own = keys.gather(1, target[:, None])
    better, tied = (keys < own).sum(1), (keys == own).sum(1) - 1
    undefined = own[:, 0].isnan()
    return RankResult(better.masked_fill(undefined, scores.shape[1] - 1), tied.masked_fill(undefined, 0))
