"""A checkpoint of an untrained model, and clips that cost nothing to read: captions, and features in one array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mover.configs import load_config
from mover.data.manifest import Clip, Reference, write_manifest
from mover.data.tokenizer import Tokenizer
from mover.models.model import MoverModel
from mover.train.checkpoint import save_checkpoint

SMALL = {"layers": 1, "hidden_size": 16, "heads": 2, "intermediate_size": 16}
WORDS = [
    "a",
    "dog",
    "barks",
    "while",
    "rain",
    "falls",
    "on",
    "the",
    "old",
    "tin",
    "roof",
    "of",
    "our",
    "house",
    "and",
    "nobody",
    "listens",
]


def untrained(folder: Path, manifest: Path, seed: int = 0, **settings: Any) -> Path:
    """`folder` becomes a checkpoint of the smallest text, video and audio towers; settings with __ for dots."""
    small = {f"model.{m}.{name}": value for m in ("text", "video", "audio") for name, value in SMALL.items()}
    more = {"data.manifest": str(manifest), "data.image_size": 32, "data.frames": 2, "data.audio_seconds": 1.0}
    more |= {"model.embed_dim": 16, "model.audio.embed_dim": 16, "data.workers": 0, **small}
    config = load_config("demo", more | {name.replace("__", "."): value for name, value in settings.items()})
    tokenizer = Tokenizer.for_data(config.data) if "text" in config.modalities else None
    vocab_size = None if tokenizer is None else tokenizer.vocab_size
    torch.manual_seed(seed)
    model = MoverModel(config.model, config.data, config.modalities, vocab_size)
    save_checkpoint(folder, model=model, objective=nn.Linear(1, 1), state={}, config=config, tokenizer=tokenizer)
    return folder


FEATURES: dict[str, Any] = {
    "modalities": ["text", "depth", "notes"],
    "model__others__depth__kind": "features", "model__others__depth__input_size": 6,
    "model__others__depth__hidden_size": 16, "model__others__notes__kind": "features",
    "model__others__notes__input_size": 4, "model__others__notes__hidden_size": 16,
}  # fmt: skip
"""Settings for `untrained` that go with `feature_clips`."""


def feature_clips(folder: Path, count: int, split: str = "test") -> Path:
    """A manifest of clips with a label, one to three captions, and features "depth" and "notes"; and a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for name, width in (("depth", 6), ("notes", 4)):
        np.save(folder / f"{name}.npy", random.normal(size=(count, width)).astype(np.float32))
    clips = []
    for i in range(count):
        captions = tuple(" ".join(WORDS[: 2 + (5 * i + 7 * j) % 14]) + f" {i}" for j in range(1 + i % 3))
        others = {name: Reference(folder / f"{name}.npy", i) for name in ("depth", "notes")}
        clips.append(Clip(f"clip {i}", captions, split=split, label=f"class {i % 4}", others=others))
    write_manifest(folder / "manifest.jsonl", clips)
    Tokenizer.train([c for clip in clips[:50] for c in clip.captions], 40).save(folder / "tokenizer.json")
    return folder / "manifest.jsonl"
