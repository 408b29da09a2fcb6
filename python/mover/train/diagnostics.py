"""What a step of training looks like from inside: volumes, plans, spread, gradients and retrieval within its batch.

Everything is of the embeddings that the step has computed anyway, and of the gradients before they are clipped. What
is drawn comes from a generator keyed by the seed and the step; the random state of torch is left alone.
docs/diagnostics.md says what each number means, and what is healthy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mover import ops
from mover.config import TrainConfig, TransportConfig
from mover.data.sampling import DIAGNOSTICS, generator
from mover.evaluate.directions import directions
from mover.evaluate.geometry import effective_rank
from mover.losses import Objective
from mover.losses.embeddings import MOST_MODALITIES, Clips, Present, check_embeddings, pairs_of
from mover.losses.matching import match_groups
from mover.losses.transport import transport_pairs
from mover.models.model import MoverModel

DRAWS = 256
"""Random groups drawn for the volumes, and random pairs of each two modalities for the cosines."""
QUANTILES = {"10%": 0.1, "50%": 0.5, "90%": 0.9}

Values = dict[str, Any]
"""Part of a line of the log: numbers, and None for what this batch cannot tell."""


@dataclass(frozen=True)
class _Batch:
    """Rows of k modalities. clips: (B, d) each. there: bool (k, B). owner: int64 (k, B), the clip of each row."""

    modalities: list[str]
    clips: Clips
    there: np.ndarray
    owner: np.ndarray

    def from_row(self, first: int) -> _Batch:
        """The same without the rows before `first`."""
        present = None if self.clips.present is None else self.clips.present[:, first:]
        clips = Clips(tuple(rows[first:] for rows in self.clips.rows), present)
        return _Batch(self.modalities, clips, self.there[:, first:], self.owner[:, first:])

    def same(self, p: int, q: int) -> np.ndarray:
        """bool (B, B): whether row i of modality p and row j of modality q are of one clip, and there."""
        one = self.owner[p][:, None] == self.owner[q][None, :]
        return np.asarray(one & self.there[p][:, None] & self.there[q][None, :])

    def true_groups(self) -> np.ndarray:
        """int64 (T, k): the rows of each clip that has every modality in the batch."""
        matches = [self.same(0, m) for m in range(len(self.there))]
        whole = np.logical_and.reduce([same.any(1) for same in matches])
        return np.stack([same.argmax(1)[whole] for same in matches], axis=1)

    def random_groups(self, among: Sequence[int], random: np.random.Generator) -> np.ndarray:
        """int64 (T, len(among)): rows of as many different clips, T at most DRAWS; none where a modality has none."""
        rows = [np.flatnonzero(self.there[m]) for m in among]
        if min(map(len, rows)) == 0:
            return np.empty((0, len(among)), dtype=np.int64)
        drawn = np.stack([own[random.integers(len(own), size=DRAWS)] for own in rows], axis=1)
        owners = np.sort(np.stack([self.owner[m][drawn[:, i]] for i, m in enumerate(among)], axis=1), axis=1)
        return drawn[(np.diff(owners, axis=1) > 0).all(1)]


def is_due(step: int, config: TrainConfig) -> bool:
    """Whether the step, counted from 1, is diagnosed: every `diagnose_every`-th and the last."""
    every = config.diagnose_every
    return every > 0 and (step % every == 0 or step == config.steps)


@torch.no_grad()
def diagnose(
    z: Mapping[str, Tensor],
    objective: Objective,
    *,
    present: Present | None = None,
    owner: Mapping[str, Tensor] | None = None,
    aligned: int | None = None,
    seed: int = 0,
    step: int = 0,
) -> Values:
    """The values of a "diagnostics" line of log.jsonl about the embeddings of a batch, docs/diagnostics.md.

    Args:
        z: unit rows (B, d) of every modality.
        objective: whose plans are looked at, by its own settings.
        present: which rows are there, bool (B,) for each modality; None all.
        owner: the clip that each row is of, int64 (B,) for each modality; None: row i is of clip i.
        aligned: rows that are known to belong together, the first ones; None all. The plans of a matching are of the
            others, as those of its term are.
        seed, step: of what is drawn.

    Returns:
        finite numbers, and None for what this batch cannot tell.
    """
    names, clips = objective.modalities, check_embeddings(z, objective.modalities, present)
    count = len(clips.rows[0])
    there = np.ones((len(names), count), dtype=bool) if clips.present is None else clips.present.cpu().numpy()
    if owner is None:
        owners = np.tile(np.arange(count), (len(names), 1))
    else:
        owners = np.stack([owner[name].cpu().numpy() for name in names])
    batch = _Batch(names, clips, there, owners)
    matched = batch if aligned is None or not _matches(objective) else batch.from_row(aligned)
    return {
        "volumes": _volumes(batch, generator(seed, DIAGNOSTICS, step, 0)),
        "cosines": _cosines(batch, generator(seed, DIAGNOSTICS, step, 1)),
        "modalities": {name: _spread(batch, m) for m, name in enumerate(names)},
        "plans": _plans(matched, plan_settings(objective)),
        **({"matches": _kept(matched, objective)} if _matches(objective) else {}),
        **_recall(batch, objective.config.anchor),
    }


def gradient_norms(model: MoverModel, objective: Objective) -> Values:
    """The norms of the gradients as they are now: of each tower, of the heads and of the temperatures. None: nothing
    of it learns, or had a part in the loss."""
    return {
        "towers": {name: _norm(tower.parameters()) for name, tower in model.towers.items()},
        "heads": _norm(model.heads.parameters()),
        "temperatures": _norm(objective.parameters()),
    }


def plan_settings(objective: Objective) -> TransportConfig:
    """How the plans are solved that this objective trains on: those of its matching, where it has one."""
    if _matches(objective):
        return TransportConfig(epsilon=objective.config.matching.epsilon)
    return objective.config.transport


def _matches(objective: Objective) -> bool:
    return "confident" in objective.weights


def _volumes(batch: _Batch, random: np.random.Generator) -> Values | None:
    """Of the groups of one clip each, and of random groups of different clips."""
    k = len(batch.modalities)
    if k > MOST_MODALITIES:
        return None
    groups = {"positives": batch.true_groups(), "negatives": batch.random_groups(range(k), random)}
    return {name: _summary(ops.volume(_stacked(batch, members))) for name, members in groups.items()}


def _cosines(batch: _Batch, random: np.random.Generator) -> Values:
    """Of every pair of modalities together: rows of one clip, and random rows of different clips."""
    found: dict[str, list[Tensor]] = {"positives": [], "negatives": []}
    for p, q in pairs_of(range(len(batch.modalities))):
        groups = {"positives": np.argwhere(batch.same(p, q)), "negatives": batch.random_groups((p, q), random)}
        for name, members in groups.items():
            first, second = (batch.clips.rows[m][_index(batch, members[:, i])] for i, m in enumerate((p, q)))
            found[name].append((first * second).sum(-1))
    return {name: _summary(torch.cat(values)) for name, values in found.items()}


def _spread(batch: _Batch, m: int) -> Values:
    """How far the rows of one modality are spread: the mean cosine of two different ones, and the effective rank."""
    rows = batch.clips.rows[m].double().cpu().numpy()[batch.there[m]]
    n = len(rows)
    if n < 2:
        return {"rows": n, "cosine": None, "effective_rank": None}
    alike = (float(np.square(rows.sum(0)).sum()) - float(np.square(rows).sum())) / (n * (n - 1))
    return {"rows": n, "cosine": _number(alike), "effective_rank": _number(effective_rank(rows))}


def _plans(batch: _Batch, config: TransportConfig) -> Values:
    """The entropic plan of every pair of modalities; None for a pair of which one has fewer than two rows."""
    pairs = pairs_of(range(len(batch.modalities)))
    counts = batch.there.sum(1)
    enough = [pair for pair in pairs if min(counts[list(pair)]) >= 2]
    found: Values = {f"{batch.modalities[p]}-{batch.modalities[q]}": None for p, q in pairs}
    if not enough:
        return found
    solved = transport_pairs(batch.clips, enough, config)
    for i, (p, q) in enumerate(enough):
        plan = solved.plan[i].double().cpu().numpy()
        found[f"{batch.modalities[p]}-{batch.modalities[q]}"] = {
            "rows": int(counts[p]),
            "columns": int(counts[q]),
            **_plan(plan, batch.same(p, q), int(counts[p]), int(counts[q])),
            "marginal_error": _number(float(solved.marginal_error[i])),
            "iterations": int(solved.n_iter[i]),
        }
    return found


def _plan(plan: np.ndarray, same: np.ndarray, n: int, m: int) -> Values:
    """plan, same (B, B); n and m rows that are there. Entropy: 0 where each row of the smaller side goes to one place,
    1 where all go everywhere."""
    mass = plan[plan > 0]
    entropy = float(-(mass * np.log(mass)).sum())
    normalised = (entropy - math.log(max(n, m))) / math.log(min(n, m))
    with_partner = same.any(1)
    on_pairs = float(plan[same].sum() / plan[with_partner].sum()) if with_partner.any() else None
    return {
        "entropy": _number(min(max(normalised, 0.0), 1.0)),
        "accuracy": _number(first_right(plan, same)),
        "mass": _number(on_pairs),
    }


def _kept(batch: _Batch, objective: Objective) -> Values | None:
    """The groups that the matching keeps: which share of the anchor's rows, and which share of them are of one clip."""
    anchor = batch.modalities.index(objective.config.anchor)
    order = [anchor, *(m for m in range(len(batch.modalities)) if m != anchor)]
    if batch.there.sum(1).min() < 2:
        return None
    present = None if batch.clips.present is None else batch.clips.present[order]
    found = match_groups(Clips(tuple(batch.clips.rows[m] for m in order), present), objective.config.matching)
    members = found.members[found.kept].cpu().numpy()
    owners = np.stack([batch.owner[m][members[:, i]] for i, m in enumerate(order)], axis=1)
    right = (owners == owners[:, :1]).all(1)
    share = len(members) / batch.there[anchor].sum()
    return {"kept": _number(float(share)), "right": _number(float(right.mean())) if len(members) else None}


