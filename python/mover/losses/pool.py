"""Contrast of rows with the rows of the whole data set that one large plan matches them with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from mover.config import MatchingConfig
from mover.errors import UserError
from mover.losses.confident import contrast_matches
from mover.losses.embeddings import Clips, Present, anchor_first, check_embeddings
from mover.losses.matching import match_groups, units_of

MEMORY_BOUND = 1 << 33
"""Bytes that a plan may take; more is refused before anything is allocated."""
BYTES_PER_PAIR = {"transport": 13, "partial": 21, "softmax": 25}
"""Of rows in a large pool, by the way of matching; `scripts/bench pool` measures it."""


class PoolContrast(nn.Module):
    """(1/k) sum over modalities m of share · sum of weight · contrast, of the rows of m and what the pool has for them.

    The pool keeps, for each of the N clips of the training set, the last embedding of every modality, by itself: which
    of them belong together is not used. Every `refresh` steps the groups of the whole pool are matched
    (`match_groups`); until the next time a row of the batch that is in a group is contrasted, as if aligned, with the
    kept embeddings of the other modalities of its group, against those of the other rows of the batch. The kept rows
    have no gradient. So the partner of a row need not be in its batch.

    contrasts: those of the aligned rows with their weights; the term has no parameters of its own. Its pool is part of
    the state: (k, N, d) float32 numbers.
    """

    rows: Tensor
    filled: Tensor
    group: Tensor
    members: Tensor

    def __init__(
        self,
        modalities: Sequence[str],
        anchor: str,
        matching: MatchingConfig,
        contrasts: Sequence[tuple[float, nn.Module]],
        *,
        clips: int,
        width: int,
        refresh: int,
    ) -> None:
        """clips: N. width: d. refresh: steps between plans. Raises UserError for an unknown anchor."""
        super().__init__()
        self.modalities = anchor_first(modalities, anchor)
        self.matching, self.refresh = matching, refresh
        self._contrasts = list(contrasts)  # a plain list: their parameters are not of this module
        k = len(self.modalities)
        self.register_buffer("rows", torch.zeros(k, clips, width))
        self.register_buffer("filled", torch.zeros(k, clips, dtype=torch.bool))
        self.register_buffer("group", torch.full((k, clips), -1, dtype=torch.int64))  # the anchor's row of a group
        self.register_buffer("members", torch.zeros(clips, k, dtype=torch.int64))

    def forward(
        self,
        z: Mapping[str, Tensor],
        present: Present | None = None,
        *,
        owner: Mapping[str, Tensor],
        step: int,
        active: bool = True,
        together: Collection[str] = (),
    ) -> Tensor:
        """The rows are put into the pool, the pool is matched anew where it is time, and the rows are contrasted.

        z: unit rows (n, d) of every modality, in any order; present: which are there, bool (n,), None all.
        owner: the place of each row in the pool of its modality, int64 (n,).
        step: that of the run. active: false, the rows are only put into the pool.
        together: modalities in the same order as each other.
        Returns a scalar. Raises UserError for embeddings that do not fit.
        """
        clips = check_embeddings(z, self.modalities, present)
        places = [owner[name] for name in self.modalities]
        self._keep(clips, places)
        if not active:
            return clips.zero()
        if step % self.refresh == 0:
            self.match(together)
        terms = [self._contrast(m, clips, places[m]) for m in range(len(clips.rows))]
        return torch.stack(terms).mean()

    @torch.no_grad()
    def _keep(self, clips: Clips, places: Sequence[Tensor]) -> None:
        for m, (rows, place) in enumerate(zip(clips.rows, places, strict=True)):
            there = place if clips.present is None else place[clips.present[m]]
            self.rows[m, there] = (rows if clips.present is None else rows[clips.present[m]]).to(self.rows.dtype)
            self.filled[m, there] = True

    @torch.no_grad()
    def match(self, together: Collection[str] = ()) -> None:
        """Match the rows that are in the pool; each modality has as many of its own as have come by."""
        self.group.fill_(-1)
        used = self.filled.any(0).nonzero().squeeze(1)  # places that hold anything: rows of other clips never come
        if int(self.filled[:, used].sum(1).min()) < 2:
            return
        present = None if bool(self.filled[:, used].all()) else self.filled[:, used]
        units = units_of(self.modalities, together)
        found = match_groups(Clips(tuple(self.rows[:, used]), present), self.matching, units)
        self.members[used] = used[found.members]
        kept = found.kept.nonzero().squeeze(1)
        for m in range(len(self.modalities)):
            # of several groups with one row, which only a matching that is not mutual has, the surest comes last
            order = kept[found.share[kept].argsort(stable=True)]
            self.group[m, used[found.members[order, m]]] = used[order]

    def _contrast(self, m: int, clips: Clips, places: Tensor) -> Tensor:
        """The rows of modality m as those of the batch, the others as the pool has them."""
        groups = self.group[m, places]  # (n,)
        kept = groups >= 0
        if clips.present is not None:
            kept &= clips.present[m]
        members = self.members[groups.clamp(min=0)]  # (n, k)
        z = {
            name: clips.rows[m] if other == m else self.rows[other, members[:, other]].to(clips.rows[m].dtype)
            for other, name in enumerate(self.modalities)
        }
        there = {
            name: kept if other == m else kept & self.filled[other, members[:, other]]
            for other, name in enumerate(self.modalities)
        }
        return contrast_matches(self._contrasts, z, there, clips.share(m, kept))


def check_pool(clips: int, matching: MatchingConfig) -> None:
    """Raises UserError where matching a pool of so many clips takes more than `MEMORY_BOUND` bytes."""
    size = BYTES_PER_PAIR["partial" if matching.mass < 1 else matching.by] * clips * clips
    if size > MEMORY_BOUND:
        raise UserError(
            f"objective.pool matches {clips:,} clips in one plan, about {size / 2**30:.0f} GiB, more than the "
            f"{MEMORY_BOUND / 2**30:g} GiB that it may take. Train on fewer clips, or set objective.pool to 0."
        )
