from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mover.config import AudioTowerConfig, DataConfig, ModelConfig, TextTowerConfig, VideoTowerConfig


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    """A fixed seed, and one thread: models this small only lose by more."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def data_config() -> DataConfig:
    return DataConfig(frames=3, image_size=32, audio_seconds=1.0, max_tokens=12)


@pytest.fixture
def text_config() -> TextTowerConfig:
    return TextTowerConfig(hidden_size=16, layers=2, heads=2, intermediate_size=32, dropout=0.0)


@pytest.fixture
def video_config() -> VideoTowerConfig:
    return VideoTowerConfig(hidden_size=16, layers=2, heads=2, intermediate_size=32, temporal_layers=1)


@pytest.fixture
def audio_config() -> AudioTowerConfig:
    return AudioTowerConfig(
        hidden_size=16,
        layers=2,
        heads=2,
        intermediate_size=32,
        embed_dim=8,
        conv_pos=16,
        conv_pos_groups=4,
        dropout=0.0,
    )


@pytest.fixture
def model_config(
    text_config: TextTowerConfig, video_config: VideoTowerConfig, audio_config: AudioTowerConfig
) -> ModelConfig:
    return ModelConfig(embed_dim=24, text=text_config, video=video_config, audio=audio_config)
