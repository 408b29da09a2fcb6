"""From clips to embeddings: every clip once per modality, every caption, in the order of the manifest."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mover.config import DataConfig
from mover.data.dataset import ClipDataset
from mover.data.loader import make_loader
from mover.data.manifest import Clip
from mover.data.others import Others
from mover.data.tokenizer import Tokenizer
from mover.distributed.world import World
from mover.evaluate.embeddings import Embeddings
from mover.models.model import MoverModel
from mover.train.device import autocast, to_device


class EvaluationSet:
    """Clips to evaluate on, each modality read on its own, so that what a clip lacks does not hide what it has.

    Args:
        clips: all clips of a split, captions included.
        config: what is read and how.
        modalities: those of the model.
        tokenizer: of the captions; needed for text. others: the section under `model.others` of every other modality
            than text, video and audio.
        missing: "fail", "drop" or "mask", for clips that lack a modality or whose media cannot be decoded.
        progress: whether to draw a bar while media are decoded into memory.

    Raises:
        UserError: under "fail" a clip that cannot be used; but for "mask", a modality that no clip has.

    absent: under "mask", the modalities that no clip has, as far as the manifest knows; they are left out.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        config: DataConfig,
        modalities: Sequence[str],
        tokenizer: Tokenizer | None,
        *,
        missing: str,
        progress: bool = False,
        others: Others | None = None,
    ) -> None:
        self.clips = list(clips)
        self.tokenizer = tokenizer
        self.absent = [m for m in modalities if missing == "mask" and not any(clip.present(m) for clip in self.clips)]
        policy = "fail" if missing == "fail" else "drop"
        self.datasets = {
            m: ClipDataset(
                clips, config, (m,), tokenizer, training=False, missing=policy, progress=progress, others=others
            )
            for m in modalities
            if m not in self.absent
        }

    def prepare(self) -> None:
        """Decode now what the data section says to keep in memory."""
        for dataset in self.datasets.values():
            dataset.prepare()

    @functools.cached_property
    def place(self) -> dict[str, int]:
        """Id to the position among `clips`."""
        return {clip.id: i for i, clip in enumerate(self.clips)}

    def rows(self, modality: str) -> int:
        """Rows of a modality: C captions, or N clips, whether or not they have it."""
        return len(self.owner) if modality == "text" else len(self.clips)

    def batches(self, modality: str, size: int) -> int:
        """In how many batches a modality is encoded: C captions, or the clips that have it as far as the manifest
        knows."""
        count = len(self.owner) if modality == "text" else len(self.datasets[modality])
        return -(-count // size)

    @functools.cached_property
    def owner(self) -> np.ndarray:
        """int64 (C,): the position among `clips` of each caption's clip; empty without text."""
        if "text" not in self.datasets:
            return np.zeros(0, dtype=np.int64)
        dataset = self.datasets["text"]
        return np.array([self.place[clip.id] for clip in dataset.clips], dtype=np.int64)[dataset.captions()[1]]

    def present(self) -> dict[str, np.ndarray]:
        """Modality to bool (N,): the clips that have it, but for those found unusable so far."""
        flags = {}
        for modality, dataset in self.datasets.items():
            flags[modality] = np.zeros(len(self.clips), dtype=bool)
            usable = [self.place[clip.id] for clip in dataset.clips if clip.id not in dataset.skipped]
            flags[modality][usable] = True
        return flags

    def labels(self) -> tuple[str, ...] | None:
        """The class name of each clip, "" for none; None where no clip has one."""
        return tuple(clip.label or "" for clip in self.clips) if any(clip.label for clip in self.clips) else None

    @property
    def skipped(self) -> dict[str, dict[str, str]]:
        """Modality to id to reason, for what could not be used so far."""
        return {modality: dict(dataset.skipped) for modality, dataset in self.datasets.items() if dataset.skipped}


@dataclass(frozen=True)
class Piece:
    """What a batch gives: float32 unit rows (n, d), and where they belong among those of the modality, int64 (n,)."""

    step: int
    places: np.ndarray
    rows: np.ndarray


def embed(
    model: MoverModel,
    data: EvaluationSet,
    *,
    batch_size: int,
    device: torch.device,
    precision: str = "float32",
    world: World | None = None,
) -> Embeddings:
    """Embeddings of all clips and all their captions, float32 unit rows.

    The model is put into evaluation mode and back. A clip that cannot be used keeps its place, with zeros and
    `present` false. Of the processes of `world` each encodes its share of the batches, and all have the whole.
    """
    world = world or World()
    vectors = {m: np.zeros((data.rows(m), model.embed_dim), dtype=np.float32) for m in data.datasets}
    with inference(model, device, precision):
        for modality, found in vectors.items():
            own = world.share(data.batches(modality, batch_size))
            for piece in pieces(
                model, data, modality, batch_size=batch_size, device=device, start=own.start, stop=own.stop
            ):
                found[piece.places] = piece.rows
            world.add_up(torch.from_numpy(found))  # to the zeros of the others
    unusable = {m: torch.from_numpy(~flags).int() for m, flags in data.present().items()}
    for flags in unusable.values():
        world.add_up(flags)
    present = {m: flags.numpy() == 0 for m, flags in unusable.items()}
    return Embeddings([clip.id for clip in data.clips], vectors, data.owner, present, data.labels())


@contextmanager
def inference(model: MoverModel, device: torch.device, precision: str) -> Iterator[None]:
    """The model in evaluation mode, without gradients, and in the precision of the run; and back."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast(precision, device):
            yield
    finally:
        model.train(was_training)


def pieces(
    model: MoverModel,
    data: EvaluationSet,
    modality: str,
    *,
    batch_size: int,
    device: torch.device,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Piece]:
    """The embeddings of a modality, batch by batch, from batch number `start` to the one before `stop`, or to the last;
    within `inference`.

    A batch depends on its number and on `batch_size` alone. Batches without a clip that can be used are left out.
    """
    found = _captions if modality == "text" else _media
    stop = data.batches(modality, batch_size) if stop is None else stop
    yield from found(model, data, modality, batch_size, device, range(start, stop))


def _captions(
    model: MoverModel, data: EvaluationSet, modality: str, size: int, device: torch.device, steps: range
) -> Iterator[Piece]:
    """Captions of like length share a batch, so that little is padded."""
    dataset, tokenizer = data.datasets[modality], data.tokenizer
    assert tokenizer is not None
    texts, _ = dataset.captions()
    served = dataset.outputs.get(modality)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for step in steps:
        chosen = order[step * size : (step + 1) * size]
        if served is None:
            input_ids, attention_mask = tokenizer.encode([texts[i] for i in chosen])
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        else:
            inputs = {"tower_output": torch.from_numpy(np.stack([served.of_caption(texts[i]) for i in chosen]))}
        yield Piece(step, np.array(chosen, dtype=np.int64), _rows(model.encode(modality, to_device(inputs, device))))


def _media(
    model: MoverModel, data: EvaluationSet, modality: str, size: int, device: torch.device, steps: range
) -> Iterator[Piece]:
    place = data.place
    for batch in make_loader(data.datasets[modality], size, start_step=steps.start, steps=steps.stop):
        rows = _rows(model.encode(modality, to_device(batch[modality], device)))
        places = np.array([place[name] for name in batch["ids"]], dtype=np.int64)
        yield Piece(int(batch["index"][0]) // size, places, rows)


def _rows(z: Tensor) -> np.ndarray:
    return np.asarray(z.float().cpu().numpy())