def _recall(batch: _Batch, anchor: str) -> Values:
    """Recall@1 in percent within the batch by direction, and the number of clips that each is among, as of a
    validation; the joint directions by volume. A direction of fewer than two clips is None."""
    names = batch.modalities
    recall: dict[str, float | None] = {}
    clips: dict[str, int] = {}
    for direction in directions(names, anchor):
        one, others = names.index(direction.single), [names.index(m) for m in direction.others]
        if len(others) == 1:
            same = batch.same(one, others[0])
            there = np.ix_(same.any(1), same.any(0))
            scores = (batch.clips.rows[one] @ batch.clips.rows[others[0]].mT).cpu().numpy()[there]
            same = same[there]
        else:
            groups = batch.true_groups()
            rows = batch.clips.rows[one][_index(batch, groups[:, one])]
            same = np.eye(len(groups), dtype=bool)
            stacked = _stacked(batch, groups)[:, others]
            scores = -ops.volume_scores(rows, stacked).cpu().numpy() if len(groups) else np.empty((0, 0))
        if len(direction.query) > 1 or direction.query[0] != direction.single:
            scores, same = scores.T, same.T
        clips[direction.name] = len(same)
        right = first_right(scores, same) if len(same) >= 2 else None
        recall[direction.name] = None if right is None else _number(100 * right)
    return {"R@1": recall, "clips": clips}


