"""`mover weights`: what it says of each kind of file and folder, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    RobertaConfig,
    RobertaForMaskedLM,
    ViTConfig,
    ViTForImageClassification,
)

from cases.checkpoints import official_beats
from mover.cli import main
from mover.config import AudioTowerConfig, TextTowerConfig, VideoTowerConfig
from mover.data.tokenizer import Tokenizer
from mover.models import AudioEncoder, TextEncoder, VideoEncoder

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 24}


@pytest.fixture
def beats(tmp_path: Path) -> Path:
    path = tmp_path / "BEATs small.pt"
    torch.save(official_beats(), path)
    return path


@pytest.fixture
def roberta(tmp_path: Path) -> Path:
    folder = tmp_path / "roberta-small"
    tokenizer = Tokenizer.train(["a red circle"], 20, 270)
    sizes = {**SMALL, "vocab_size": tokenizer.vocab_size, "max_position_embeddings": 22, "type_vocab_size": 1}
    RobertaForMaskedLM(RobertaConfig(**sizes)).save_pretrained(folder)
    tokenizer.save(folder / "tokenizer.json")
    return folder


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    folder = tmp_path / "vit-small"
    ViTForImageClassification(ViTConfig(**SMALL, image_size=32, patch_size=8)).save_pretrained(folder)
    content = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25], "size": 32}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, str]]]:
    """Runs the command on one path: exit code, and label to text."""

    def tell(path: Path) -> tuple[int, dict[str, str]]:
        capsys.readouterr()
        code = main(["weights", str(path)])
        first, *lines = capsys.readouterr().out.splitlines()
        assert first == str(path)
        assert all(line.startswith("  ") for line in lines)
        return code, {line[2:13].strip(): line[13:] for line in lines}

    return tell


Tell = Callable[..., tuple[int, dict[str, str]]]


def count(module: torch.nn.Module) -> str:
    sizes = [p.numel() for p in module.parameters()]
    return f"{sum(sizes):,} in {len(sizes)} tensors of the tower"


def test_beats(beats: Path, tell: Tell) -> None:
    code, facts = tell(beats)
    assert code == 0
    assert facts["what"] == "BEATs, an audio encoder: an official file"
    assert facts["size"].startswith("2 layers, width 32, 4 heads, 24 in the feed-forward, patches of 16, 320 buckets")
    assert facts["tensors"] == "50 of float32; 2 are copies of one table"
    assert facts["parameters"] == count(AudioEncoder(AudioTowerConfig(checkpoint=beats), 16000))
    assert facts["reads"].startswith("16 kHz mono; 128 log-mel bands from 20 to 8000 Hz, 25 ms every 10 ms")
    assert facts["loads"] == f"yes, into the audio tower: --model.audio.checkpoint {beats}"


def test_a_fine_tuned_beats_in_half_precision(beats: Path, tell: Tell) -> None:
    content = official_beats()
    content["model"] = {key: value.half() for key, value in content["model"].items()}
    content["model"] |= {"predictor.weight": torch.zeros(5, 32), "predictor.bias": torch.zeros(5)}
    torch.save(content, beats)
    code, facts = tell(beats)
    assert (code, facts["what"]) == (0, "BEATs, an audio encoder, fine-tuned: an official file")
    assert facts["tensors"].startswith("52 of float16 and float32, read as float32")
    assert facts["tensors"].endswith("; 2 of the classifier are left out")


def test_roberta(roberta: Path, tell: Tell) -> None:
    code, facts = tell(roberta)
    tokens = json.loads((roberta / "config.json").read_text())["vocab_size"]
    assert code == 0
    assert facts["what"] == "RoBERTa, a text encoder"
    assert facts["size"].endswith(f"{tokens} tokens, 22 positions")
    assert facts["tensors"] == f"{len(load_file(roberta / 'model.safetensors'))} of float32"
    assert facts["parameters"] == count(TextEncoder(TextTowerConfig(checkpoint=roberta), tokens, 10))
    assert facts["tokenizer"] == f"--data.tokenizer {roberta / 'tokenizer.json'}: {tokens} tokens"
    assert facts["loads"] == f"yes, into the text tower: --model.text.checkpoint {roberta}"


def test_the_tokenizer_of_another_model_or_none(roberta: Path, tell: Tell) -> None:
    Tokenizer.train(["a red circle and a blue square"], 20, 266).save(roberta / "tokenizer.json")
    code, facts = tell(roberta)
    assert (code, "does not fit the" in facts["tokenizer"]) == (0, True)
    (roberta / "tokenizer.json").write_text("{}")
    assert "an unknown number of tokens" in tell(roberta)[1]["tokenizer"]
    (roberta / "tokenizer.json").unlink()
    assert tell(roberta)[1]["tokenizer"].startswith("none here")


def test_vit_in_one_file_in_parts_and_as_pickle(vit: Path, tell: Tell) -> None:
    code, facts = tell(vit)
    assert code == 0
    assert facts["what"] == "ViT, an image encoder, applied to each frame"
    assert facts["size"].endswith("patches of 8, images of 32 x 32")
    assert "mean 0.4 0.5 0.6, deviation 0.2 0.3 0.25" in facts["reads"]
    assert facts["parameters"] == count(VideoEncoder(VideoTowerConfig(checkpoint=vit), 32, 1))
    assert facts["loads"] == f"yes, into the video tower: --model.video.checkpoint {vit}"

    tensors = load_file(vit / "model.safetensors")
    (vit / "model.safetensors").unlink()
    torch.save(tensors, vit / "pytorch_model.bin")
    assert tell(vit) == (0, {**facts, "bytes": tell(vit)[1]["bytes"]})
    (vit / "pytorch_model.bin").unlink()
    parts = {"a.safetensors": {}, "b.safetensors": {}}
    for i, (key, value) in enumerate(tensors.items()):
        parts["ab"[i % 2] + ".safetensors"][key] = value
    for name, part in parts.items():
        save_file(part, vit / name, metadata={"format": "pt"})
    where = {key: name for name, part in parts.items() for key in part}
    (vit / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    code, again = tell(vit)
    assert again.pop("bytes").endswith("in a.safetensors, b.safetensors")
    assert (code, again) == (0, {key: value for key, value in facts.items() if key != "bytes"})


def test_missing_keys_are_named(roberta: Path, vit: Path, beats: Path, tell: Tell) -> None:
    for folder, key in ((roberta, "encoder.layer.1.output.dense.bias"), (vit, "layernorm.bias")):
        file = folder / "model.safetensors"
        tensors = load_file(file)
        save_file({k: v for k, v in tensors.items() if not k.endswith(key)}, file, metadata={"format": "pt"})
        code, facts = tell(folder)
        assert code == 1
        assert facts["loads"].startswith("no. model.") and key.split(".")[-2] in facts["loads"]
        assert "Give a checkpoint of this architecture" in facts["loads"]
    content = official_beats()
    del content["model"]["layer_norm.bias"]
    torch.save(content, beats)
    code, facts = tell(beats)
    assert (code, "lacks layer_norm.bias" in facts["loads"]) == (1, True)
    assert "parameters" not in facts


@pytest.mark.parametrize("share", [0.3, 0.98])
def test_truncated(beats: Path, vit: Path, tell: Tell, share: float) -> None:
    for path, file in ((beats, beats), (vit, vit / "model.safetensors")):
        whole = file.read_bytes()
        file.write_bytes(whole[: int(share * len(whole))])
        code, facts = tell(path)
        assert code == 1
        assert "damaged" in facts["loads"] and "ownload it again" in facts["loads"]


def test_what_is_not_weights(tmp_path: Path, roberta: Path, vit: Path, tell: Tell) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    files: dict[str, tuple[Any, str]] = {
        "empty.pt": ("", "is empty"),
        "page.pt": ("<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        "pointer.pt": (pointer, "git lfs pull"),
        "notes.txt": ("my notes\n", "of another kind"),
        "list.pt": ([1, 2], "A BEATs file has 'cfg' and 'model'"),
        "state.pt": ({"conv.weight": torch.zeros(2)}, "A BEATs file has 'cfg' and 'model'"),
        "tokenizer.pt": ({"cfg": {}, "model": {"quantize.codebook": torch.zeros(2)}}, "It is not the encoder"),
    }
    for name, (content, sentence) in files.items():
        path = tmp_path / name
        path.write_text(content) if isinstance(content, str) else torch.save(content, path)
        code, facts = tell(path)
        assert (code, sentence in facts["loads"]) == (1, True), facts
    assert "conv.weight" in tell(tmp_path / "state.pt")[1]["what"]
    (vit / "model.safetensors").write_text(pointer)
    assert "git lfs pull" in tell(vit)[1]["loads"]
    (vit / "model.safetensors").unlink()
    assert "holds no weights" in tell(vit)[1]["loads"]
    assert f"give the folder, {roberta}." in tell(roberta / "model.safetensors")[1]["loads"]


def test_folders_that_are_not_for_a_tower(tmp_path: Path, roberta: Path, tell: Tell) -> None:
    code, facts = tell(tmp_path)
    assert (code, facts["loads"]) == (1, f"no. It is no checkpoint folder. Try {roberta}.")
    other = tmp_path / "bert"
    other.mkdir()
    assert tell(other)[1]["loads"].endswith("Give a checkpoint's own folder.")
    BertConfig().save_pretrained(other)
    code, facts = tell(other)
    assert (code, facts["what"]) == (1, "a checkpoint of type 'bert'")
    assert "roberta and vit" in facts["loads"]
    (other / "config.json").write_text("{")
    assert "not valid JSON" in tell(other)[1]["loads"]
    ours = tmp_path / "run" / "checkpoints" / "best"
    ours.mkdir(parents=True)
    for name in ("config.yaml", "model.safetensors"):
        (ours / name).touch()
    code, facts = tell(ours)
    assert (code, f"mover evaluate --checkpoint {ours}" in facts["loads"]) == (1, True)


def test_several_paths_and_none(beats: Path, roberta: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", str(beats), str(roberta)]) == 0
    assert main(["weights", str(beats), str(roberta.parent)]) == 1
    capsys.readouterr()
    assert main(["weights", str(beats.with_name("gone.pt"))]) == 2
    assert "there is nothing at" in capsys.readouterr().err
    assert main(["weights"]) == 2
