"""What builds a model again without the files that its towers began from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mover.config import DataConfig, FeatureTowerConfig, ImageTowerConfig, ModelConfig
from mover.models import MoverModel
from mover.models.video import VideoEncoder

NAMES = ("text", "video", "audio", "image", "depth")


@pytest.fixture
def config(model_config: ModelConfig) -> ModelConfig:
    small = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 32}
    image = ImageTowerConfig(kind="image", patch_size=16, **small)
    depth = FeatureTowerConfig(kind="features", input_size=6, **small)
    return model_config.model_copy(update={"others": {"image": image, "depth": depth}})


def gone(config: ModelConfig) -> ModelConfig:
    """The configuration of a run whose towers began from files that are not there any more, of other sizes."""
    update: dict[str, Any] = {"checkpoint": Path("no such place"), "layers": 7, "hidden_size": 640}
    towers = {name: getattr(config, name).model_copy(update=update) for name in ("text", "video", "audio")}
    others = {**config.others, "image": config.others["image"].model_copy(update=update)}
    return config.model_copy(update={**towers, "others": others})


def inputs(data: DataConfig) -> dict[str, dict[str, torch.Tensor]]:
    size = (data.image_size, data.image_size)
    return {
        "text": {"input_ids": torch.tensor([[0, 7, 9, 2], [0, 8, 2, 1]]), "attention_mask": torch.ones(2, 4).long()},
        "video": {"pixels": torch.randint(0, 256, (2, data.frames, 3, *size), dtype=torch.uint8)},
        "audio": {"waveform": 0.1 * torch.randn(2, 16000), "length": torch.tensor([16000, 9000])},
        "image": {"pixels": torch.randint(0, 256, (2, 1, 3, *size), dtype=torch.uint8)},
        "depth": {"features": torch.randn(2, 3, 6), "length": torch.tensor([3, 2])},
    }


def test_a_model_is_built_again_without_the_files_it_began_from(config: ModelConfig, data_config: DataConfig) -> None:
    model = MoverModel(config, data_config, NAMES, vocab_size=50).eval()
    video = model.towers["video"]
    assert isinstance(video, VideoEncoder)
    video.scale *= 1.1  # as from a checkpoint with a mean and a deviation of its own
    video.shift += 0.013
    described = json.loads(json.dumps(model.architecture()))
    again = MoverModel(gone(config), data_config, NAMES, 50, described).eval()
    again.load_state_dict(model.state_dict())
    batch = inputs(data_config)
    with torch.no_grad():
        for name in NAMES:
            assert torch.equal(again.encode(name, batch[name]), model.encode(name, batch[name])), name
    for name in NAMES[:4]:
        assert again.towers[name].fingerprint() == model.towers[name].fingerprint(), name
    assert again.architecture() == model.architecture()


def test_dropout_and_what_learns_come_from_the_configuration(config: ModelConfig, data_config: DataConfig) -> None:
    described = MoverModel(config, data_config, NAMES, vocab_size=50).architecture()
    text = config.text.model_copy(update={"dropout": 0.25, "trained_layers": 0})
    again = MoverModel(config.model_copy(update={"text": text}), data_config, NAMES, 50, described)
    assert again.towers["text"].roberta.config.hidden_dropout_prob == 0.25
    assert not any(parameter.requires_grad for parameter in again.towers["text"].parameters())
    assert all(parameter.requires_grad for parameter in again.towers["audio"].beats.parameters())
