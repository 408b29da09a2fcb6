"""The embeddings that losses take: one (B, d) tensor of unit rows per modality, and which of the rows are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from mover.errors import UserError
from mover.ops.inputs import at_least_float32

MOST_MODALITIES = 8
"""What the operators take whose values are volumes."""

Item = TypeVar("Item")
Present = Mapping[str, Tensor]
"""Modality to bool (B,), true where the clip has it. A modality that is not named is there in every clip."""


@dataclass(frozen=True)
class Clips:
    """The unit rows of B clips in k modalities.

    rows: per modality (B, d), float32 or float64. A row that is not there is (1, 0, …, 0), whatever was given, and
    its gradient is exactly 0.
    present: bool (k, B), or None where every row is there.
    """

    rows: tuple[Tensor, ...]
    present: Tensor | None

    def masses(self) -> Tensor | None:
        """(k, B): 1/n for each of the n rows that a modality has, 0 elsewhere; None where every row is there."""
        if self.present is None:
            return None
        counts = self.present.sum(dim=1, keepdim=True).clamp(min=1)
        return self.present.to(self.rows[0].dtype) / counts

    def fewest(self) -> int:
        """How many rows the modality with the fewest has."""
        return self.rows[0].shape[0] if self.present is None else int(self.present.sum(dim=1).min())

    def in_order(self, order: Sequence[int]) -> Clips:
        """The same clips with the modalities in another order, given by their positions."""
        present = None if self.present is None else self.present[list(order)]
        return Clips(tuple(self.rows[m] for m in order), present)

    def part(self, first: int, end: int | None = None) -> Clips:
        """The clips first … end - 1, to the last one without an end."""
        present = None if self.present is None else self.present[:, first:end]
        return Clips(tuple(rows[first:end] for rows in self.rows), present)

    def share(self, m: int, kept: Tensor) -> Tensor:
        """Of the rows that modality m has, the share that is kept, bool (B,) -> scalar; 0 where it has none."""
        rows = len(kept) if self.present is None else self.present[m].sum().clamp(min=1)
        return kept.to(self.rows[m].dtype).sum() / rows

    def zero(self) -> Tensor:
        """A scalar 0 whose gradient is 0 for every row: the loss where there is nothing to compare."""
        return torch.stack(self.rows).sum() * 0


def check_embeddings(z: Mapping[str, Tensor], modalities: Sequence[str], present: Present | None = None) -> Clips:
    """The rows of every modality, in the order of `modalities`.

    Raises UserError where a modality is missing, shapes differ or are not (B, d), or B < 2: losses compare clips
    with each other; and where a tensor of `present` is not bool (B,). Rows that are not present may hold anything.
    """
    missing = [name for name in modalities if name not in z]
    if missing:
        raise UserError(f"The objective needs embeddings of {list(modalities)}; {missing} are missing from {list(z)}.")
    rows = [z[name] for name in modalities]
    shapes = {name: tuple(z[name].shape) for name in modalities}
    if rows[0].dim() != 2 or len(set(shapes.values())) != 1:
        raise UserError(f"Embeddings must have the same shape (B, d) in every modality, got {shapes}.")
    if rows[0].shape[0] < 2:
        raise UserError(
            f"The objective compares clips with each other and needs a batch of at least 2, got {rows[0].shape[0]}. "
            "Raise train.batch_size, or drop the last incomplete batch."
        )
    rows = [at_least_float32(tensor) for tensor in rows]
    there = _presence(present, modalities, rows[0]) if present else None
    if there is None:
        return Clips(tuple(rows), None)
    fixed = torch.zeros_like(rows[0][0])
    fixed[0] = 1
    return Clips(tuple(torch.where(mask.unsqueeze(1), r, fixed) for mask, r in zip(there, rows, strict=True)), there)


def check_sets(z: Mapping[str, Tensor], modalities: Sequence[str], present: Present | None = None) -> Clips:
    """As `check_embeddings`, for losses that compare sets: modalities may have different numbers of rows, (B_m, d).

    Those that have fewer are filled up with rows that are not there; masks of `present` are bool (B_m,).
    """
    shapes = {name: tuple(z[name].shape) for name in modalities if name in z}
    sizes = [shape[0] for shape in shapes.values() if len(shape) == 2]
    if len(sizes) < len(modalities) or len(set(sizes)) == 1:
        return check_embeddings(z, modalities, present)
    if len({shape[1] for shape in shapes.values()}) > 1:
        raise UserError(f"Embeddings must have the same width d in every modality, got {shapes}.")
    most = max(sizes)
    filled, there = {}, {}
    for name in modalities:
        rows = z[name]
        mask = (present or {}).get(name)
        if mask is None:
            mask = torch.ones(rows.shape[0], dtype=torch.bool, device=rows.device)
        _check_mask(name, mask, rows.shape[0])
        filled[name] = pad(rows, (0, 0, 0, most - rows.shape[0]))
        there[name] = pad(mask, (0, most - rows.shape[0]))
    return check_embeddings(filled, modalities, there)


def _presence(present: Present, modalities: Sequence[str], like: Tensor) -> Tensor | None:
    """bool (k, B) on the device of `like` (B, d), or None where everything is present, which has to be asked of the
    device."""
    size = like.shape[0]
    for name in modalities:
        if name in present:
            _check_mask(name, present[name], size)
    everywhere = torch.ones(size, dtype=torch.bool, device=like.device)
    there = torch.stack([present.get(name, everywhere).to(like.device) for name in modalities])
    return None if bool(there.all()) else there


def _check_mask(name: str, mask: Tensor, size: int) -> None:
    if mask.dtype != torch.bool or tuple(mask.shape) != (size,):
        raise UserError(
            f"present['{name}'] must be a bool tensor of shape ({size},), one entry per clip, "
            f"got {mask.dtype} of shape {tuple(mask.shape)}."
        )


def anchor_first(modalities: Sequence[str], anchor: str) -> list[str]:
    """The modalities with the anchor in front, the others in their order. Raises UserError if it is not there."""
    if anchor not in modalities:
        raise UserError(f"The anchor '{anchor}' is not among the modalities {list(modalities)}.")
    return [anchor, *(name for name in modalities if name != anchor)]


def pairs_of(items: Sequence[Item]) -> list[tuple[Item, Item]]:
    """All pairs in lexicographic order of position: (1, 2), (1, 3), ..., (k-1, k)."""
    return list(combinations(items, 2))
