"""Do groups of one clip span smaller volumes than groups of different clips? Histograms of both, and one number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mover.evaluate.directions import Direction
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.points import unit_rows
from mover.losses.embeddings import MOST_MODALITIES
from mover.report.charts import INK, MUTED, SERIES, Chart, chart, drawing

CLIPS = 500
"""Clips drawn at most: their unmatched groups are their number squared."""
BINS = 48


@dataclass(frozen=True)
class Groups:
    """score: "volume" (smaller is nearer) or "cosine" (larger is). matched: (n,), of one clip each. unmatched:
    (n² - n,), one modality of a clip with all the others of another. clips: how many have what it takes, n or more.
    """

    score: str
    matched: np.ndarray
    unmatched: np.ndarray
    clips: int

    @property
    def told_apart(self) -> float:
        """The share of all pairs of a matched and an unmatched group, in percent, in which the matched one is nearer;
        equal ones count half. 50: chance, 100: always."""
        sign = 1.0 if self.score == "volume" else -1.0
        ordered = np.sort(sign * self.unmatched)
        below = np.searchsorted(ordered, sign * self.matched, side="left")
        upto = np.searchsorted(ordered, sign * self.matched, side="right")
        return 100 * float((len(ordered) - (below + upto) / 2).mean()) / len(ordered)


def groups_of(embeddings: Embeddings, direction: Direction, seed: int = 0) -> Groups | None:
    """The groups of the modalities of a direction, of clips that have all of them with usable rows.

    Returns:
        None for fewer than two such clips, or more modalities than a volume takes. A clip's text is its first caption.
    """
    names = (direction.single, *direction.others)
    if len(names) > MOST_MODALITIES:
        return None
    rows: dict[str, np.ndarray] = {}
    there = np.ones(len(embeddings.ids), dtype=bool)
    for m in names:
        unit, usable = unit_rows(embeddings.vectors[m])
        if m == "text":
            _, first = np.unique(embeddings.text_owner, return_index=True)
            owners = embeddings.text_owner[first]
            place = np.zeros(len(there), dtype=np.int64)
            place[owners] = first
            has = np.zeros_like(there)
            has[owners] = True
            unit, usable = unit[place], usable[place] & has
        rows[m] = unit
        there &= embeddings.present[m] & usable
    clips = np.flatnonzero(there)
    if len(clips) < 2:
        return None
    count = len(clips)
    if count > CLIPS:
        clips = np.sort(np.random.default_rng(seed).choice(clips, CLIPS, replace=False))
    if len(names) == 2:
        score, table = "cosine", rows[names[0]][clips] @ rows[names[1]][clips].T
    else:
        score, table = "volume", _volumes(rows[names[0]][clips], np.stack([rows[m][clips] for m in names[1:]], axis=1))
    other = ~np.eye(len(clips), dtype=bool)
    return Groups(score, np.diagonal(table).copy(), table[other], count)


def volume_chart(groups: Groups) -> Chart:
    """Both histograms over one axis, each as shares of its own groups."""
    both = np.concatenate([groups.matched, groups.unmatched])
    low, high = float(both.min()), float(both.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    matched, unmatched = (
        100 * np.histogram(values, edges)[0] / len(values) for values in (groups.matched, groups.unmatched)
    )
    middles = [float(np.median(values)) for values in (groups.matched, groups.unmatched)]
    with drawing(2.3) as (figure, axes):
        axes.stairs(unmatched, edges, fill=True, color=MUTED, alpha=0.28)
        axes.stairs(unmatched, edges, color=MUTED, linewidth=1.0)
        axes.stairs(matched, edges, fill=True, color=SERIES[0], alpha=0.35)
        axes.stairs(matched, edges, color=SERIES[0], linewidth=1.4)
        for name, values, tone in (("matched", matched, SERIES[0]), ("unmatched", unmatched, MUTED)):
            top = int(values.argmax())
            axes.annotate(
                name, ((edges[top] + edges[top + 1]) / 2, values[top]), xytext=(0, 4), textcoords="offset points",
                ha="center", va="bottom", color=tone, fontsize=8.5, fontweight="bold", annotation_clip=False,
            )  # fmt: skip
        axes.set_ylim(0, 1.18 * max(matched.max(), unmatched.max()))
        axes.set_xlabel(groups.score)
        axes.set_title("share of the groups, %", color=INK)
        label = (
            f"Histograms of the {groups.score} of {len(groups.matched)} matched and {len(groups.unmatched)} unmatched "
            f"groups: the medians are {middles[0]:.2f} and {middles[1]:.2f}; a matched group is nearer than an "
            f"unmatched one in {groups.told_apart:.1f} % of all pairs."
        )
        return chart(figure, "volume", label)


def _volumes(single: np.ndarray, others: np.ndarray) -> np.ndarray:
    """float64 (n, n): the volume of each row (n, d) with each clip's others (n, k-1, d)."""
    import torch

    from mover.ops import volume_scores

    scores = volume_scores(torch.from_numpy(single).float(), torch.from_numpy(others).float())
    return np.asarray(scores.double())
