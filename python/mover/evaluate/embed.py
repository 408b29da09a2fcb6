"""From clips to embeddings: every clip once per modality, every caption, in the order of the manifest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mover.config import DataConfig
from mover.data.dataset import ClipDataset
from mover.data.loader import make_loader
from mover.data.manifest import Clip
from mover.data.others import Others
from mover.data.tokenizer import Tokenizer
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

    @property
    def skipped(self) -> dict[str, dict[str, str]]:
        """Modality to id to reason, for what could not be used so far."""
        return {modality: dict(dataset.skipped) for modality, dataset in self.datasets.items() if dataset.skipped}


@torch.no_grad()
def embed(
    model: MoverModel, data: EvaluationSet, *, batch_size: int, device: torch.device, precision: str = "float32"
) -> Embeddings:
    """Embeddings of all clips and all their captions, float32 unit rows.

    The model is put into evaluation mode and back. A clip that cannot be used keeps its place, with zeros and
    `present` false.
    """
    was_training = model.training
    model.eval()
    place = {clip.id: i for i, clip in enumerate(data.clips)}
    vectors: dict[str, np.ndarray] = {}
    present: dict[str, np.ndarray] = {}
    owner = np.zeros(0, dtype=np.int64)
    try:
        with autocast(precision, device):
            for modality, dataset in data.datasets.items():
                if modality == "text":
                    assert data.tokenizer is not None
                    texts, owner = dataset.captions()
                    owner = np.array([place[clip.id] for clip in dataset.clips], dtype=np.int64)[owner]
                    vectors[modality] = _embed_captions(model, dataset, data.tokenizer, texts, batch_size, device)
                    present[modality] = np.bincount(owner, minlength=len(place)) > 0
                else:
                    vectors[modality], present[modality] = _embed_media(
                        model, dataset, modality, place, batch_size, device
                    )
    finally:
        model.train(was_training)
    return Embeddings([clip.id for clip in data.clips], vectors, owner, present)


def _embed_captions(
    model: MoverModel, dataset: ClipDataset, tokenizer: Tokenizer, texts: list[str], size: int, device: torch.device
) -> np.ndarray:
    """float32 (C, d). Captions of like length share a batch, so that little is padded."""
    served = dataset.outputs.get("text")
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors = np.zeros((len(texts), model.embed_dim), dtype=np.float32)
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        if served is None:
            input_ids, attention_mask = tokenizer.encode([texts[i] for i in chosen])
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        else:
            inputs = {"tower_output": torch.from_numpy(np.stack([served.of_caption(texts[i]) for i in chosen]))}
        vectors[chosen] = _rows(model.encode("text", to_device(inputs, device)))
    return vectors


def _embed_media(
    model: MoverModel, dataset: ClipDataset, modality: str, place: dict[str, int], batch_size: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """float32 (N, d) and bool (N,)."""
    vectors = np.zeros((len(place), model.embed_dim), dtype=np.float32)
    present = np.zeros(len(place), dtype=bool)
    for batch in make_loader(dataset, batch_size):
        rows = [place[name] for name in batch["ids"]]
        vectors[rows] = _rows(model.encode(modality, to_device(batch[modality], device)))
        present[rows] = True
    return vectors, present


def _rows(z: Tensor) -> np.ndarray:
    return np.asarray(z.float().cpu().numpy())
