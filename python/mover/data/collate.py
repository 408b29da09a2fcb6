"""Samples to a batch of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mover.data.media import pcm_to_float
from mover.data.tokenizer import Tokenizer

Batch = dict[str, Any]
"""What the loader yields and the model reads; only the modalities of the run are there.

ids: list of B clip ids. index: int64 (B,), positions in the dataset.
text: input_ids, attention_mask, int64 (B, L). video: pixels, uint8 (B, F, 3, S, S).
audio: waveform, float32 (B, n), and length, int64 (B,), how many samples are real.
present: modality to bool (B,).
"""


@dataclass(frozen=True)
class Sample:
    """A clip as it was sampled.

    caption: one sentence. pixels: uint8 (F, 3, S, S). pcm: int16 (n,), of which the first `length` are real.
    """

    id: str
    index: int
    caption: str | None = None
    pixels: np.ndarray | None = None
    pcm: np.ndarray | None = None
    length: int = 0


class Collate:
    """Stacks samples; the tokenizer is needed when "text" is among the modalities."""

    def __init__(self, modalities: Sequence[str], tokenizer: Tokenizer | None) -> None:
        self.modalities = tuple(modalities)
        self.tokenizer = tokenizer

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """A batch of B = len(samples) >= 1."""
        batch: Batch = {
            "ids": [sample.id for sample in samples],
            "index": torch.tensor([sample.index for sample in samples], dtype=torch.int64),
            "present": {modality: torch.ones(len(samples), dtype=torch.bool) for modality in self.modalities},
        }
        if "text" in self.modalities:
            assert self.tokenizer is not None
            input_ids, attention_mask = self.tokenizer.encode([sample.caption or "" for sample in samples])
            batch["text"] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "video" in self.modalities:
            batch["video"] = {"pixels": torch.from_numpy(np.stack([_given(sample.pixels) for sample in samples]))}
        if "audio" in self.modalities:
            waveform = pcm_to_float(np.stack([_given(sample.pcm) for sample in samples]))
            length = torch.tensor([sample.length for sample in samples], dtype=torch.int64)
            batch["audio"] = {"waveform": torch.from_numpy(waveform), "length": length}
        return batch


def _given(array: np.ndarray | None) -> np.ndarray:
    assert array is not None, "a sample lacks a modality of the run"
    return array
