"""Which clips make up the batch of each training step, aligned or in unknown order. No file is opened here.

Clips are numbered 0 … N-1. Step s is batch s mod S of epoch s div S, where S batches use up the clips once; the order
is a permutation of its own in each epoch, keyed by the seed, so that a step is the same whatever came before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mover.config import DataConfig
from mover.data.sampling import ALIGNED, SHUFFLE, epoch_order, generator
from mover.errors import UserError


@dataclass(frozen=True)
class Rows:
    """The B rows of a batch.

    clips: modality to the clip that each row is of, int64 (B,). epochs: int64 (B,), that of the draw of each row.
    aligned: the first so many rows are of one clip in every modality. together: the modalities in which all are; of
    the others, the order of the rest of the rows says nothing.
    """

    clips: dict[str, np.ndarray]
    epochs: np.ndarray
    aligned: int
    together: tuple[str, ...] = ()


class AlignedBatches:
    """Batches of clips whose modalities belong together; each clip at most once in an epoch."""

    together: tuple[str, ...] = ()

    def __init__(self, count: int, size: int, modalities: Sequence[str], seed: int) -> None:
        self.count, self.size, self.modalities, self.seed = count, size, tuple(modalities), seed
        self.steps_per_epoch = count // size

    def rows(self, step: int) -> Rows:
        """The rows of a step."""
        chosen, epoch = _of_epoch(self.count, self.size, self.seed, step)
        return Rows(dict.fromkeys(self.modalities, chosen), np.full(self.size, epoch), self.size)

    def alike(self, clip: int) -> np.ndarray:
        """The clips that could take the place of one."""
        return np.arange(self.count)


class PartlyAlignedBatches:
    """Batches of aligned clips, and of rows of other clips of which it is not known which belong together.

    Which clips are aligned is drawn once: `config.aligned_fraction` of all. Of a batch, the first `config.aligned_rows`
    (by default that fraction of it) are aligned. The others come from the rest of the clips: for `config.partners` of
    them the other modalities are in the batch, too; those of the rest are in other batches of the epoch. In every
    modality they are in an order of their own; those that `config.unordered` does not name keep one order.

    Raises UserError where either kind of clips does not fill its part of a batch.
    """

    def __init__(self, count: int, size: int, modalities: Sequence[str], seed: int, config: DataConfig) -> None:
        self.modalities, self.seed, self.size = tuple(modalities), seed, size
        kept = [m for m in self.modalities if config.unordered and m not in config.unordered]
        self.together = tuple(kept) if len(kept) > 1 else ()
        order = generator(seed, ALIGNED).permutation(count)
        share = config.aligned_fraction
        self.aligned, self.others = (np.sort(part) for part in np.split(order, [round(share * count)]))
        self.aligned_rows = config.aligned_rows or round(share * size)
        self.other_rows = size - self.aligned_rows
        self.in_batch = round(config.partners * self.other_rows)
        where = f"data.aligned_fraction = {share:g} of {count} clips, train.batch_size = {size}"
        if not 2 <= self.aligned_rows <= size - 2:
            raise UserError(
                f"A batch needs at least two aligned rows and two others, got {self.aligned_rows} and "
                f"{self.other_rows} ({where}). Set data.aligned_rows, or raise train.batch_size."
            )
        if len(self.aligned) < self.aligned_rows:
            raise UserError(
                f"A batch needs {self.aligned_rows} aligned clips, and there are {len(self.aligned)} ({where}). "
                "Set data.aligned_rows to less."
            )
        apart = self.in_batch < self.other_rows
        least = self.other_rows * (len(self.modalities) if apart else 1)
        if len(self.others) < least:
            why = f", as many batches as modalities with data.partners = {config.partners:g}" if apart else ""
            raise UserError(
                f"A batch needs {self.other_rows} clips that are not aligned{why}, {least} in all, and there are "
                f"{len(self.others)} ({where}). Lower train.batch_size or data.aligned_fraction."
            )
        self.steps_per_epoch = count // size
        orders = {m: self.together[0] if m in self.together else m for m in self.modalities}
        self._places = {m: self.modalities.index(order) for m, order in orders.items()}

    def rows(self, step: int) -> Rows:
        """The rows of a step."""
        known, first_epoch = _of_epoch(len(self.aligned), self.aligned_rows, self.seed, step)
        steps = len(self.others) // self.other_rows
        epoch, batch = divmod(step, steps)
        blocks = epoch_order(len(self.others), self.seed, epoch)[: steps * self.other_rows].reshape(steps, -1)
        clips = {}
        for modality, place in self._places.items():
            # the partners of those beyond in_batch are to be elsewhere: each modality has them of another batch
            own = blocks[(batch + place) % steps, self.in_batch :]
            chosen = np.concatenate([blocks[batch, : self.in_batch], own])
            order = generator(self.seed, SHUFFLE, step, place).permutation(self.other_rows)
            clips[modality] = np.concatenate([self.aligned[known], self.others[chosen][order]])
        epochs = np.repeat([first_epoch, epoch], [self.aligned_rows, self.other_rows])
        return Rows(clips, epochs, self.aligned_rows, self.together)

    def alike(self, clip: int) -> np.ndarray:
        """The clips that could take the place of one: those that are aligned, or those that are not."""
        return self.aligned if clip in self.aligned else self.others


def make_batches(
    count: int, size: int, modalities: Sequence[str], seed: int, config: DataConfig
) -> AlignedBatches | PartlyAlignedBatches:
    """The batches that the data section asks for, of `size` out of `count` clips."""
    if config.aligned_fraction == 1:
        return AlignedBatches(count, size, modalities, seed)
    return PartlyAlignedBatches(count, size, modalities, seed, config)


def _of_epoch(count: int, size: int, seed: int, step: int) -> tuple[np.ndarray, int]:
    """`size` of `count` places, those of a step, and its epoch."""
    epoch, batch = divmod(step, count // size)
    return epoch_order(count, seed, epoch)[batch * size : (batch + 1) * size], epoch
