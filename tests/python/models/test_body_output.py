"""A tower in two parts: what its body gives, which can be kept, and the rest. What identifies the body."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor

from mover.config import AudioTowerConfig, DataConfig, ModelConfig, TextTowerConfig, TowerConfig, VideoTowerConfig
from mover.models import AudioEncoder, MoverModel, TextEncoder, VideoEncoder
from mover.models.tower import Tower

KINDS = ("text", "video", "audio")
Inputs = dict[str, dict[str, Tensor]]


def make(config: TowerConfig, image_size: int = 32) -> Tower:
    torch.manual_seed(5)
    if isinstance(config, TextTowerConfig):
        return TextEncoder(config, 50, 12)
    if isinstance(config, VideoTowerConfig):
        return VideoEncoder(config, image_size, 3)
    assert isinstance(config, AudioTowerConfig)
    return AudioEncoder(config, 16000)


@pytest.fixture
def inputs() -> Inputs:
    ids = torch.randint(5, 50, (3, 8))
    return {
        "text": {"input_ids": ids, "attention_mask": (torch.arange(8) < torch.tensor([[8], [5], [3]])).long()},
        "video": {"pixels": torch.randint(0, 256, (3, 3, 3, 32, 32), dtype=torch.uint8)},
        "audio": {"waveform": 0.1 * torch.randn(3, 16000), "length": torch.tensor([16000, 9000, 12000])},
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_the_parts_make_the_whole_to_the_last_bit(
    kind: str, precision: torch.dtype, model_config: ModelConfig, inputs: Inputs
) -> None:
    tower = make(getattr(model_config, kind)).eval()
    if isinstance(tower, VideoEncoder):
        for parameter in tower.temporal.parameters():  # no longer the identity
            torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
        whole = tower(**inputs[kind])
        output = tower.body_output(**inputs[kind])
        assert output.dtype == torch.float32
        assert output.shape == (3, *tower.output_shape)
        assert torch.equal(tower.finish(output), whole)
        if isinstance(tower, VideoEncoder) and precision == torch.float32:  # in the order of the frames
            torch.testing.assert_close(whole, tower.temporal(output).mean(1), rtol=0, atol=0)
        again = torch.from_numpy(output.numpy().copy())  # as from a file
        assert torch.equal(tower.finish(again), whole)


def test_a_model_takes_what_its_towers_gave(model_config: ModelConfig, data_config: DataConfig, inputs: Inputs) -> None:
    model = MoverModel(model_config, data_config, KINDS, vocab_size=50)
    for parameter in model.towers["video"].temporal.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    present = {name: torch.ones(3, dtype=torch.bool) for name in KINDS}
    present["video"][1] = False
    kept = {}
    for name in KINDS:
        with torch.no_grad():
            kept[name] = {"tower_output": model.towers[name].body_output(**inputs[name])}
    kept["video"]["tower_output"][1] = torch.nan  # of a clip without video: not looked at
    learning = [*model.towers["video"].temporal.parameters(), *model.heads["video"].parameters()]
    live, given = (model({**batch, "present": present}) for batch in (inputs, kept))
    for name in KINDS:
        assert torch.equal(given[name], live[name]), name
    live_gradients, gradients = (torch.autograd.grad(z["video"].pow(3).sum(), learning) for z in (live, given))
    for gradient, expected in zip(gradients, live_gradients, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-8)


def one_weight(tower: Tower) -> None:
    parameter = list(tower.parameters())[-1] if not isinstance(tower, VideoEncoder) else tower.vit.layernorm.bias
    with torch.no_grad():
        parameter.view(-1)[-1] += 1e-7


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprints_tell_bodies_apart(kind: str, model_config: ModelConfig) -> None:
    config = getattr(model_config, kind).model_copy(update={"trained_layers": 0})
    tower = make(config)
    first = tower.fingerprint()
    assert make(config).fingerprint() == first == copy.deepcopy(tower).fingerprint()
    assert tower.train().fingerprint() == first
    for change in (
        {"attention": "eager"},
        {"dropout": 0.3},
        {"trained_layers": None},
        {"gradient_checkpointing": True},
    ):
        assert make(config.model_copy(update=change)).fingerprint() == first, change
    for change in ({"layers": 1}, {"heads": 4}, {"intermediate_size": 16}):
        assert make(config.model_copy(update=change)).fingerprint() != first, change
    copied = copy.deepcopy(tower)
    one_weight(copied)
    assert copied.fingerprint() != first
    assert tower.fingerprint() == first


def test_heads_of_attention_count_though_no_weight_shows_them(text_config: TextTowerConfig) -> None:
    one, other = make(text_config), make(text_config.model_copy(update={"heads": 4}))
    other.load_state_dict(one.state_dict())
    assert one.fingerprint() != other.fingerprint()


def test_layers_over_time_do_not_count_but_mean_and_size_do(video_config: VideoTowerConfig) -> None:
    first = make(video_config)
    other = make(video_config.model_copy(update={"temporal_layers": 0}))
    other.vit.load_state_dict(first.vit.state_dict())
    assert first.fingerprint() == other.fingerprint()
    other.shift += 0.01
    assert first.fingerprint() != other.fingerprint()
    assert make(video_config, image_size=48).fingerprint() != first.fingerprint()


def test_a_body_that_was_saved_and_read_back_is_the_same(
    model_config: ModelConfig, data_config: DataConfig, tmp_path: Any
) -> None:
    model = MoverModel(model_config, data_config, KINDS, vocab_size=50)
    save_model(model, str(tmp_path / "model.safetensors"))
    other = MoverModel(model_config, data_config, KINDS, vocab_size=50)
    prints: Callable[[MoverModel], list[str]] = lambda m: [m.towers[name].fingerprint() for name in KINDS]  # noqa: E731
    assert prints(model) != prints(other)
    load_model(other, str(tmp_path / "model.safetensors"))
    assert prints(model) == prints(other)
