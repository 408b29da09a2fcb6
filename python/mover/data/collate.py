"""Samples to a batch of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mover.config import DataConfig
from mover.data.media import pcm_to_float
from mover.data.tokenizer import Tokenizer

Batch = dict[str, Any]
"""What the loader yields and the model reads; only the modalities of the run are there.

ids: list of B clip ids. index: int64 (B,), positions in the dataset.
text: input_ids, attention_mask, int64 (B, L). video: pixels, uint8 (B, F, 3, S, S).
audio: waveform, float32 (B, n), and length, int64 (B,), how many samples are real.
present: modality to bool (B,). The rows of clips that lack a modality are zeros, or padding, and stand for nothing:
the model leaves them out.
"""


@dataclass(frozen=True)
class Sample:
    """A clip as it was sampled.

    caption: one sentence. pixels: uint8 (F, 3, S, S). pcm: int16 (n,), of which the first `length` are real. None for
    what the clip lacks or the run does not use.
    """

    id: str
    index: int
    caption: str | None = None
    pixels: np.ndarray | None = None
    pcm: np.ndarray | None = None
    length: int = 0


def window_length(config: DataConfig) -> int:
    """Samples of an audio window."""
    return max(1, round(config.audio_seconds * config.sample_rate))


class Collate:
    """Stacks samples; the tokenizer is needed when "text" is among the modalities."""

    def __init__(self, modalities: Sequence[str], tokenizer: Tokenizer | None, config: DataConfig) -> None:
        self.modalities = tuple(modalities)
        self.tokenizer = tokenizer
        self._frames = (config.frames, 3, config.image_size, config.image_size)
        self._window = (window_length(config),)

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """A batch of B = len(samples) >= 1."""
        given: dict[str, list[Any]] = {
            "text": [sample.caption for sample in samples],
            "video": [sample.pixels for sample in samples],
            "audio": [sample.pcm for sample in samples],
        }
        present = {m: torch.tensor([value is not None for value in given[m]]) for m in self.modalities}
        batch: Batch = {
            "ids": [sample.id for sample in samples],
            "index": torch.tensor([sample.index for sample in samples], dtype=torch.int64),
            "present": present,
        }
        if "text" in self.modalities:
            batch["text"] = self._tokens(given["text"], present["text"])
        if "video" in self.modalities:
            batch["video"] = {"pixels": torch.from_numpy(_stacked(given["video"], self._frames, np.uint8))}
        if "audio" in self.modalities:
            waveform = pcm_to_float(_stacked(given["audio"], self._window, np.int16))
            length = torch.tensor([sample.length for sample in samples], dtype=torch.int64)
            batch["audio"] = {"waveform": torch.from_numpy(waveform), "length": length}
        return batch

    def _tokens(self, captions: Sequence[str | None], present: torch.Tensor) -> dict[str, torch.Tensor]:
        assert self.tokenizer is not None
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
