"""RoBERTa and ViT folders as transformers writes them: loaded whole, or refused with folder, keys and remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import RobertaConfig, RobertaForMaskedLM, RobertaModel, ViTConfig, ViTForImageClassification, ViTModel
from transformers.utils import logging

from mover.config import TextTowerConfig, VideoTowerConfig
from mover.errors import UserError
from mover.models.text import TextEncoder
from mover.models.video import VideoEncoder

VOCABULARY = 60
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


def _roberta_config() -> RobertaConfig:
    return RobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=24,
        max_position_embeddings=22,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )


def _vit_config() -> ViTConfig:
    return ViTConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=24, image_size=32, patch_size=8
    )


@pytest.fixture
def roberta_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "roberta small"
    RobertaModel(_roberta_config(), add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture
def vit_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "vit small"
    ViTModel(_vit_config(), add_pooling_layer=False).save_pretrained(folder)
    _write_preprocessor(folder)
    return folder


def _write_preprocessor(folder: Path, **changes: object) -> None:
    content = {"image_mean": MEAN, "image_std": STD, "size": 32, **changes}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))


def _text(folder: Path, vocabulary: int = VOCABULARY, tokens: int = 20) -> TextEncoder:
    return TextEncoder(TextTowerConfig(checkpoint=folder, dropout=0.0), vocabulary, tokens)


def _video(folder: Path, image_size: int = 32) -> VideoEncoder:
    return VideoEncoder(VideoTowerConfig(checkpoint=folder, temporal_layers=1), image_size, 4)


def _rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


VIT_NAMES = [
    (r"^encoder\.layer\.", "layers."),
    (r"attention\.attention\.(query|key|value)", r"attention.\1"),
    (r"attention\.query", "attention.q_proj"),
    (r"attention\.key", "attention.k_proj"),
    (r"attention\.value", "attention.v_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"(?<!attention\.)output\.dense", "mlp.fc2"),
]


def _current_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A ViT's tensors under the names of today's class instead of those of published files."""
    renamed = {}
    for key, value in tensors.items():
        for pattern, name in VIT_NAMES:
            key = re.sub(pattern, name, key)
        renamed[key] = value
    return renamed


def _same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_roberta_loads_whole(roberta_folder: Path) -> None:
    encoder = _text(roberta_folder)
    assert _same(encoder.roberta.state_dict(), load_file(roberta_folder / "model.safetensors"))
    assert encoder.width == 16
    assert all(module.training for module in encoder.modules())
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    ids = torch.tensor([[0, 7, 9, 2, 1, 1], [0, 5, 6, 7, 8, 2]])
    mask = (ids != 1).long()
    theirs = RobertaModel.from_pretrained(roberta_folder, add_pooling_layer=False, local_files_only=True).eval()
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        torch.testing.assert_close(encoder.eval()(ids, mask), expected)


