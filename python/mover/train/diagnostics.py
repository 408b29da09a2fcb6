"""What a step of training looks like from inside: volumes, plans, spread, gradients and retrieval within its batch.

Everything is of the embeddings that the step has computed anyway, and of the gradients before they are clipped. What
is drawn comes from a generator keyed by the seed and the step; the random state of torch is left alone.
docs/diagnostics.md says what each number means, and what is healthy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from mover import ops
from mover.config import TrainConfig
from mover.data.sampling import DIAGNOSTICS, generator
from mover.distributed.replicas import whole
from mover.evaluate.directions import directions
from mover.evaluate.geometry import effective_rank
from mover.losses import Objective
from mover.losses.embeddings import MOST_MODALITIES, Present, check_embeddings, pairs_of
from mover.models.model import MoverModel
from mover.train.batch_rows import BatchRows, Values, first_right, number
from mover.train.plan_diagnostics import has_matches, match_values, plan_settings, plan_values

DRAWS = 256
"""Random groups drawn for the volumes, and random pairs of each two modalities for the cosines."""
QUANTILES = {"10%": 0.1, "50%": 0.5, "90%": 0.9}


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
    together: Collection[str] = (),
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
        together: modalities whose rows are of one clip everywhere.
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
    batch = BatchRows(names, clips, there, owners)
    matched = batch if aligned is None or not has_matches(objective) else batch.from_row(aligned)
    return {
        "volumes": _volumes(batch, generator(seed, DIAGNOSTICS, step, 0)),
        "cosines": _cosines(batch, generator(seed, DIAGNOSTICS, step, 1)),
        "modalities": {name: _spread(batch, m) for m, name in enumerate(names)},
        "plans": plan_values(matched, plan_settings(objective)),
        **match_values(matched, objective, together),
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


def _volumes(batch: BatchRows, random: np.random.Generator) -> Values | None:
    """Of the groups of one clip each, and of random groups of different clips."""
    k = len(batch.modalities)
    if k > MOST_MODALITIES:
        return None
    groups = {"positives": batch.true_groups(), "negatives": batch.random_groups(range(k), DRAWS, random)}
    return {name: _summary(ops.volume(batch.stack(members))) for name, members in groups.items()}


def _cosines(batch: BatchRows, random: np.random.Generator) -> Values:
    """Of every pair of modalities together: rows of one clip, and random rows of different clips."""
    found: dict[str, list[Tensor]] = {"positives": [], "negatives": []}
    for p, q in pairs_of(range(len(batch.modalities))):
        groups = {"positives": np.argwhere(batch.same(p, q)), "negatives": batch.random_groups((p, q), DRAWS, random)}
        for name, members in groups.items():
            first, second = (batch.pick(m, members[:, i]) for i, m in enumerate((p, q)))
            found[name].append((first * second).sum(-1))
    return {name: _summary(torch.cat(values)) for name, values in found.items()}


def _spread(batch: BatchRows, m: int) -> Values:
    """How far the rows of one modality are spread: the mean cosine of two different ones, and the effective rank."""
    rows = batch.clips.rows[m].double().cpu().numpy()[batch.there[m]]
    n = len(rows)
    if n < 2:
        return {"rows": n, "cosine": None, "effective_rank": None}
    alike = (float(np.square(rows.sum(0)).sum()) - float(np.square(rows).sum())) / (n * (n - 1))
    return {"rows": n, "cosine": number(alike), "effective_rank": number(effective_rank(rows))}


def _recall(batch: BatchRows, anchor: str) -> Values:
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
            rows = batch.pick(one, groups[:, one])
            same = np.eye(len(groups), dtype=bool)
            stacked = batch.stack(groups)[:, others]
            scores = -ops.volume_scores(rows, stacked).cpu().numpy() if len(groups) else np.empty((0, 0))
        if len(direction.query) > 1 or direction.query[0] != direction.single:
            scores, same = scores.T, same.T
        clips[direction.name] = len(same)
        right = first_right(scores, same) if len(same) >= 2 else None
        recall[direction.name] = None if right is None else number(100 * right)
    return {"R@1": recall, "clips": clips}


def _summary(values: Tensor) -> Values | None:
    """Mean and quantiles of values (n,); None without any."""
    if values.numel() == 0:
        return None
    numbers = values.double().cpu().numpy()
    quantiles = np.quantile(numbers, list(QUANTILES.values()))
    named = dict(zip(QUANTILES, quantiles, strict=True))
    return {"mean": number(float(numbers.mean())), **{name: number(float(value)) for name, value in named.items()}}


def _norm(parameters: Iterable[torch.nn.Parameter]) -> float | None:
    gradients = [p.grad for p in parameters if p.grad is not None]
    return number(float(whole(torch.nn.utils.get_total_norm(gradients)))) if gradients else None
