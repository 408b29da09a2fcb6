"""The form of a checkpoint, told without loading it: the right kinds pass, everything else names the remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import RobertaConfig, RobertaModel, ViTConfig, ViTModel

from cases.checkpoints import official_beats
from mover.errors import UserError
from mover.models.forms import check_audio_form, check_image_form, check_text_form

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 24}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


@pytest.fixture
def roberta(tmp_path: Path) -> Path:
    sizes = {**SMALL, "vocab_size": 270, "max_position_embeddings": 22, "type_vocab_size": 1}
    RobertaModel(RobertaConfig(**sizes), add_pooling_layer=False).save_pretrained(tmp_path / "roberta")
    return tmp_path / "roberta"


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    folder = tmp_path / "vit"
    ViTModel(ViTConfig(**SMALL, image_size=32, patch_size=8), add_pooling_layer=False).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return folder


@pytest.fixture
def beats(tmp_path: Path) -> Path:
    torch.save(official_beats(), tmp_path / "beats.pt")
    return tmp_path / "beats.pt"


def cut(path: Path, share: float = 0.9) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])


def test_the_right_kinds(roberta: Path, vit: Path, beats: Path) -> None:
    assert f"{roberta}: RoBERTa, 270 tokens" in check_text_form(roberta, 270)
    assert check_text_form(roberta, None) == check_text_form(roberta, 270)
    assert f"{vit}: ViT, images of 32 x 32" in check_image_form(vit)
    assert f"{beats}: BEATs" in check_audio_form(beats)


def test_no_weights_are_read(beats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: read.append(load(*args, **options)) or read[-1])
    check_audio_form(beats)
    assert read and all(tensor.is_meta for tensor in read[0]["model"].values())


def test_a_tokenizer_of_another_size(roberta: Path) -> None:
    with pytest.raises(UserError, match=r"trained with 270 tokens .* has 999 and 1\. Set data\.tokenizer"):
        check_text_form(roberta, 999)


@pytest.mark.parametrize("check", [check_image_form, lambda path: check_text_form(path, None)])
def test_folders_of_another_kind(check: Callable[[Path], str], roberta: Path, vit: Path, tmp_path: Path) -> None:
    other = roberta if check is check_image_form else vit
    with pytest.raises(UserError, match="describes a model of type '(roberta|vit)', but this tower needs"):
        check(other)
    with pytest.raises(UserError, match="is not a folder"):
        check(tmp_path / "absent")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        check(tmp_path)


def test_folders_cut_short(roberta: Path, vit: Path) -> None:
    cut(roberta / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.text\.checkpoint: .*model\.safetensors is cut short or damaged"):
        check_text_form(roberta, None)
    (vit / "model.safetensors").write_text(POINTER)
    with pytest.raises(UserError, match="is a pointer of git-lfs"):
        check_image_form(vit)
    (vit / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        check_image_form(vit)
    (vit / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "part-1.safetensors"}}))
    with pytest.raises(UserError, match="not one file of weights"):
        check_image_form(vit)
    (vit / "preprocessor_config.json").unlink()
    with pytest.raises(
        UserError, match=r"model\.others\.chart\.checkpoint: .*preprocessor_config\.json cannot be read"
    ):
        check_image_form(vit, "model.others.chart.checkpoint")


def test_beats_files(beats: Path, roberta: Path, tmp_path: Path) -> None:
    for wrong, sentence in ((tmp_path / "absent.pt", "there is no file"), (roberta, "there is no file")):
        with pytest.raises(UserError, match=rf"model\.audio\.checkpoint: .*{sentence}"):
            check_audio_form(wrong)
    content = official_beats()
    content["cfg"]["encoder_layers"] = 0
    torch.save(content, tmp_path / "sizes.pt")
    with pytest.raises(UserError, match=r"sizes\.pt: cfg\.encoder_layers must be a positive integer"):
        check_audio_form(tmp_path / "sizes.pt")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="is no official BEATs checkpoint"):
        check_audio_form(tmp_path / "other.pt")
    cut(beats)
    with pytest.raises(UserError, match="incomplete, damaged"):
        check_audio_form(beats)
    beats.write_text("<html>")
    with pytest.raises(UserError, match="is a web page"):
        check_audio_form(beats)
