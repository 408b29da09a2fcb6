"""Batches: which clips make up each step, and threads that prepare batches ahead of the training loop.

Training: `mover.data.batches` says which clips are in the batch of a step; a clip that cannot be decoded is replaced by
the first one of its kind, in an order of its own, not in the batch yet. So a step yields the same batch whatever came
before it, always full, never with a clip twice. Of several processes each prepares its share of the rows.
Evaluation: the clips in order; the last batch may be smaller.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from mover.data.batches import make_batches
from mover.data.collate import Batch, Sample
from mover.data.dataset import ClipDataset
from mover.data.sampling import SUBSTITUTE, generator
from mover.distributed.world import World
from mover.errors import UserError


class Loader:
    """Iterates over batches. Each call of `iter` starts again at `start_step` with threads of its own.

    steps_per_epoch: batches in one pass over the clips.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        batch_size: int,
        start_step: int = 0,
        steps: int | None = None,
        world: World | None = None,
    ) -> None:
        self.dataset, self.batch_size = dataset, batch_size
        self._world = world or World()
        count = len(dataset)
        if dataset.training and count < batch_size:
            raise UserError(
                f"A batch of {batch_size} needs as many clips, and only {count} of {dataset.listed} can be used. "
                "Set train.batch_size to less."
            )
        if dataset.training:
            self.batches = make_batches(count, batch_size, dataset.modalities, dataset.seed, dataset.config)
        self.steps_per_epoch = self.batches.steps_per_epoch if dataset.training else -(-count // batch_size)
        self.start_step = start_step
        self.steps = steps if dataset.training or steps is not None else self.steps_per_epoch

    def __len__(self) -> int:
        """Batches still to come. Raises TypeError for a training loader without an end."""
        if self.steps is None:
            raise TypeError("this loader has no end: it was made without 'steps'")
        return max(0, self.steps - self.start_step)

    def batch(self, step: int) -> Batch | None:
        """The batch of a step. None in evaluation when not one of its clips could be decoded."""
        if self.dataset.training:
            return self._training_batch(step)
        samples = self._next_samples(step)
        return self.dataset.collate(samples) if samples else None

    def __iter__(self) -> Iterator[Batch]:
        self.dataset.prepare()
        workers = self.dataset.config.workers
        steps: Iterable[int] = itertools.count(self.start_step)
        if self.steps is not None:
            steps = range(self.start_step, self.steps)
        if workers == 0:
            yield from (batch for batch in map(self.batch, steps) if batch is not None)
            return
        pool = ThreadPoolExecutor(workers, thread_name_prefix="mover-loader")
        ahead: deque[Future[Batch | None]] = deque()
        try:
            for step in steps:
                ahead.append(pool.submit(self.batch, step))
                if len(ahead) > workers:
                    yield from _finished(ahead)
            while ahead:
                yield from _finished(ahead)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _sample(self, index: int, epoch: int = 0, modalities: list[str] | None = None) -> Sample | None:
        """`dataset.sample`. Raises UserError that names the clip where a library fails in its own way."""
        try:
            return self.dataset.sample(index, epoch, modalities)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"Clip '{self.dataset.clips[index].id}' cannot be read ({type(error).__name__}: {error}): see what "
                "mover doctor says of its files. If they are in order, this is an error of ours or of a library."
            ) from error

    def _next_samples(self, step: int) -> list[Sample]:
        first = step * self.batch_size
        indices = range(first, min(first + self.batch_size, len(self.dataset)))
        return [sample for sample in map(self._sample, indices) if sample is not None]

    def _training_batch(self, step: int) -> Batch:
        rows = self.batches.rows(step)
        share = self._world.share(self.batch_size)
        own = {modality: clips[share].tolist() for modality, clips in rows.clips.items()}
        wanted: dict[int, tuple[int, list[str]]] = {}  # clip to its epoch and what is wanted of it
        for modality, clips in own.items():
            for clip, epoch in zip(clips, rows.epochs[share].tolist(), strict=True):
                wanted.setdefault(clip, (epoch, []))[1].append(modality)
        drawn = {clip: self._sample(clip, epoch, names) for clip, (epoch, names) in wanted.items()}
        taken = {clip for clips in rows.clips.values() for clip in clips.tolist()}
        found = {
            clip: self._substitute(clip, *wanted[clip], taken) if sample is None else sample
            for clip, sample in drawn.items()
        }
        by_row = [{m: found[clips[i]] for m, clips in own.items()} for i in range(share.stop - share.start)]
        batch = self.dataset.collate([_one_row(samples) for samples in by_row])
        batch["aligned"], batch["together"] = rows.aligned, rows.together
        batch["owner"] = {m: torch.tensor([row[m].index for row in by_row]) for m in rows.clips}
        return batch

    def _substitute(self, index: int, epoch: int, modalities: list[str], taken: set[int]) -> Sample:
        """Another clip in the place of `index`, which cannot be decoded; added to `taken`.

        Processes do not know each other's substitutes: each has candidates of its own.
        """
        alike = self.batches.alike(index)
        alike = alike[alike % self._world.size == self._world.rank]
        for other in alike[generator(self.dataset.seed, SUBSTITUTE, epoch, index).permutation(len(alike))].tolist():
            if other in taken:
                continue
            taken.add(other)
            sample = self._sample(other, epoch, modalities)
            if sample is not None:
                return sample
        name = self.dataset.clips[index].id
        raise UserError(
            f"A batch of {self.batch_size} needs as many clips, and {len(self.dataset.skipped)} of "
            f"{self.dataset.listed} cannot be used, '{name}' among them: {self.dataset.skipped[name]} "
            "Repair the media or set train.batch_size to less."
        )


def _one_row(samples: Mapping[str, Sample]) -> Sample:
    """A row whose modalities are of these samples; its name is that of the first one."""
    first = next(iter(samples.values()))
    if all(sample is first for sample in samples.values()):
        return first
    values = {m: sample.values[m] for m, sample in samples.items() if m in sample.values}
    return Sample(first.id, first.index, values)


def make_loader(
    dataset: ClipDataset,
    batch_size: int,
    *,
    start_step: int = 0,
    steps: int | None = None,
    world: World | None = None,
) -> Loader:
    """A loader whose cache, if the data section asks for one, is filled.

    start_step, steps: the first step and the one before which to stop; a training loader without `steps` has no end,
    an evaluation loader then makes one pass. world: of a training loader, whose batches are this process's share of
    `batch_size` rows. Raises UserError when the clips do not fill a training batch.
    """
    loader = Loader(dataset, batch_size, start_step, steps, world)
    dataset.prepare()
    return loader


def _finished(ahead: deque[Future[Batch | None]]) -> Iterator[Batch]:
    batch = ahead.popleft().result()
    if batch is not None:
        yield batch