def test_vit_loads_whole_with_its_mean_and_deviation(vit_folder: Path) -> None:
    encoder = _video(vit_folder)
    assert _same(encoder.vit.state_dict(), _current_names(load_file(vit_folder / "model.safetensors")))
    assert all(module.training for module in encoder.modules())
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = (images / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(encoder.normalise(images), expected)
    assert _video(vit_folder, image_size=48)(torch.zeros(2, 4, 3, 48, 48, dtype=torch.uint8)).shape == (2, 16)


def test_checkpoints_with_heads_load_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    verbosity = logging.get_verbosity()
    RobertaForMaskedLM(_roberta_config()).save_pretrained(tmp_path / "roberta")
    ViTForImageClassification(_vit_config()).save_pretrained(tmp_path / "vit")
    _write_preprocessor(tmp_path / "vit")
    capfd.readouterr()
    text, video = _text(tmp_path / "roberta"), _video(tmp_path / "vit")
    assert capfd.readouterr() == ("", "")
    assert logging.get_verbosity() == verbosity
    stored = load_file(tmp_path / "roberta" / "model.safetensors")
    assert torch.equal(
        text.roberta.embeddings.word_embeddings.weight, stored["roberta.embeddings.word_embeddings.weight"]
    )
    assert video.width == 16


def test_roberta_as_first_published(roberta_folder: Path) -> None:
    """A pickle with a prefix, the pooler, the head of masked tokens and the positions that old versions stored."""
    tensors = load_file(roberta_folder / "model.safetensors")
    (roberta_folder / "model.safetensors").unlink()
    published = {f"roberta.{key}": value for key, value in tensors.items()}
    published["roberta.embeddings.position_ids"] = torch.arange(22).unsqueeze(0)
    published["roberta.pooler.dense.weight"] = torch.zeros(16, 16)
    published["roberta.pooler.dense.bias"] = torch.zeros(16)
    for key, shape in (("dense.weight", (16, 16)), ("layer_norm.bias", (16,)), ("decoder.weight", (VOCABULARY, 16))):
        published[f"lm_head.{key}"] = torch.zeros(shape)
    torch.save(published, roberta_folder / "pytorch_model.bin")
    assert _same(_text(roberta_folder).roberta.state_dict(), tensors)
    del published["roberta.encoder.layer.2.output.dense.weight"]
    torch.save(published, roberta_folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"roberta small.*lacks encoder\.layer\.2\.output\.dense\.weight"):
        _text(roberta_folder)


def test_vit_loads_under_the_names_of_published_and_of_new_files(vit_folder: Path) -> None:
    published = {key: value.clone() for key, value in load_file(vit_folder / "model.safetensors").items()}
    assert "encoder.layer.2.attention.attention.query.weight" in published  # transformers still writes these names
    current = _current_names(published)

    def with_head(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        prefixed = {f"vit.{key}": value for key, value in tensors.items()}
        return {**prefixed, "classifier.weight": torch.zeros(3, 16), "classifier.bias": torch.zeros(3)}

    for tensors in (with_head(published), current, with_head(current)):
        _rewrite(vit_folder, lambda _, tensors=tensors: tensors)
        assert _same(_video(vit_folder).vit.state_dict(), current)


def _drop(key: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name: value for name, value in tensors.items() if name != key}


def _put(key: str, *shape: int) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {**tensors, key: torch.zeros(shape)}


def _prefix_all(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"backbone.{name}": value for name, value in tensors.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_drop("encoder.layer.1.output.dense.bias"), ["lacks encoder.layer.1.output.dense.bias"]),
        (_put("encoder.layer.3.output.dense.bias", 16), ["unknown encoder.layer.3.output.dense.bias"]),
        (_put("embeddings.LayerNorm.bias", 17), ["embeddings.LayerNorm.bias", "(17,)", "(16,)"]),
        (_prefix_all, ["lacks", "unknown backbone.embeddings", "more"]),
    ],
)
def test_roberta_keys_are_named(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], words: list[str], roberta_folder: Path
) -> None:
    _rewrite(roberta_folder, change)
    with pytest.raises(UserError) as error:
        _text(roberta_folder)
    for word in [str(roberta_folder), "model.text.checkpoint", *words]:
        assert word in str(error.value)


def test_vit_keys_are_named(vit_folder: Path) -> None:
    _rewrite(vit_folder, _drop("encoder.layer.2.intermediate.dense.weight"))
    with pytest.raises(UserError, match=r"model\.video\.checkpoint.*vit small.*lacks layers\.2\.mlp\.fc1\.weight"):
        _video(vit_folder)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_truncated_weights_are_refused(share: float, roberta_folder: Path, vit_folder: Path) -> None:
    for folder, load in ((roberta_folder, _text), (vit_folder, _video)):
        file = folder / "model.safetensors"
        whole = file.read_bytes()
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UserError, match=r"small cannot be read.*download it again"):
            load(folder)


def test_another_architecture_is_refused(roberta_folder: Path, vit_folder: Path) -> None:
    with pytest.raises(UserError, match=r"vit small.*'vit'.*needs 'roberta'"):
        _text(vit_folder)
    with pytest.raises(UserError, match=r"roberta small.*'roberta'.*needs 'vit'"):
        _video(roberta_folder)


def test_incomplete_folders_are_refused(roberta_folder: Path, vit_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"model\.text\.checkpoint.*roberta-base is not a folder.*nothing is downloaded"
    ):
        _text(tmp_path / "roberta-base")
    (vit_folder / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"preprocessor_config\.json cannot be read"):
        _video(vit_folder)
    (roberta_folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no weights.*model\.safetensors"):
        _text(roberta_folder)
    (roberta_folder / "config.json").write_text('{"model_type": ')
    with pytest.raises(UserError, match=r"config\.json is not valid JSON"):
        _text(roberta_folder)
    (roberta_folder / "config.json").write_text('{"model_type": "roberta", "hidden_size": "wide"}')
    (roberta_folder / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"config\.json.*hidden_size"):
        _text(roberta_folder)


@pytest.mark.parametrize("changes", [{"image_mean": None}, {"image_std": [0.5, 0.5]}, {"image_std": [0.5, 0, 0.5]}])
def test_mean_and_deviation_must_be_usable(changes: dict[str, object], vit_folder: Path) -> None:
    _write_preprocessor(vit_folder, **changes)
    with pytest.raises(
        UserError, match=f"{next(iter(changes))}.*preprocessor_config.json|preprocessor_config.json.*image"
    ):
        _video(vit_folder)


def test_tokenizer_and_length_must_fit_roberta(roberta_folder: Path) -> None:
    with pytest.raises(UserError, match=r"60 tokens.*tokenizer has 61.*data\.tokenizer"):
        _text(roberta_folder, vocabulary=61)
    with pytest.raises(UserError, match=r"at most 20 tokens.*data\.max_tokens is 21"):
        _text(roberta_folder, tokens=21)
