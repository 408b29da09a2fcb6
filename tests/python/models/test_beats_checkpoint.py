"""Official-format BEATs files: loaded whole, or refused with file, keys and remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cases.checkpoints import SIZES
from cases.checkpoints import official_beats as _content
from mover.config import AudioTowerConfig
from mover.errors import UserError
from mover.models.audio import AudioEncoder
from mover.models.beats import Beats, BeatsConfig


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


def test_an_official_file_has_250_tensors_of_which_12_are_one_table(path: Path) -> None:
    """The keys and the depth of the full size, narrow."""
    content = _content(layers=12)
    with torch.device("meta"):
        full = Beats(BeatsConfig())
    assert content["model"].keys() == full.state_dict().keys()
    assert len(content["model"]) == 250
    torch.save(content, path)
    encoder = _load(path)
    assert all(torch.equal(value, content["model"][key]) for key, value in encoder.beats.state_dict().items())
    assert len(list(encoder.parameters())) == len(list(full.parameters())) == 250 - 11


def test_half_precision_files_are_read_as_float32(path: Path) -> None:
    content = _content()
    content["model"] = {key: value.half() for key, value in content["model"].items()}
    torch.save(content, path)
    state = _load(path).beats.state_dict()
    assert all(torch.equal(value, content["model"][key].float()) for key, value in state.items())


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
