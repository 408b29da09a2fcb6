"""Recall@K, median and mean rank of every direction between the modalities of a set.

Two modalities are compared by cosine. With three to eight, one of them, text where there is any, is also compared with
all the others jointly, by the volume that the vectors span (smaller is better). Directions from text ask with every
caption; those to text look for the best of a clip's captions.

A direction is ranked over the clips that have what it needs: both modalities; or, jointly, the one and at least one of
the others. Volumes of clips that lack different modalities cannot be compared: where one of these clips lacks any, the
joint score of all of them is the distance of the one vector from the span of those that are there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mover.evaluate.directions import Direction, directions, members_present, taking_part
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.rank import ScoreBlock, Standing, rank_best_of, rank_single

RECALL_AT = (1, 5, 10)


def retrieval_metrics(
    embeddings: Embeddings,
    device: torch.device | None = None,
    progress: Callable[[str], None] | None = None,
    anchor: str | None = None,
) -> dict[str, dict[str, float]]:
    """The metrics of all directions, over the clips that have what each needs.

    Args:
        embeddings: what to rank.
        device: where to compute the scores; default: the CPU.
        progress: called with the name of a direction before it is ranked.
        anchor: as in `directions`.

    Returns:
        per direction {"R@1", "R@5", "R@10" (percent), "MdR", "MnR" (1-based), "N" (queries), "clips"}; a direction
        without clips is left out.
    """
    metrics = {}
    for direction in directions(embeddings.modalities, anchor):
        clips = taking_part(embeddings, direction)
        if not len(clips):
            continue
        if progress is not None:
            progress(direction.name)
        standing = rank(embeddings, direction, device or torch.device("cpu"))
        metrics[direction.name] = {**summarise(standing), "clips": len(clips)}
    return metrics


def summarise(standing: Standing) -> dict[str, float]:
    """Recall@K in percent, median and mean rank counted from 1, and the number of queries."""
    rank = standing.expected_rank
    metrics = {f"R@{k}": round(100 * float(standing.recall_at(k).mean()), 4) for k in RECALL_AT}
    return metrics | {"MdR": float(np.median(rank)) + 1, "MnR": round(float(rank.mean()) + 1, 4), "N": len(standing)}


def rank(embeddings: Embeddings, direction: Direction, device: torch.device) -> Standing:
    """Rank one direction over the clips that take part in it."""
    modalities = set(direction.query + direction.target)
    clips = taking_part(embeddings, direction)
    if len(clips) == 0:
        empty = np.zeros(0, dtype=np.int64)
        return Standing(empty, empty, empty)
    place = np.full(len(embeddings.ids), -1, dtype=np.int64)
    place[clips] = np.arange(len(clips))
    sides = {m: _unit(embeddings.vectors[m][clips], device) for m in sorted(modalities - {"text"})}
    if "text" in modalities:
        captions = np.flatnonzero(place[embeddings.text_owner] >= 0)
        owner = torch.from_numpy(place[embeddings.text_owner[captions]])
        sides["text"] = _unit(embeddings.vectors["text"][captions], device)

    scores = _scores(direction, sides, torch.from_numpy(members_present(embeddings, direction, clips)).to(device))
    if direction.query == ("text",):
        return rank_single(scores, owner, len(clips))
    if direction.target == ("text",):
        return rank_best_of(scores, owner, len(clips))
    return rank_single(scores, torch.arange(len(clips)), len(clips))


def _scores(direction: Direction, sides: dict[str, Tensor], members: Tensor) -> ScoreBlock:
    if len(direction.others) == 1:
        query, target = sides[direction.query[0]], sides[direction.target[0]]
        # Products in float64, rounded once: equal vectors get equal scores whatever the tiling of the product.
        return lambda rows: (query[rows] @ target.T).float()
    single, others = sides[direction.single], torch.stack([sides[m] for m in direction.others], dim=1)
    score = "volume" if bool(members.all()) else "span"
    if len(direction.query) == 1:
        return lambda rows: -_volumes(single[rows], others, members, score)
    return lambda rows: -_volumes(single, others[rows], members[rows], score).T


def _volumes(anchor: Tensor, others: Tensor, members: Tensor, score: str) -> Tensor:
    """Scores (n, m) of unit rows anchor (n, d) with others (m, k-1, d), of which `members` (m, k-1) are there.

    NaN wherever a row that is there is NaN.
    """
    from mover.ops import volume_scores  # loads the C library, which cosine directions do not need

    bad = (torch.isnan(others).any(2) & members).any(1)
    lost = torch.isnan(anchor).any(1)[:, None] | bad[None, :]
    mask = None if score == "volume" else members
    return volume_scores(_finite(anchor), _finite(others), mask, score=score).masked_fill(lost, torch.nan)


def _finite(rows: Tensor) -> Tensor:
    """float32, any unit vector in place of NaN: the operators take unit rows only."""
    stand_in = torch.zeros(rows.shape[-1], device=rows.device)
    stand_in[0] = 1
    return torch.where(torch.isnan(rows), stand_in, rows).float().contiguous()


def _unit(vectors: np.ndarray, device: torch.device) -> Tensor:
    """Rows of length 1 in float64; a row that is zero or not finite becomes NaN and so stands last."""
    rows = torch.from_numpy(np.ascontiguousarray(vectors)).to(device, torch.float64)
    rows = torch.where(torch.isfinite(rows).all(1, keepdim=True), rows, torch.nan)
    return rows / rows.norm(dim=1, keepdim=True)
