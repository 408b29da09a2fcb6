"""Generalised zero-shot retrieval: how queries of classes that were not trained on fare in a gallery of all classes.

A model that has learned the seen classes by heart finds those and offers their items for everything else; so Recall@1
is told apart for queries of seen and of unseen classes, each among all candidates, and their harmonic mean stands for
both. docs/zero-shot.md has the definitions and the levels of chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mover.errors import UserError
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.intervals import RESAMPLES, Statistic, bootstrap, interval, means
from mover.evaluate.rank import Ranking, rankings

if TYPE_CHECKING:
    from rich.table import Table

KEY = "zero_shot"
"""Of a row of metrics.json, and of its `_meta`."""
GROUPS = ("seen", "unseen")


@dataclass(frozen=True)
class Split:
    """The clips by whether their class was trained on.

    unseen: names of the classes that were not. seen, held_out: int64, positions of the clips of the other classes and
    of these. unknown: how many clips have no label; they are candidates, and no queries.
    """

    unseen: tuple[str, ...]
    seen: np.ndarray
    held_out: np.ndarray
    unknown: int


def unseen_classes(words: Sequence[str]) -> tuple[str, ...]:
    """The classes that these name, or that are marked as unseen in the manifest (.jsonl) which the only one names.

    Raises:
        UserError: a manifest whose clips are not marked, or none of them as unseen.
    """
    if len(words) != 1 or not words[0].endswith(".jsonl"):
        return tuple(dict.fromkeys(words))
    from mover.data.derive import UNSEEN
    from mover.data.manifest import read_manifest

    clips = read_manifest(Path(words[0]))
    names = sorted({clip.label for clip in clips if clip.extra.get(UNSEEN) is True and clip.label is not None})
    if not names:
        raise UserError(
            f"{words[0]} marks no class as unseen. Name the classes, or a manifest that 'mover derive --unseen' made."
        )
    return tuple(names)


def split_of(embeddings: Embeddings, unseen: Sequence[str]) -> Split:
    """Which clips are of seen and of unseen classes.

    Raises:
        UserError: no labels, a class that no clip has, or no clip of a seen class.
    """
    labels = np.array(embeddings.labels or [""] * len(embeddings.ids))
    known = sorted(set(labels.tolist()) - {""})
    if not known:
        raise UserError("The clips have no labels, so that none is known to be of an unseen class: leave --unseen out.")
    absent = [name for name in unseen if name not in known]
    if absent:
        listed = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
        raise UserError(f"No clip has the class '{absent[0]}'. The classes are: {listed}.")
    held_out = np.isin(labels, list(unseen))
    seen = (labels != "") & ~held_out
    if not seen.any() or not held_out.any():
        which = "seen" if held_out.any() else "unseen"
        raise UserError(f"No clip is of a class that is {which}, and both kinds are needed. Name other classes.")
    return Split(tuple(unseen), np.flatnonzero(seen), np.flatnonzero(held_out), int((labels == "").sum()))


def generalised(
    embeddings: Embeddings,
    found: Sequence[Ranking],
    split: Split,
    device: torch.device | None = None,
    anchor: str | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Recall@1 of seen and of unseen classes, for every ranking.

    Args:
        embeddings: what was ranked. found: its rankings.
        split: of its clips.
        device, anchor: as in `rankings`; for the two kinds of classes alone.
        resamples, seed: of the clips, for 95 % intervals; 0: no intervals.

    Returns:
        name of the ranking to {"seen": {"R@1", "N" (queries), "clips" (those that ask), "alone"}, "unseen": {the
        same}, "harmonic"}, in percent. alone: R@1 where only the clips of these classes are candidates; None where
        those are ranked by another score. harmonic: 2 s u / (s + u). With resamples "intervals": {"seen", "unseen",
        "harmonic": [low, high]}. R@1 and harmonic are None where no query is of one kind.
    """
    positions = dict(zip(GROUPS, (split.seen, split.held_out), strict=True))
    alone = {group: _alone(embeddings.select(where), found, device, anchor) for group, where in positions.items()}
    rows = {}
    for ranking in found:
        values = 100 * ranking.standing.recall_at(1)
        asking = {group: np.isin(ranking.query_clip, where) for group, where in positions.items()}
        row: dict[str, Any] = {}
        for group, of in asking.items():
            clips = len(np.unique(ranking.query_clip[of]))
            recall = round(float(values[of].mean()), 4) if of.any() else None
            row[group] = {"R@1": recall, "N": int(of.sum()), "clips": clips, "alone": alone[group].get(ranking.name)}
        both = all(of.any() for of in asking.values())
        row["harmonic"] = round(float(harmonic(*(values[of].mean() for of in asking.values()))), 4) if both else None
        if resamples and both:
            of_kind = means([(ranking.query_clip[of], values[of, None]) for of in asking.values()], len(embeddings.ids))
            bounds = interval(bootstrap(_with_harmonic(of_kind), len(embeddings.ids), resamples, seed)).T
            named = zip((*GROUPS, "harmonic"), bounds, strict=True)
            row["intervals"] = {name: [round(float(v), 4) for v in pair] for name, pair in named}
        rows[ranking.name] = row
    return rows


def harmonic(seen: Any, unseen: Any) -> Any:
    """2 s u / (s + u), 0 where both are; numbers or arrays."""
    total = np.asarray(seen + unseen)
    return np.where(total > 0, 2 * seen * unseen / np.where(total > 0, total, 1), total)


def summary(split: Split) -> dict[str, Any]:
    """What `_meta` tells of the split."""
    counts = {"seen_clips": len(split.seen), "unseen_clips": len(split.held_out), "unlabelled_clips": split.unknown}
    return {"unseen": list(split.unseen), **counts, "gallery": "clips of all classes"}


def zero_shot_table(metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per direction: R@1 of seen, of unseen classes and the harmonic mean, with intervals; and alone."""
    from rich import box
    from rich.table import Table

    title = (
        "R@1 by class of the query, in a gallery of all; H: harmonic mean; s, u: seen, unseen in a gallery of their own"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("direction", overflow="fold", min_width=14)
    for column in ("seen", "95 %", "unseen", "95 %", "H", "95 %", "s", "u"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, row in metrics.items():
        found = row.get(KEY)
        if found is None:
            continue
        cells = []
        for group in (*GROUPS, "harmonic"):
            bounds = found.get("intervals", {}).get(group)
            cells.append(_shown(found[group]["R@1"] if group in GROUPS else found[group]))
            cells.append("" if bounds is None else "–".join(f"{bound:.1f}" for bound in bounds))
        table.add_row(name, *cells, *(_shown(found[group]["alone"]) for group in GROUPS))
    return table


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _alone(
    embeddings: Embeddings, found: Sequence[Ranking], device: torch.device | None, anchor: str | None
) -> dict[str, float]:
    """R@1 of the rankings among these clips only, of those that are ranked by the same score."""
    scores = {ranking.name: ranking.score for ranking in found}
    temperature = next((r.dual_softmax for r in found if r.dual_softmax is not None), None)
    among = rankings(embeddings, device, None, anchor, every_score=True, dual_softmax=temperature)
    return {
        ranking.name: round(100 * float(ranking.standing.recall_at(1).mean()), 4)
        for ranking in among
        if scores.get(ranking.name) == ranking.score
    }


def _with_harmonic(of_kind: Statistic) -> Statistic:
    def statistic(weights: np.ndarray) -> np.ndarray:
        both = of_kind(weights)  # (b, 2)
        return np.column_stack([both, harmonic(both[:, 0], both[:, 1])])

    return statistic
