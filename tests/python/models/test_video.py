from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mover.config import VideoTowerConfig
from mover.errors import UserError
from mover.models.temporal import TemporalTransformer
from mover.models.video import VideoEncoder


def _clips(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def test_full_size_is_vit_base() -> None:
    with torch.device("meta"):
        encoder = VideoEncoder(VideoTowerConfig(), 224, 8)
    assert sum(p.numel() for p in encoder.parameters()) == 85_798_656
    assert encoder.vit.config._attn_implementation == "sdpa"
    assert encoder.vit.config.initializer_range == 0.02


def test_temporal_transformer_is_the_identity_at_the_start() -> None:
    temporal = TemporalTransformer(16, frames=5, layers=2, heads=2, intermediate_size=32)
    x = torch.randn(3, 4, 16)
    assert torch.equal(temporal(x), x)


def test_temporal_transformer_learns_order() -> None:
    temporal = TemporalTransformer(16, frames=4, layers=1, heads=2, intermediate_size=32)
    x = torch.randn(3, 4, 16)
    for _ in range(3):
        temporal(x).pow(3).sum().backward()
        with torch.no_grad():
            for parameter in temporal.parameters():
                parameter -= 0.05 * parameter.grad.sign()
                parameter.grad = None
    temporal(x).pow(3).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in temporal.parameters())
    assert not torch.allclose(temporal(x).mean(1), temporal(x.flip(1)).mean(1), atol=1e-4)


def test_more_frames_than_positions_are_refused() -> None:
    temporal = TemporalTransformer(16, frames=2, layers=1, heads=2, intermediate_size=32)
    with pytest.raises(ValueError, match=r"2 frames.*given 3.*data\.frames"):
        temporal(torch.randn(1, 3, 16))


def test_is_the_mean_of_class_tokens_at_the_start(video_config: VideoTowerConfig) -> None:
    encoder = VideoEncoder(video_config, 32, 3).eval()
    clips = _clips(2, 3, 3, 32, 32)
    with torch.no_grad():
        out = encoder(clips)
        for clip in range(2):
            images = clips[clip].float() / 127.5 - 1
            tokens = encoder.vit(pixel_values=images).last_hidden_state[:, 0]
            torch.testing.assert_close(out[clip], tokens.mean(0), atol=1e-5, rtol=1e-5)


def test_frames_of_another_size_are_resized(video_config: VideoTowerConfig) -> None:
    encoder = VideoEncoder(video_config, 32, 3)
    frames = _clips(2, 3, 48, 80)
    before = frames.clone()
    resized = F.interpolate(frames.float(), (32, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(encoder.normalise(frames), resized / 127.5 - 1, atol=1e-5, rtol=0)
    assert encoder.normalise(frames[..., ::2, :]).shape == (2, 3, 32, 32)
    assert torch.equal(frames, before)


def test_input_is_left_alone(video_config: VideoTowerConfig) -> None:
    frames = torch.rand(1, 3, 32, 32) * 255
    before = frames.clone()
    VideoEncoder(video_config, 32, 3).normalise(frames)
    assert torch.equal(frames, before)


@pytest.mark.parametrize(
    ("change", "size", "words"),
    [
        ({"heads": 3}, 32, r"model\.video\.hidden_size.*model\.video\.heads"),
        ({}, 40, r"data\.image_size.*model\.video\.patch_size.*40.*16"),
    ],
)
def test_sizes_that_do_not_fit_are_named(
    change: dict[str, int], size: int, words: str, video_config: VideoTowerConfig
) -> None:
    with pytest.raises(UserError, match=words):
        VideoEncoder(video_config.model_copy(update=change), size, 3)
