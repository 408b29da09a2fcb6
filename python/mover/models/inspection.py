"""What a file or folder of weights is, and whether it loads into a tower. What `mover weights` tells."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mover.config import AudioTowerConfig, TextTowerConfig, VideoTowerConfig
from mover.errors import UserError
from mover.models.audio import AudioEncoder
from mover.models.filterbank import (
    FRAME_LENGTH,
    FRAME_SHIFT,
    HIGHEST_HZ,
    LOWEST_HZ,
    MEAN,
    MEL_BINS,
    SAMPLE_RATE,
    TWICE_STD,
)
from mover.models.pretrained import PREPROCESSOR, not_the_file_itself, read_json, require_stored, weight_files
from mover.models.text import TextEncoder
from mover.models.video import VideoEncoder

_TABLE = "relative_attention_bias.weight"


@dataclass
class Report:
    """facts: label to what is known. tower: the one it loads into, or None, and then `problem` says why not."""

    path: Path
    facts: dict[str, str] = field(default_factory=dict)
    tower: str | None = None
    problem: str = ""

    def load(self, tower: str, build: Callable[[], nn.Module]) -> Report:
        """Build a tower with these weights; note its parameters, or why it cannot be built."""
        try:
            module = build()
        except UserError as error:
            self.problem = str(error)
            return self
        sizes = [p.numel() for p in module.parameters()]
        self.facts["parameters"] = f"{sum(sizes):,} in {len(sizes)} tensors of the tower"
        self.tower = tower
        return self


def inspect(path: Path) -> Report:
    """Find out what lies at `path`; what seems to be an encoder's weights is loaded to see whether it does.

    Raises:
        UserError: there is nothing at `path`.
    """
    report = Report(path)
    if path.is_dir():
        return _folder(report)
    if not path.is_file():
        raise UserError(f"there is nothing at {path}: give a checkpoint's file or folder. Nothing is downloaded.")
    report.facts["bytes"] = _bytes([path])
    report.problem = not_the_file_itself(path)
    if report.problem:
        report.facts = {"what": "no weights", **report.facts}
        return report
    if path.suffix == ".safetensors" or path.name == "pytorch_model.bin":
        report.facts = {"what": "weights of a checkpoint that is a folder", **report.facts}
        report.problem = f"The sizes stand in config.json beside it: give the folder, {path.parent}."
        return report
    return _torch_file(report)


def _folder(report: Report) -> Report:
    path = report.path
    if (path / "config.yaml").is_file() and (path / "model.safetensors").is_file():
        report.facts["what"] = "a checkpoint of mover train: all towers and heads"
        report.problem = (
            f"It is not for one tower. Evaluate it with mover evaluate --checkpoint {path}, or go on training with "
            f"mover train --config {path.parent.parent / 'config.yaml'} --resume."
        )
        return report
    if not (path / "config.json").is_file():
        report.facts["what"] = "a folder without config.json"
        found = sorted([*path.glob("*/config.json"), *path.glob("*.pt")])
        near = ", ".join(str(p.parent if p.name == "config.json" else p) for p in found[:3])
        report.problem = "It is no checkpoint folder. " + (
            f"Try {near}." if near else "Give a checkpoint's own folder."
        )
        return report
    try:
        config = read_json(path / "config.json", "config")
    except UserError as error:
        report.facts["what"] = "a folder with a config.json that cannot be read"
        report.problem = str(error).removeprefix("config: ")
        return report
    kinds = {"roberta": _roberta, "vit": _vit}
    kind = config.get("model_type")
    if kind not in kinds:
        report.facts["what"] = f"a checkpoint of type {kind!r}"
        report.problem = f"No tower takes it; the towers take folders of type {' and '.join(kinds)}, and BEATs files."
        return report
    try:
        files = weight_files(path)
    except UserError as error:
        report.facts["what"] = f"a {kind} folder whose list of weights cannot be used"
        report.problem = str(error)
        return report
    bad = next((problem for problem in map(not_the_file_itself, files) if problem), "")
    if bad:
        report.facts["what"] = f"a {kind} folder without its weights"
        report.problem = bad
        return report
    return kinds[kind](report, config, files)


def _roberta(report: Report, config: Mapping[str, Any], files: list[Path]) -> Report:
    path, vocabulary = report.path, config.get("vocab_size", 50265)
    report.facts["what"] = "RoBERTa, a text encoder"
    report.facts["size"] = f"{_sizes(config)}, {vocabulary} tokens, {config.get('max_position_embeddings')} positions"
    _describe_files(report, files)
    tokenizer = path / "tokenizer.json"
    report.facts["tokenizer"] = f"none here; data.tokenizer needs one of {vocabulary} tokens"
    if tokenizer.is_file():
        tokens = _vocabulary(tokenizer)
        fits = "" if tokens == vocabulary else f", which does not fit the {vocabulary} of the model"
        report.facts["tokenizer"] = f"--data.tokenizer {tokenizer}: {tokens} tokens{fits}"
    report.facts["reads"] = "captions, <s> … </s>; the state of <s> is the caption's"
    pad = config.get("pad_token_id", 1)
    return report.load("text", lambda: TextEncoder(TextTowerConfig(checkpoint=path), vocabulary, 3, pad))


def _vit(report: Report, config: Mapping[str, Any], files: list[Path]) -> Report:
    path, image = report.path, config.get("image_size")
    report.facts["what"] = "ViT, an image encoder, applied to each frame"
    report.facts["size"] = f"{_sizes(config)}, patches of {config.get('patch_size')}, images of {image} x {image}"
    _describe_files(report, files)
    try:
        content = read_json(path / PREPROCESSOR, "")
        mean, std = (" ".join(map(str, content[key])) for key in ("image_mean", "image_std"))
        report.facts["reads"] = f"frames resized to {image} x {image}; mean {mean}, deviation {std} ({PREPROCESSOR})"
    except (UserError, KeyError, TypeError):
        report.facts["reads"] = f"unknown: {PREPROCESSOR} does not give mean and deviation"
    return report.load("video", lambda: VideoEncoder(VideoTowerConfig(checkpoint=path), 224, 1))


def _torch_file(report: Report) -> Report:
    path = report.path
    try:
        require_stored(path, "weights")
    except UserError as error:
        report.facts = {"what": "no weights that torch has written", **report.facts}
        report.problem = str(error).removeprefix("weights: ")
        return report
    try:
        content = torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:  # whatever the reader raises on a damaged file, the file is at fault
        said = " ".join(str(error).split()).split(". ")[0].rstrip(".")[:120] or "no message"
        report.facts = {"what": "no weights that torch can read", **report.facts}
        report.problem = (
            f"Reading it ends with {type(error).__name__} ({said}). It is incomplete or damaged, holds code, or "
            "is of another kind: download it again, or give a BEATs .pt file or a checkpoint's folder."
        )
        return report
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not isinstance(content.get("cfg"), dict):
        keys = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        report.facts = {"what": f"a file of torch, with {keys or 'nothing'}", **report.facts}
        report.problem = "A BEATs file has 'cfg' and 'model'; RoBERTa and ViT come as folders with config.json."
        return report
    tensors = {key: value for key, value in model.items() if isinstance(value, Tensor)}
    if any(key.startswith("quantize.") for key in tensors):
        report.facts = {"what": "a BEATs tokenizer, which makes the labels of BEATs' pre-training", **report.facts}
        report.problem = "It is not the encoder: give a file such as BEATs_iter3_plus_AS2M.pt."
        return report
    return _beats(report, content["cfg"], tensors)


def _beats(report: Report, cfg: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Report:
    path, predictor = report.path, sum(key.startswith("predictor") for key in tensors)
    tables = sum(key.endswith(_TABLE) for key in tensors)
    names = {
        "num_hidden_layers": "encoder_layers",
        "hidden_size": "encoder_embed_dim",
        "num_attention_heads": "encoder_attention_heads",
        "intermediate_size": "encoder_ffn_embed_dim",
    }
    sizes = _sizes({ours: cfg.get(theirs) for ours, theirs in names.items()})
    patch = cfg.get("input_patch_size")
    report.facts = {
        "what": f"BEATs, an audio encoder{', fine-tuned' if predictor else ''}: an official file",
        "size": f"{sizes}, patches of {patch}, {cfg.get('num_buckets')} buckets of distance",
        **report.facts,
    }
    _describe_tensors(report, tensors)
    report.facts["tensors"] += f"; {tables} are copies of one table" if tables > 1 else ""
    report.facts["tensors"] += f"; {predictor} of the classifier are left out" if predictor else ""
    report.facts["reads"] = (
        f"{SAMPLE_RATE // 1000} kHz mono; {MEL_BINS} log-mel bands from {LOWEST_HZ:g} to {HIGHEST_HZ:g} Hz, "
        f"{1000 * FRAME_LENGTH // SAMPLE_RATE} ms every {1000 * FRAME_SHIFT // SAMPLE_RATE} ms, less {MEAN}, "
        f"over {TWICE_STD}"
    )
    return report.load("audio", lambda: AudioEncoder(AudioTowerConfig(checkpoint=path), SAMPLE_RATE))


def _sizes(config: Mapping[str, Any]) -> str:
    layers, width, heads, inside = (
        config.get(key) for key in ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    )
    return f"{layers} layers, width {width}, {heads} heads, {inside} in the feed-forward"


def _describe_files(report: Report, files: list[Path]) -> None:
    report.facts["bytes"] = f"{_bytes(files)} in {', '.join(p.name for p in files)}" if files else "no weight file"
    tensors: dict[str, Tensor] = {}
    try:
        for file in files:
            tensors |= _shapes(file)
    except Exception:  # loading says what is wrong, for the user
        report.facts["tensors"] = "cannot be read"
        return
    _describe_tensors(report, tensors)


def _describe_tensors(report: Report, tensors: Mapping[str, Tensor]) -> None:
    kinds = sorted({str(value.dtype).removeprefix("torch.") for value in tensors.values()})
    other = "" if kinds == ["float32"] else ", read as float32"
    report.facts["tensors"] = f"{len(tensors)} of {' and '.join(kinds) or 'no type'}{other}"


def _shapes(file: Path) -> dict[str, Tensor]:
    """The tensors of a weight file without their values."""
    if file.suffix != ".safetensors":
        require_stored(file, "weights")
        return dict(torch.load(file, map_location="meta", weights_only=True))
    from safetensors import safe_open

    with safe_open(file, "pt") as content:
        return {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 - no mapping


def _vocabulary(path: Path) -> int | str:
    """Rows an embedding of this tokenizer needs."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        ids = [*content["model"]["vocab"].values(), *(token["id"] for token in content["added_tokens"])]
        return int(max(ids)) + 1
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return "an unknown number of"


def _bytes(paths: Iterable[Path]) -> str:
    count = sum(path.stat().st_size for path in paths)
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count:,}"