def first_right(scores: np.ndarray, same: np.ndarray) -> float | None:
    """The share of the rows of scores (n, m) whose largest entry is right by same (n, m), of those that have a right
    one; a largest entry that others equal counts in part. None where no row has one."""
    rows = np.flatnonzero(same.any(1))
    if len(rows) == 0:
        return None
    largest = scores[rows] == scores[rows].max(1, keepdims=True)
    return float(((largest & same[rows]).sum(1) / largest.sum(1)).mean())


def _stacked(batch: _Batch, members: np.ndarray) -> Tensor:
    """members (T, k), the row of each modality -> (T, k, d)."""
    picked = [rows[_index(batch, members[:, m])] for m, rows in enumerate(batch.clips.rows)]
    return torch.stack(picked, dim=1)


def _index(batch: _Batch, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows)).to(batch.clips.rows[0].device)


def _summary(values: Tensor) -> Values | None:
    """Mean and quantiles of values (n,); None without any."""
    if values.numel() == 0:
        return None
    numbers = values.double().cpu().numpy()
    quantiles = np.quantile(numbers, list(QUANTILES.values()))
    named = dict(zip(QUANTILES, quantiles, strict=True))
    return {"mean": _number(float(numbers.mean())), **{name: _number(float(value)) for name, value in named.items()}}


def _norm(parameters: Iterable[torch.nn.Parameter]) -> float | None:
    gradients = [p.grad for p in parameters if p.grad is not None]
    return _number(float(torch.nn.utils.get_total_norm(gradients))) if gradients else None


def _number(value: float | None) -> float | None:
    """Six digits of a number; None for what is none."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
