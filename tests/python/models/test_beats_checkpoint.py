"""Official-format BEATs files: loaded whole, or refused with file, keys and remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mover.config import AudioTowerConfig
from mover.errors import UserError
from mover.models.audio import AudioEncoder
from mover.models.beats import Beats, BeatsConfig

SIZES = BeatsConfig(
    embed_dim=8,
    layers=2,
    hidden_size=32,
    intermediate_size=24,
    heads=4,
    conv_pos=8,
    conv_pos_groups=2,
    max_distance=400,
)


def _content() -> dict[str, Any]:
    """What an official file holds, small: `cfg` with every field of the official ones, and `model`."""
    cfg = {
        "input_patch_size": 16, "embed_dim": 8, "conv_bias": False, "encoder_layers": 2, "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 24, "encoder_attention_heads": 4, "activation_fn": "gelu",
        "layer_wise_gradient_decay_ratio": 0.6, "layer_norm_first": False, "deep_norm": True, "dropout": 0.1,
        "attention_dropout": 0.1, "activation_dropout": 0.0, "encoder_layerdrop": 0.05, "dropout_input": 0.0,
        "conv_pos": 8, "conv_pos_groups": 2, "relative_position_embedding": True, "num_buckets": 320,
        "max_distance": 400, "gru_rel_pos": True, "finetuned_model": False,
    }  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    model = {key: torch.randn(value.shape, generator=generator) for key, value in Beats(SIZES).state_dict().items()}
    table = model["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    model["encoder.layers.1.self_attn.relative_attention_bias.weight"] = table.clone()
    return {"cfg": cfg, "model": model}


def _load(path: Path) -> AudioEncoder:
    return AudioEncoder(AudioTowerConfig(checkpoint=path, dropout=0.25), 16000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "BEATs small.pt"


def test_loads_every_tensor_and_the_sizes(path: Path) -> None:
    content = _content()
    torch.save(content, path)
    encoder = _load(path)
    state = encoder.beats.state_dict()
    assert state.keys() == content["model"].keys()
    assert all(torch.equal(state[key], value) for key, value in content["model"].items())
    assert encoder.beats.config == BeatsConfig(**{**vars(SIZES), "dropout": 0.25})
    assert encoder.width == 32
    assert encoder.training
    assert len({id(layer.self_attn.relative_attention_bias) for layer in encoder.beats.encoder.layers}) == 1
    assert encoder(0.1 * torch.randn(2, 8000), torch.tensor([8000, 3000])).isfinite().all()


def test_the_head_of_a_fine_tuned_file_is_left_out(path: Path) -> None:
    content = _content()
    content["model"]["predictor.weight"] = torch.randn(5, 32)
    content["model"]["predictor.bias"] = torch.randn(5)
    content["label_dict"] = {0: "/m/09x0r"}
    torch.save(content, path)
    assert _load(path).width == 32


def test_state_saved_here_loads_again(path: Path) -> None:
    content = _content()
    torch.save(content, path)
    first = _load(path)
    torch.save({"cfg": content["cfg"], "model": first.beats.state_dict()}, path)
    second = _load(path)
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def _without(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in keys:
            del content["model"][key]

    return change


def _with(key: str, value: torch.Tensor) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["model"].update({key: value})


def _cfg(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["cfg"].update(values)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], list[str]]] = {
    "no cfg": (lambda content: content.pop("cfg"), ["'cfg'", "found"]),
    "no model": (lambda content: content.pop("model"), ["'model'"]),
    "missing keys": (
        _without("layer_norm.bias", "encoder.layers.1.fc1.weight"),
        ["lacks", "layer_norm.bias", "encoder.layers.1.fc1.weight"],
    ),
    "a whole layer more": (
        _with("encoder.layers.2.fc1.weight", torch.zeros(24, 32)),
        ["unknown", "encoder.layers.2.fc1.weight"],
    ),
    "another shape": (
        _with("post_extract_proj.weight", torch.zeros(32, 9)),
        ["post_extract_proj.weight", "(32, 9)", "(32, 8)"],
    ),
    "tables that differ": (
        _with("encoder.layers.1.self_attn.relative_attention_bias.weight", torch.zeros(320, 4)),
        ["share one table", "encoder.layers.1.self_attn.relative_attention_bias.weight"],
    ),
    "pre-norm": (_cfg(layer_norm_first=True), ["cfg.layer_norm_first", "True"]),
    "no gate": (_cfg(gru_rel_pos=False), ["cfg.gru_rel_pos", "False"]),
    "activation": (_cfg(activation_fn="relu"), ["cfg.activation_fn", "relu"]),
    "no depth": (lambda content: content["cfg"].pop("encoder_layers"), ["cfg.encoder_layers", "None"]),
    "bad width": (_cfg(encoder_embed_dim="768"), ["cfg.encoder_embed_dim", "'768'"]),
    "sizes that do not fit": (_cfg(encoder_attention_heads=5), ["5", "32"]),
    "not a tensor": (lambda content: content["model"].update({"mask_emb": "x"}), ["mask_emb", "no tensors"]),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_other_content_is_refused_by_name(name: str, path: Path) -> None:
    change, words = CHANGES[name]
    content = _content()
    change(content)
    torch.save(content, path)
    with pytest.raises(UserError) as error:
        _load(path)
    message = str(error.value)
    assert "\n" not in message
    for word in [str(path), "model.audio.checkpoint", *words]:
        assert word in message


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.98])
def test_truncated_files_are_refused(share: float, path: Path) -> None:
    torch.save(_content(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"BEATs small\.pt cannot be read.*download it again"):
        _load(path)


class _Code:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return print, ("code ran",)


def test_files_with_code_are_refused(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({**_content(), "extra": _Code()}, path)
    with pytest.raises(UserError, match="more than tensors"):
        _load(path)
    assert "code ran" not in capsys.readouterr().out


def test_files_that_are_not_there_or_hold_something_else(path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*BEATs small\.pt"):
        _load(path)
    path.mkdir()
    with pytest.raises(UserError, match=r"there is no file .*BEATs small\.pt"):
        _load(path)
    path.rmdir()
    torch.save([1, 2], path)
    with pytest.raises(UserError, match=r"'cfg' and 'model'.*list"):
        _load(path)
