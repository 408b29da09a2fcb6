"""Recall@K, median and mean rank of every direction between text, video and audio.

Single modalities are compared by cosine; text with video and audio jointly by the volume the three vectors span
(smaller is better). T2VA and the other directions from text ask with every caption; those to text look for the best
of a clip's captions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mover.evaluate.embeddings import Embeddings
from mover.evaluate.rank import ScoreBlock, Standing, rank_best_of, rank_single

LETTER = {"text": "T", "video": "V", "audio": "A"}
RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)
class Direction:
    """Ask with the modalities `query`, find among `target`: Direction(("text",), ("video", "audio")) is T2VA."""

    query: tuple[str, ...]
    target: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name in tables and metrics.json."""
        return "2".join("".join(LETTER[m] for m in side) for side in (self.query, self.target))


_T, _V, _A, _VA = ("text",), ("video",), ("audio",), ("video", "audio")
DIRECTIONS = tuple(
    Direction(query, target)
    for one, other in ((_T, _V), (_T, _A), (_V, _A), (_T, _VA))
    for query, target in ((one, other), (other, one))
)


def retrieval_metrics(
    embeddings: Embeddings, device: torch.device | None = None, progress: Callable[[str], None] | None = None
) -> dict[str, dict[str, float]]:
    """The metrics of all directions whose modalities are there.

    Args:
        embeddings: what to rank; a clip takes part in a direction when it has all of its modalities.
        device: where to compute the scores; default: the CPU.
        progress: called with the name of a direction before it is ranked.

    Returns:
        per direction {"R@1", "R@5", "R@10" (percent), "MdR", "MnR" (1-based), "N" (queries)}; a direction for which
        no clip has all modalities is left out.
    """
    metrics = {}
    for direction in DIRECTIONS:
        if not set(direction.query + direction.target) <= set(embeddings.modalities):
            continue
        if progress is not None:
            progress(direction.name)
        standing = rank(embeddings, direction, device or torch.device("cpu"))
        if len(standing):
            metrics[direction.name] = summarise(standing)
    return metrics


def summarise(standing: Standing) -> dict[str, float]:
    """Recall@K in percent, median and mean rank counted from 1, and the number of queries."""
    rank = standing.expected_rank
    metrics = {f"R@{k}": round(100 * float(standing.recall_at(k).mean()), 4) for k in RECALL_AT}
    return metrics | {"MdR": float(np.median(rank)) + 1, "MnR": round(float(rank.mean()) + 1, 4), "N": len(standing)}


def rank(embeddings: Embeddings, direction: Direction, device: torch.device) -> Standing:
    """Rank one direction over the clips that have all of its modalities."""
    modalities = set(direction.query + direction.target)
    clips = np.flatnonzero(np.logical_and.reduce([embeddings.present[m] for m in sorted(modalities)]))
    place = np.full(len(embeddings.ids), -1, dtype=np.int64)
    place[clips] = np.arange(len(clips))
    sides = {m: _unit(embeddings.vectors[m][clips], device) for m in sorted(modalities - {"text"})}
    if "text" in modalities:
        captions = np.flatnonzero(place[embeddings.text_owner] >= 0)
        owner = torch.from_numpy(place[embeddings.text_owner[captions]])
        sides["text"] = _unit(embeddings.vectors["text"][captions], device)
    if len(clips) == 0:
        empty = np.zeros(0, dtype=np.int64)
        return Standing(empty, empty, empty)

    scores = _scores(direction, sides)
    if direction.query == ("text",):
        return rank_single(scores, owner, len(clips))
    if direction.target == ("text",):
        return rank_best_of(scores, owner, len(clips))
    return rank_single(scores, torch.arange(len(clips)), len(clips))


def _scores(direction: Direction, sides: dict[str, Tensor]) -> ScoreBlock:
    if len(direction.query) == len(direction.target) == 1:
        query, target = sides[direction.query[0]], sides[direction.target[0]]
        # Products in float64, rounded once: equal vectors get equal scores whatever the tiling of the product.
        return lambda rows: (query[rows] @ target.T).float()
    if len(direction.query) == 1:
        anchor, others = sides[direction.query[0]], torch.stack([sides[m] for m in direction.target], dim=1)
        return lambda rows: -_volumes(anchor[rows], others)
    anchor, others = sides[direction.target[0]], torch.stack([sides[m] for m in direction.query], dim=1)
    return lambda rows: -_volumes(anchor, others[rows]).T


def _volumes(anchor: Tensor, others: Tensor) -> Tensor:
    """Volumes (n, m) of unit rows anchor (n, d) with others (m, k-1, d); NaN wherever a row is NaN."""
    from mover.ops import volume_scores  # loads the C library, which cosine directions do not need

    lost = torch.isnan(anchor).any(1)[:, None] | torch.isnan(others).flatten(1).any(1)[None, :]
    volumes = volume_scores(_finite(anchor), _finite(others))
    return volumes.masked_fill(lost, torch.nan)


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
