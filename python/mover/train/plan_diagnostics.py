"""Transport plans and matches within a batch: how sure they are, and how often they are right."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import torch

from mover.config import TransportConfig
from mover.losses import Objective
from mover.losses.embeddings import pairs_of
from mover.losses.matching import match_groups, units_of
from mover.losses.pool import PoolContrast
from mover.losses.transport import transport_pairs
from mover.presets.preset import OF_MATCHES
from mover.train.batch_rows import BatchRows, Values, first_right, number

IN_BATCH = ("confident", "plan_targets")
"""The terms that match the rows of a batch among each other."""


def plan_settings(objective: Objective) -> TransportConfig:
    """How the plans are solved that this objective trains on: those of its matching, where it has one."""
    if has_matches(objective):
        return TransportConfig(epsilon=objective.config.matching.epsilon)
    return objective.config.transport


def has_matches(objective: Objective, terms: Sequence[str] = OF_MATCHES) -> bool:
    """Whether the objective has one of these terms, which learn from matches."""
    return any(name in objective.weights for name in terms)


def plan_values(batch: BatchRows, config: TransportConfig) -> Values:
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
            "marginal_error": number(float(solved.marginal_error[i])),
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
        "entropy": number(min(max(normalised, 0.0), 1.0)),
        "accuracy": number(first_right(plan, same)),
        "mass": number(on_pairs),
    }


def match_values(batch: BatchRows, objective: Objective, together: Collection[str]) -> Values:
    """What the matches of the objective are, where it has terms of matches."""
    found: Values = {}
    if has_matches(objective, IN_BATCH):
        found["matches"] = _kept(batch, objective, together)
    for term in objective.terms.values():
        if isinstance(term, PoolContrast):
            found["pool"] = _kept_in_pool(batch, term)
    return found


def _kept(batch: BatchRows, objective: Objective, together: Collection[str]) -> Values | None:
    """The groups that the matching keeps: which share of the anchor's rows, and which share of them are of one clip."""
    anchor = batch.modalities.index(objective.config.anchor)
    order = [anchor, *(m for m in range(len(batch.modalities)) if m != anchor)]
    if batch.there.sum(1).min() < 2:
        return None
    units = units_of([batch.modalities[m] for m in order], together)
    found = match_groups(batch.clips.in_order(order), objective.config.matching, units)
    members = found.members[found.kept].cpu().numpy()
    owners = np.stack([batch.owner[m][members[:, i]] for i, m in enumerate(order)], axis=1)
    right = (owners == owners[:, :1]).all(1)
    share = len(members) / batch.there[anchor].sum()
    return {"kept": number(float(share)), "right": number(float(right.mean())) if len(members) else None}


def _kept_in_pool(batch: BatchRows, pool: PoolContrast) -> Values:
    """The same of the groups of the pool, for the rows of all modalities of the batch."""
    kept, right, rows = 0, 0, int(batch.there.sum())
    for m, name in enumerate(pool.modalities):
        i = batch.modalities.index(name)
        places = torch.from_numpy(batch.owner[i][batch.there[i]]).to(pool.group.device)
        groups = pool.group[m, places]
        found = pool.members[groups[groups >= 0]] == places[groups >= 0].unsqueeze(1)
        kept, right = kept + len(found), right + int(found.all(1).sum())
    return {"kept": number(kept / rows) if rows else None, "right": number(right / kept) if kept else None}
