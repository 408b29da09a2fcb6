"""Recall@K, median and mean rank, MRR and mAP of every direction between the modalities of a set.

Directions from text ask with every caption; those to text look for the best of a clip's captions. docs/evaluation.md
defines every number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mover.evaluate.embeddings import Embeddings
from mover.evaluate.intervals import RESAMPLES, bootstrap, interval, means, medians, together
from mover.evaluate.rank import Progress, Ranking, rankings
from mover.evaluate.standing import DEPTH, Standing

RECALL_AT = (1, 5, 10, 50)
AVERAGES = (*(f"R@{k}" for k in RECALL_AT), "MnR", "MRR", f"mAP@{DEPTH}")
"""The metrics that are means over the queries."""
METRICS = (*AVERAGES, "MdR")

Metrics = dict[str, dict[str, Any]]


def retrieval_metrics(
    embeddings: Embeddings,
    device: torch.device | None = None,
    progress: Progress | None = None,
    anchor: str | None = None,
    *,
    every_score: bool = False,
    dual_softmax: float | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> Metrics:
    """The metrics of all directions, over the clips that have what each needs.

    Args:
        embeddings, device, progress, anchor, every_score, dual_softmax: as in `rankings`.
        resamples: of the clips, for 95 % intervals; 0: no intervals.
        seed: of the resamples.

    Returns:
        as `metrics_of`.
    """
    found = rankings(
        embeddings, device, progress, anchor, every_score=every_score, dual_softmax=dual_softmax
    )  # fmt: skip
    return metrics_of(found, len(embeddings.ids), resamples=resamples, seed=seed)


def metrics_of(found: Sequence[Ranking], clips: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Metrics:
    """The metrics of rankings.

    Args:
        found: what `rankings` returns.
        clips: how many the set has, those that take part in no direction included.
        resamples, seed: as in `retrieval_metrics`.

    Returns:
        per ranking {"R@1", "R@5", "R@10", "R@50" (percent), "MdR", "MnR" (ranks from 1), "MRR", "mAP@10" (percent),
        "N" (queries), "clips", "score"}; of joint ones "gain", by how many points R@1 exceeds the best R@1 of the
        directions that have one modality in place of several, None where those are of other clips. With resamples and
        at least two clips "intervals": {metric: [low, high]}, of the gain, too.
    """
    values = {ranking.name: averaged(ranking.standing) for ranking in found}
    metrics: Metrics = {}
    for ranking in found:
        averages = values[ranking.name].mean(axis=0)
        row: dict[str, Any] = {name: round(float(v), 4) for name, v in zip(AVERAGES, averages, strict=True)}
        row["MdR"] = float(np.median(ranking.standing.expected_rank)) + 1
        row |= {"N": len(ranking.standing), "clips": len(ranking.clips), "score": ranking.score}
        metrics[ranking.name] = row
    parts = {ranking.name: _parts(ranking, found) for ranking in found if len(ranking.direction.others) > 1}
    for name, others in parts.items():
        best = max((metrics[other]["R@1"] for other in others), default=None)
        metrics[name]["gain"] = None if best is None else round(metrics[name]["R@1"] - best, 4)
    if resamples and found:
        for name, intervals in _intervals(found, values, parts, clips, resamples, seed).items():
            metrics[name]["intervals"] = intervals
    return metrics


def averaged(standing: Standing) -> np.ndarray:
    """Of each query what AVERAGES are the means of, float64 (Q, len(AVERAGES))."""
    recall = [100 * standing.recall_at(k) for k in RECALL_AT]
    rest = [standing.expected_rank + 1, 100 * standing.reciprocal_rank(), 100 * standing.precision()]
    return np.stack([*recall, *rest], axis=1)


def _parts(joint: Ranking, found: Sequence[Ranking]) -> list[str]:
    """The names of the rankings with one modality in place of a joint one's several; none where clips differ."""
    one, query = (joint.direction.single,), joint.direction.query
    parts = [
        other
        for other in found
        if other.dual_softmax == joint.dual_softmax
        and len(other.direction.others) == 1
        and one == (other.direction.query if query == one else other.direction.target)
    ]
    return [other.name for other in parts] if all(np.array_equal(p.clips, joint.clips) for p in parts) else []


def _intervals(
    found: Sequence[Ranking],
    values: dict[str, np.ndarray],
    parts: dict[str, list[str]],
    clips: int,
    count: int,
    seed: int,
) -> dict[str, dict[str, list[float]]]:
    """Of each ranking of at least two clips {metric: [low, high]}, all by the same resamples."""
    found = [ranking for ranking in found if len(ranking.clips) > 1]
    if not found:
        return {}
    averages = means([(ranking.query_clip, values[ranking.name]) for ranking in found], clips)
    middle = [medians(ranking.query_clip, ranking.standing.expected_rank + 1) for ranking in found]
    drawn = bootstrap(together([averages, *middle]), clips, count, seed)
    width = len(AVERAGES)
    recall = {ranking.name: drawn[:, i * width] for i, ranking in enumerate(found)}
    intervals = {}
    for i, ranking in enumerate(found):
        columns = [*range(i * width, (i + 1) * width), len(found) * width + i]
        named = dict(zip(METRICS, interval(drawn[:, columns]).T, strict=True))
        if parts.get(ranking.name):
            best = np.max([recall[other] for other in parts[ranking.name]], axis=0)
            named["gain"] = interval((recall[ranking.name] - best)[:, None])[:, 0]
        intervals[ranking.name] = {name: [round(float(v), 4) for v in bounds] for name, bounds in named.items()}
    return intervals
