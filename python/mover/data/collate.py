"""Samples to a batch of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mover.config import DataConfig, ImageTowerConfig
from mover.data.media import pcm_to_float
from mover.data.others import Others
from mover.data.tokenizer import Tokenizer

Batch = dict[str, Any]
"""What the loader yields and the model reads; only the modalities of the run are there.

ids: list of B clip ids. index: int64 (B,), positions in the dataset.
text: input_ids, attention_mask, int64 (B, L). video: pixels, uint8 (B, F, 3, S, S).
audio: waveform, float32 (B, n), and length, int64 (B,), how many samples are real.
A modality of images: pixels, uint8 (B, 1, 3, S, S). One of features: features, float32 (B, T, d), zeros behind the
rows that a clip has, and length, int64 (B,), how many these are.
A modality served by the feature cache: tower_output, float32 (B, …), in place of all these.
present: modality to bool (B,). The rows of clips that lack a modality are zeros, or padding, and stand for nothing:
the model leaves them out.
In training, aligned: how many of the rows, the first ones, are of one clip in every modality (`mover.data.batches`), of
the whole batch where a process has a share of it; ids and index of the others are those of their first modality.
together: the modalities in which every row is of one clip. owner: modality to int64 (B,), the position in the dataset
of the clip that each row is of; of use to diagnostics, and as a name for the row: which of two modalities are equal is
not to be learnt from.
"""


@dataclass(frozen=True)
class Sample:
    """A clip as it was sampled.

    values: modality to what was drawn of it: text, one sentence; video, uint8 (F, 3, S, S); audio, int16 (n,) and how
    many of its samples are real; an image, uint8 (3, S, S); features, float32 (T, d); of a modality served by the
    feature cache, what the body of its tower gave. What the clip lacks or the run does not use is not there.
    """

    id: str
    index: int
    values: Mapping[str, Any]


def window_length(config: DataConfig) -> int:
    """Samples of an audio window."""
    return max(1, round(config.audio_seconds * config.sample_rate))


class Collate:
    """Stacks samples; the tokenizer is needed when "text" is among the modalities.

    served: modalities whose values are outputs of towers, and the shape of one.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        tokenizer: Tokenizer | None,
        config: DataConfig,
        others: Others | None = None,
    ) -> None:
        self.modalities = tuple(modalities)
        self.tokenizer = tokenizer
        self._image = (3, config.image_size, config.image_size)
        self._frames = (config.frames, *self._image)
        self._window = (window_length(config),)
        self._others = others or {}
        self.served: Mapping[str, tuple[int, ...]] = {}

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """A batch of B = len(samples) >= 1."""
        batch: Batch = {
            "ids": [sample.id for sample in samples],
            "index": torch.tensor([sample.index for sample in samples], dtype=torch.int64),
            "present": {m: torch.tensor([m in sample.values for sample in samples]) for m in self.modalities},
        }
        for modality in self.modalities:
            batch[modality] = self._stack(modality, [sample.values.get(modality) for sample in samples])
        return batch

    def _stack(self, modality: str, values: Sequence[Any]) -> dict[str, torch.Tensor]:
        """The tensors of one modality; a value is None for a clip that lacks it."""
        if modality in self.served:
            return {"tower_output": torch.from_numpy(_stacked(values, self.served[modality], np.float32))}
        if modality == "text":
            return self._tokens(values)
        if modality == "video":
            return {"pixels": torch.from_numpy(_stacked(values, self._frames, np.uint8))}
        if modality == "audio":
            windows = [None if value is None else value[0] for value in values]
            lengths = [0 if value is None else value[1] for value in values]
            waveform = pcm_to_float(_stacked(windows, self._window, np.int16))
            return {"waveform": torch.from_numpy(waveform), "length": torch.tensor(lengths, dtype=torch.int64)}
        tower = self._others[modality]
        if isinstance(tower, ImageTowerConfig):
            return {"pixels": torch.from_numpy(_stacked(values, self._image, np.uint8)).unsqueeze(1)}
        return _padded(values, tower.input_size)

    def _tokens(self, captions: Sequence[str | None]) -> dict[str, torch.Tensor]:
        assert self.tokenizer is not None
        present = torch.tensor([caption is not None for caption in captions])
        input_ids, attention_mask = self.tokenizer.encode([caption for caption in captions if caption is not None])
        if len(input_ids) < len(captions):
            shape = (len(captions), max(1, input_ids.shape[1]))
            some_ids, some_mask = input_ids, attention_mask
            input_ids = torch.full(shape, self.tokenizer.pad_id, dtype=torch.int64)
            attention_mask = torch.zeros(shape, dtype=torch.int64)
            if len(some_ids):
                input_ids[present], attention_mask[present] = some_ids, some_mask
        return {"input_ids": input_ids, "attention_mask": attention_mask}


def _stacked(arrays: Sequence[np.ndarray | None], shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """The arrays stacked, (B, *shape), zeros for those that are not there."""
    return np.stack([np.zeros(shape, dtype) if array is None else array for array in arrays])


def _padded(arrays: Sequence[np.ndarray | None], width: int) -> dict[str, torch.Tensor]:
    """Rows of features (T_i, width) as one tensor (B, T, width), T = max T_i >= 1, and the numbers of rows."""
    counts = [0 if array is None else len(array) for array in arrays]
    features = np.zeros((len(arrays), max(1, *counts), width), np.float32)
    for i, array in enumerate(arrays):
        if array is not None:
            features[i, : len(array)] = array
    return {"features": torch.from_numpy(features), "length": torch.tensor(counts, dtype=torch.int64)}
