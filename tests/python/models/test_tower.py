"""What a tower may learn and what it keeps: frozen and top layers, rates by depth, recomputation, attention."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mover.config import (
    AudioTowerConfig,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    TextTowerConfig,
    TowerConfig,
    VideoTowerConfig,
)
from mover.errors import UserError
from mover.models import AudioEncoder, MoverModel, TextEncoder, VideoEncoder
from mover.models.tower import Tower

Build = Callable[..., tuple[Tower, tuple[Tensor, ...]]]
LAYERS = 3
BODY = {"text": "roberta", "video": "vit", "audio": "beats"}
LAYER = {"text": "roberta.encoder.layer.", "video": "vit.layers.", "audio": "beats.encoder.layers."}
TABLE = "relative_attention_bias"


def make(config: TowerConfig) -> Tower:
    if isinstance(config, TextTowerConfig):
        return TextEncoder(config, 50, 12)
    if isinstance(config, VideoTowerConfig):
        return VideoEncoder(config, 32, 3)
    assert isinstance(config, AudioTowerConfig)
    return AudioEncoder(config, 16000)


@pytest.fixture(params=list(BODY))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def build(
    kind: str, text_config: TextTowerConfig, video_config: VideoTowerConfig, audio_config: AudioTowerConfig
) -> Build:
    """A tower of three layers with the same weights every time, changed as told, and three rows for it."""
    config = {"text": text_config, "video": video_config, "audio": audio_config}[kind]
    ids = torch.randint(5, 50, (3, 8))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    inputs = {
        "text": (ids, mask),
        "video": (torch.randint(0, 256, (3, 2, 3, 32, 32), dtype=torch.uint8),),
        "audio": (0.1 * torch.randn(3, 16000), torch.tensor([16000, 4000, 16000])),
    }

    def build(**changes: Any) -> tuple[Tower, tuple[Tensor, ...]]:
        torch.manual_seed(5)
        return make(config.model_copy(update={"layers": LAYERS, **changes})), inputs[kind]

    return build


def gradients(tower: Tower, inputs: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor | None]]:
    torch.manual_seed(7)  # of the dropout
    out = tower(*inputs)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    if out.requires_grad:
        (out * weights).sum().backward()
    return out.detach(), {name: p.grad for name, p in tower.named_parameters()}


def in_layers(kind: str, numbers: range) -> tuple[str, ...]:
    return tuple(f"{LAYER[kind]}{number}." for number in numbers)


@pytest.mark.parametrize("trained", [None, 0, 1, 2, LAYERS])
def test_the_last_layers_learn_and_nothing_else(kind: str, build: Build, trained: int | None) -> None:
    tower, inputs = build(trained_layers=trained)
    full, _ = build()
    out, grads = gradients(tower, inputs)
    expected_out, expected = gradients(full, inputs)
    assert torch.equal(out, expected_out)
    for name, gradient in grads.items():
        if trained is None or not name.startswith(BODY[kind]):
            learns = True
        elif name.startswith(in_layers(kind, range(LAYERS - trained, LAYERS))):
            learns = TABLE not in name  # one for all layers, the frozen ones too
        else:
            learns = name.startswith("vit.layernorm.") and trained > 0
        assert (gradient is not None) == learns, name
        if learns:
            torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-7)


def test_a_frozen_tower_keeps_nothing_and_drops_nothing(kind: str, build: Build) -> None:
    changes = {"temporal_layers": 0} if kind == "video" else {}
    tower, inputs = build(trained_layers=0, dropout=0.5, **changes)
    still, _ = build(dropout=0.0, **changes)
    assert tower.training
    out = tower(*inputs)
    assert not out.requires_grad
    assert torch.equal(out, still.eval()(*inputs))
    assert tower.eval() is tower and not tower.training
    assert tower.train().training
    assert torch.equal(tower(*inputs), out)


def test_what_is_frozen_drops_nothing_below_layers_that_learn(kind: str, build: Build) -> None:
    tower, inputs = build(trained_layers=1, dropout=0.5)
    seen: list[Tensor] = []
    prefix = in_layers(kind, range(LAYERS - 1, LAYERS))[0].rstrip(".")
    last = dict(tower.named_modules())[prefix]
    last.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    outs = [tower(*inputs).detach() for _ in range(2)]
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(outs[0], outs[1])
    full, _ = build(dropout=0.5)
    dict(full.named_modules())[prefix].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    for _ in range(2):
        full(*inputs)
    assert not torch.equal(seen[2], seen[3])


def test_temporal_layers_learn_over_a_frozen_tower(video_config: VideoTowerConfig) -> None:
    tower = make(video_config.model_copy(update={"trained_layers": 0}))
    learning = {name.split(".")[0] for name, p in tower.named_parameters() if p.requires_grad}
    assert learning == {"temporal"}


def test_more_layers_than_there_are_is_refused(kind: str, build: Build) -> None:
    with pytest.raises(UserError, match=rf"model\.{kind}\.trained_layers: the tower has 3 layers, got 4"):
        build(trained_layers=4)


def kept_bytes(tower: Tower, inputs: tuple[Tensor, ...]) -> int:
    """What autograd keeps for the backward pass, parameters aside."""
    parameters = {p.untyped_storage().data_ptr() for p in tower.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # an address is not given twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        tower(*inputs)
    return sum(kept.values())


@pytest.mark.parametrize("trained", [None, 2])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_recomputed_gradients_are_the_same(build: Build, trained: int | None, precision: torch.dtype) -> None:
    results = []
    for recompute in (False, True):
        tower, inputs = build(dropout=0.3, trained_layers=trained, gradient_checkpointing=recompute)
        with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
            results.append(gradients(tower, inputs))
    (out, grads), (again, regrads) = results
    assert torch.equal(out, again)
    for name, gradient in grads.items():
        assert (gradient is None) == (regrads[name] is None)
        if gradient is not None:
            assert torch.equal(gradient, regrads[name]), name


def test_recomputation_keeps_less(build: Build) -> None:
    plain, inputs = build(dropout=0.1, layers=8)
    recomputed, _ = build(dropout=0.1, layers=8, gradient_checkpointing=True)
    assert kept_bytes(recomputed, inputs) < 0.4 * kept_bytes(plain, inputs)
    recomputed.eval()
    with torch.no_grad():
        assert torch.equal(recomputed(*inputs), plain.eval()(*inputs))


def test_copies_recompute_with_their_own_weights(build: Build) -> None:
    tower, inputs = build(gradient_checkpointing=True)
    other = copy.deepcopy(tower)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.zero_()
    out, grads = gradients(other, inputs)
    assert torch.equal(out, gradients(build()[0], inputs)[0])
    assert all(gradient is not None for gradient in grads.values())


def test_both_attentions_agree(build: Build) -> None:
    results = [gradients(*build(attention=attention)) for attention in ("sdpa", "eager", "auto")]
    for out, grads in results[1:]:
        torch.testing.assert_close(out, results[0][0], rtol=1e-4, atol=1e-5)
        for name, gradient in grads.items():
            torch.testing.assert_close(gradient, results[0][1][name], rtol=1e-3, atol=1e-4)


def test_the_attention_asked_for_is_the_one_that_runs(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **options: (calls.append(1), fused(*args, **options))[1],
    )
    for attention, expected in (("sdpa", LAYERS), ("eager", 0)):
        tower, inputs = build(attention=attention)
        if isinstance(tower, VideoEncoder):
            tower.temporal = None
        calls.clear()
        tower(*inputs)
        assert len(calls) == expected


def test_rates_fall_with_depth(model_config: ModelConfig, data_config: DataConfig) -> None:
    config = model_config.model_copy(update={"text": model_config.text.model_copy(update={"layers": 3})})
    model = MoverModel(config, data_config, ("text", "video", "audio"), vocab_size=50)
    model = copy.deepcopy(model).double()
    groups = model.parameter_groups(OptimizerConfig(lr=1.0, tower_lr=0.5, weight_decay=0.02, layer_decay=0.1))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    expected = {
        "heads.text.weight": 1.0,
        "towers.video.temporal.layers.0.qkv.weight": 1.0,
        "towers.text.roberta.encoder.layer.2.output.dense.weight": 0.5,
        "towers.text.roberta.encoder.layer.0.output.dense.bias": 0.005,
        "towers.text.roberta.embeddings.word_embeddings.weight": 0.0005,
        "towers.video.vit.layernorm.weight": 0.5,
        "towers.video.vit.layers.1.mlp.fc1.weight": 0.5,
        "towers.video.vit.layers.0.mlp.fc1.weight": 0.05,
        "towers.video.vit.embeddings.cls_token": 0.005,
        "towers.audio.beats.encoder.layers.1.fc1.weight": 0.5,
        "towers.audio.beats.encoder.layers.0.fc1.weight": 0.05,
        "towers.audio.beats.encoder.layers.0.self_attn.relative_attention_bias.weight": 0.005,
        "towers.audio.beats.encoder.pos_conv.0.weight_v": 0.005,
        "towers.audio.beats.patch_embedding.weight": 0.005,
    }
    parameters = dict(model.named_parameters())
    assert {name: pytest.approx(rates[id(parameters[name])]) for name in expected} == expected
    listed = [p for group in groups for p in group["params"]]
    assert len(listed) == len({id(p) for p in listed}) == len(list(model.parameters()))
    names = [group["name"] for group in groups]
    assert len(set(names)) == len(names)
    assert {"towers, 0 below the top", "towers, 3 below the top, no decay", "heads"} <= set(names)


def test_frozen_towers_leave_heads_and_temporal_layers_to_the_optimiser(
    model_config: ModelConfig, data_config: DataConfig
) -> None:
    frozen = {
        name: getattr(model_config, name).model_copy(update={"trained_layers": 0})
        for name in ("text", "video", "audio")
    }
    model = MoverModel(model_config.model_copy(update=frozen), data_config, ("text", "video", "audio"), vocab_size=50)
    groups = model.parameter_groups(OptimizerConfig(lr=1e-3, tower_lr=1e-5))
    assert {group["name"] for group in groups} == {"heads", "heads, no decay"}
    assert {group["lr"] for group in groups} == {1e-3}
    assert model.train().training and not model.towers["text"].roberta.training
