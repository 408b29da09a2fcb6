"""Which rows of unknown order belong together: groups that a plan matches, and how sure it is of each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mover.config import MatchingConfig, TransportConfig
from mover.losses.embeddings import Clips
from mover.losses.transport import Pairs, pair_costs, transport_pairs


class Matching(NamedTuple):
    """For each of the n rows of the anchor, the first modality, the group that it is matched with.

    members: int64 (n, k), the row of each modality; column 0 is 0 … n-1.
    share: (n), the least share of a row's mass that goes to a match of the group, in [0, 1]; of softmax matching, the
        least probability. 0 where the anchor's row is not there.
    kept: bool (n), whether the match counts, by the threshold and, where asked for, as the best one of both rows.
    """

    members: Tensor
    share: Tensor
    kept: Tensor


@torch.no_grad()
def match_groups(clips: Clips, config: MatchingConfig) -> Matching:
    """The match of every row of the first modality in each of the others, by `config`. No gradient.

    Every modality has to have a row. Rows that are not there are in no group that is kept.
    """
    k, n = len(clips.rows), clips.rows[0].shape[0]
    shares = matched_shares(clips, [(0, m) for m in range(1, k)], config)  # (k-1, n, n)
    found, best = shares.max(dim=-1)  # (k-1, n)
    anchors = torch.arange(n, device=best.device)
    kept = (found >= config.threshold) & (found > 0)
    if config.mutual:
        back = shares.argmax(dim=-2)  # (k-1, n), the best row of the anchor for each row of the others
        kept &= back.gather(1, best) == anchors
    return Matching(torch.stack([anchors, *best], dim=1), found.amin(dim=0), kept.all(dim=0))


def matched_shares(clips: Clips, pairs: Pairs, config: MatchingConfig) -> Tensor:
    """(pairs, n, n): the share of a row's mass that goes to each row of the other modality; rows sum to at most 1.

    By transport it is the plan over the mass of the row. By softmax it is the smaller of softmax(-C / epsilon) over
    the row and over the column: what the first half of a Sinkhorn iteration gives from either side.
    """
    masses = clips.masses()
    if config.by == "transport":
        plans = transport_pairs(clips, pairs, TransportConfig(epsilon=config.epsilon)).plan
        if masses is None:
            return plans * plans.shape[-1]
        mass = torch.stack([masses[first] for first, _ in pairs]).unsqueeze(-1)
        return plans / torch.where(mass > 0, mass, 1)
    logits = -pair_costs(clips, pairs) / config.epsilon
    if clips.present is None:
        return torch.minimum(logits.softmax(-1), logits.softmax(-2))
    rows = torch.stack([clips.present[first] for first, _ in pairs]).unsqueeze(-1)
    columns = torch.stack([clips.present[second] for _, second in pairs]).unsqueeze(-2)
    least = torch.finfo(logits.dtype).min
    by_row, by_column = (logits.masked_fill(~there, least).softmax(dim) for there, dim in ((columns, -1), (rows, -2)))
    return torch.where(rows & columns, torch.minimum(by_row, by_column), 0)
