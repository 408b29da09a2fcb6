"""The rows of a batch by what is known of them: aligned, in unknown order, in doubt."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from mover.losses.embeddings import Clips, Present

Part = tuple[Mapping[str, Tensor], Present | None]
"""The embeddings of some rows, and which of them are there; None all."""


class Rows:
    """The rows of a batch, the first `aligned` of them known to belong together."""

    def __init__(
        self,
        clips: Clips,
        z: Mapping[str, Tensor],
        present: Present | None,
        aligned: int,
        together: Collection[str],
        owner: Mapping[str, Tensor] | None,
    ) -> None:
        self.z, self.present, self.aligned, self.together, self.owner = z, present, aligned, together, owner
        self.zero = clips.zero
        self.size = clips.rows[0].shape[0]
        self._doubted: dict[str, Tensor] = {}

    def unaligned(self) -> Part:
        """The rows whose order says nothing, and which of them are there."""
        return _part(self.z, self.present, self.aligned, self.size)

    def leave_out(self, modality: str, rows: Tensor) -> None:
        """Let contrasts not see these of the aligned rows of a modality, bool (aligned,)."""
        self._doubted[modality] = rows

    def trusted(self, count: int) -> Part:
        """The first `count` rows, and which of them contrasts are to see."""
        there = dict(self.present or {})
        for modality, doubted in self._doubted.items():
            seen = there.get(modality)
            seen = torch.ones(self.size, dtype=torch.bool, device=doubted.device) if seen is None else seen.clone()
            seen[: self.aligned] &= ~doubted
            there[modality] = seen
        return _part(self.z, there or None, 0, count)


def _part(z: Mapping[str, Tensor], present: Present | None, first: int, end: int) -> Part:
    """The embeddings of the rows first … end - 1, and which of them are there."""
    cut = None if present is None else {m: flags[first:end] for m, flags in present.items()}
    return {m: rows[first:end] for m, rows in z.items()}, cut
