"""Which rows of unknown order belong together: groups that a plan matches, and how sure it is of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mover.config import MatchingConfig, TransportConfig
from mover.losses.embeddings import Clips
from mover.losses.transport import Pairs, pair_costs, solve_partial, transport_pairs

AT_ONCE = 4096
"""More rows than these are matched with one unit after the other, for the memory of one plan."""
Side = Literal["rows", "columns", "both"]
Units = Sequence[Sequence[int]]
"""Positions of modalities whose rows are together, one unit after the other; the first unit has the anchor, 0."""


class Matching(NamedTuple):
    """For each of the n rows of the anchor, the first modality, the group that it is matched with.

    members: int64 (n, k), the row of each modality; column 0 is 0 … n-1.
    share: (n), the least share of a row's mass that goes to a match of the group, in [0, 1]; of softmax matching, the
        least probability. 0 where the row is not there.
    kept: bool (n), whether the match counts, by the threshold and, where asked for, as the best one of both rows.
    """

    members: Tensor
    share: Tensor
    kept: Tensor


def units_of(modalities: Sequence[str], together: Collection[str] = ()) -> list[list[int]]:
    """The units of modalities of which the first is the anchor: those named `together` are one, any other is alone."""
    one = [m for m, name in enumerate(modalities) if name in together]
    alone = [[m] for m, name in enumerate(modalities) if name not in together]
    return sorted([one, *alone] if one else alone)


@torch.no_grad()
def match_groups(clips: Clips, config: MatchingConfig, units: Units) -> Matching:
    """The match of every row of the anchor's unit in each of the others, by `config`. No gradient.

    Every modality has to have a row. Rows that are not there are in no group that is kept.
    """
    first, *others = units
    anchors = torch.arange(clips.rows[0].shape[0], device=clips.rows[0].device)
    at_once = len(others) if len(anchors) <= AT_ONCE else 1
    best, least, kept = [], [], []
    for start in range(0, len(others), at_once):
        shares = matched_shares(clips, config, [first, *others[start : start + at_once]])  # (units, n, n)
        found, matches = shares.max(dim=-1)
        enough = (found >= config.threshold) & (found > 0)
        if config.mutual:  # the match has no better row of the anchor
            enough &= shares.argmax(dim=-2).gather(1, matches) == anchors
        best += [*matches]
        least.append(found)
        kept.append(enough)
    members = torch.empty(len(anchors), len(clips.rows), dtype=torch.int64, device=anchors.device)
    for unit, rows in zip(units, [anchors, *best], strict=True):
        members[:, list(unit)] = rows.unsqueeze(1)
    return Matching(members, torch.cat(least).amin(dim=0), torch.cat(kept).all(dim=0))


def matched_shares(clips: Clips, config: MatchingConfig, units: Units, side: Side = "both") -> Tensor:
    """(units-1, n, n): of each row of the anchor's unit, the share of its mass that goes to each row of another unit.

    By transport it is the plan over the mass of the rows; with `side` "columns" over that of the columns. With
    `config.mass` below 1 a row keeps what is not transported, and its shares sum to less than 1. By softmax it
    is softmax(-C / epsilon) over the row, over the column, or for "both" the smaller of the two: what the first half
    of a Sinkhorn iteration gives from either side. C is that of `unit_costs`.
    """
    if config.by == "transport" and config.mass == 1 and max(map(len, units)) == 1:
        plans = transport_pairs(clips, [(0, m) for (m,) in units[1:]], _transport(config)).plan
        return _over_mass(plans, _there(clips, units), side)
    costs, there = unit_costs(clips, units), _there(clips, units)
    if config.by == "transport":
        a = b = None
        if there is not None:
            a, b = (flags.to(costs.dtype) / flags.sum(-1, keepdim=True).clamp(min=1) for flags in there)
            a = a.expand_as(b)
        return _over_mass(solve_partial(costs, a, b, config.mass, _transport(config)), there, side)
    logits = -costs / config.epsilon
    dims = {"rows": (-1,), "columns": (-2,), "both": (-1, -2)}[side]
    both = both_there(clips, units)
    if both is None:
        return _smaller([logits.softmax(dim) for dim in dims])
    logits = logits.masked_fill(~both, torch.finfo(logits.dtype).min)
    return torch.where(both, _smaller([logits.softmax(dim) for dim in dims]), 0)


def unit_costs(clips: Clips, units: Units) -> Tensor:
    """(units-1, n, n): the mean squared distance of the rows of the anchor's unit and of another, over the pairs of
    modalities that both have. Where they have none it is 4, the most there is."""
    return _unit_means(clips, units, lambda pairs: pair_costs(clips, pairs), 4.0)


def unit_cosines(clips: Clips, units: Units) -> Tensor:
    """(units-1, n, n): the mean cosine in the same way, of rows of length one. Where they have none it is -1."""
    return _unit_means(
        clips, units, lambda pairs: torch.stack([clips.rows[p] @ clips.rows[q].mT for p, q in pairs]), -1.0
    )


def _unit_means(clips: Clips, units: Units, measure: Callable[[Pairs], Tensor], without: float) -> Tensor:
    first, *others = units
    means = []
    for unit in others:
        pairs = [(p, q) for p in first for q in unit]
        values = measure(pairs)  # (pairs, n, n)
        if clips.present is None:
            means.append(values.mean(0))
            continue
        there = torch.stack([clips.present[p].unsqueeze(1) & clips.present[q] for p, q in pairs])
        count = there.sum(0)
        means.append(torch.where(count > 0, torch.where(there, values, 0).sum(0) / count.clamp(min=1), without))
    return torch.stack(means)


def _transport(config: MatchingConfig) -> TransportConfig:
    return TransportConfig(epsilon=config.epsilon)


def _there(clips: Clips, units: Units) -> tuple[Tensor, Tensor] | None:
    """Which rows of the anchor's unit have a modality, bool (1, n), and of the others (units-1, n); None: all have."""
    if clips.present is None:
        return None
    first, *others = (clips.present[list(unit)].any(0) for unit in units)
    return first.unsqueeze(0), torch.stack(others)


def both_there(clips: Clips, units: Units) -> Tensor | None:
    """bool (units-1, n, n): where the rows of the anchor's unit and of another have a modality; None: everywhere."""
    there = _there(clips, units)
    return None if there is None else there[0].unsqueeze(-1) & there[1].unsqueeze(-2)


def _over_mass(plans: Tensor, there: tuple[Tensor, Tensor] | None, side: Side) -> Tensor:
    """Masses are uniform over the rows that are there: the plan times their number."""
    with torch.no_grad():  # in place, for a large plan takes as much memory as all else
        return plans.mul_(plans.shape[-1] if there is None else there[side == "columns"].sum(-1)[:, None, None])


def _smaller(shares: list[Tensor]) -> Tensor:
    return shares[0] if len(shares) == 1 else torch.minimum(*shares)
