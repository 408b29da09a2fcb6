"""Weights from local checkpoints: all of them or an error.

Nothing is downloaded. A checkpoint that is absent, damaged, of another architecture, or that leaves a parameter at
its random start raises UserError with the file, the keys and the remedy.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from mover.errors import UserError
from mover.models.beats import claimed_sizes

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# What a checkpoint may hold beyond the tower: the pooler, heads of other tasks, and constants old versions stored.
_OTHER_PARTS = re.compile(r"(^|\.)(pooler|lm_head|classifier|cls|decoder|mask_token|position_ids|token_type_ids)(\.|$)")
_LFS_POINTER = b"version https://git-lfs"
_CODE = re.compile(r"auto_map|quantization_config|kernel|attn_implementation|experts_implementation|adapter|custom_")
"""Settings of a `config.json` that have transformers import code, or fetch it; none of them says what a tower is."""
_LONGEST_JSON = 100_000_000
_MOST_LAYERS = 1000
PREPROCESSOR = "preprocessor_config.json"
_KEYS_SHOWN = 5


Claim = tuple[int, int]
"""Layers, and the number of parameters that the network has at least."""

_Config = TypeVar("_Config", bound="PretrainedConfig")
_Model = TypeVar("_Model", bound="PreTrainedModel")


def read_folder_config(config_class: type[_Config], folder: Path, field: str) -> _Config:
    """The configuration in a transformers checkpoint folder.

    Args:
        config_class: what `config.json` must describe, such as `RobertaConfig`.
        folder: the checkpoint's folder.
        field: the setting that names the folder, for the messages.

    Raises:
        UserError: no such folder, no or unreadable `config.json`, no weights, another type of model, a wrong value.
    """
    content = read_folder(config_class.model_type, folder, field)
    require_sizes(folder / "config.json", field, _claimed(content), weight_files(folder))
    try:
        return config_class.from_dict(without_code(content))
    except Exception as error:  # the library checks each value, with exceptions of its own
        raise UserError(
            f"{field}: {folder / 'config.json'} is no valid configuration: {' '.join(str(error).split())} "
            "Download the checkpoint again."
        ) from error


def read_folder(model_type: str, folder: Path, field: str) -> dict[str, Any]:
    """The `config.json` of a checkpoint folder of this type of model, with weights beside it; needs no transformers.

    Raises:
        UserError: no such folder, no or unreadable `config.json`, no weights, another type of model.
    """
    if not folder.is_dir():
        raise UserError(
            f"{field}: expected a folder with config.json and model.safetensors, but {folder} is not a folder. "
            "Give the folder of a downloaded checkpoint; nothing is downloaded for you."
        )
    path = folder / "config.json"
    content = read_json(path, field)
    if content.get("model_type") != model_type:
        raise UserError(
            f"{field}: {path} describes a model of type {content.get('model_type')!r}, "
            f"but this tower needs {model_type!r}. Give the folder of a {model_type} checkpoint."
        )
    if not any((folder / name).is_file() for name in _WEIGHT_FILES):
        raise UserError(
            f"{field}: {folder} holds no weights; expected one of {', '.join(_WEIGHT_FILES)}. "
            "Download the checkpoint's weight file into that folder."
        )
    return content


def without_code(content: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a network without settings that name code."""
    return {key: value for key, value in content.items() if not _CODE.search(key)}


def _claimed(content: Mapping[str, Any]) -> Claim:
    """What a `config.json` of RoBERTa or ViT asks for at least."""

    def size(key: str, default: int) -> int:
        value = content.get(key, default)
        return value if isinstance(value, int) and value > 0 else 0  # what is none is refused with the configuration

    width, layers = size("hidden_size", 768), size("num_hidden_layers", 12)
    rows = size("vocab_size", 0) + size("max_position_embeddings", 0) + size("type_vocab_size", 0)
    patch = size("patch_size", 0)
    pixels = 3 * patch**2 + ((size("image_size", 0) // patch) ** 2 if patch else 0)
    inside = 4 * width + 2 * size("intermediate_size", 3072)
    return layers, width * (layers * inside + rows + pixels)


def require_sizes(path: Path, field: str, claim: Claim, files: Iterable[Path]) -> None:
    """Raise UserError where a configuration claims more parameters than its weight files have bytes: to make room for
    them could take all memory there is."""
    layers, parameters = claim
    there = sum(file.stat().st_size for file in files)
    if layers > _MOST_LAYERS or 0 < there < parameters:  # an empty file is told by its reader
        raise UserError(
            f"{field}: {path} claims {layers} layers and at least {parameters} parameters, which {there} bytes of "
            "weights cannot hold. Download the checkpoint again."
        )


def set_dropout(config: PretrainedConfig, rate: float) -> None:
    """Of the hidden states and the attention."""
    config.hidden_dropout_prob = rate
    config.attention_probs_dropout_prob = rate


def read_json(path: Path, field: str) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint; UserError if it is absent or not a JSON object."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_LONGEST_JSON + 1)
        if len(text) > _LONGEST_JSON:
            raise ValueError(f"more than {_LONGEST_JSON} characters")
        content = json.loads(text)
    except OSError as error:
        raise UserError(
            f"{field}: {path} cannot be read ({error.strerror or error}). Download the checkpoint completely."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{field}: {path} is not valid JSON ({error}). Download the checkpoint again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{field}: {path} must hold a JSON object. Download the checkpoint again.")
    return content


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights of a checkpoint folder, of several parts or one; none where there are none."""
    name = next((name for name in _WEIGHT_FILES if (folder / name).is_file()), None)
    if name is None:
        return []
    if not name.endswith(".index.json"):
        return [folder / name]
    parts = read_json(folder / name, str(folder)).get("weight_map")
    names = sorted({str(part) for part in parts.values()}) if isinstance(parts, dict) else []
    for part in names:
        if part != Path(part).name or "\0" in part:
            raise UserError(f"{folder / name}: its part '{part:.80}' lies outside of the folder. Download it again.")
    return [folder / part for part in names if (folder / part).is_file()]


def not_the_file_itself(path: Path) -> str:
    """The sentence about a file that stands in for the one that was meant, or ''."""
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        return f"{path} is empty. It is incomplete or damaged: download it again."
    if head.startswith(_LFS_POINTER):
        return f"{path} is a pointer of git-lfs, not the weights. Run git lfs pull in its repository."
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return f"{path} is a web page, not the weights: the link wanted a browser. Download the file behind it."
    return ""


def require_stored(path: Path, field: str) -> None:
    """Raise UserError for a file of torch with compressed parts, which torch never writes: a small one may unpack to
    more than any memory. What is no archive of torch is left to its reader."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return
    if packed:
        raise UserError(f"{field}: {path} holds compressed tensors, as torch writes none. Download it from its source.")


def load_folder(model_class: type[_Model], config: PretrainedConfig, folder: Path, field: str) -> _Model:
    """A transformers model without pooler, float32, in training mode, with every parameter from the folder.

    Raises:
        UserError: unreadable weights; keys missing, unexpected or of another shape, poolers and heads aside.
    """
    for file in weight_files(folder):
        if file.suffix == ".bin":
            require_stored(file, field)
    try:
        with _quiet_transformers():
            loaded: Any = model_class.from_pretrained(
                folder,
                config=config,
                add_pooling_layer=False,
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
                dtype=torch.float32,
                attn_implementation="sdpa",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, with every key, instead of at the first
            )
    except Exception as error:  # whatever a reader raises on a damaged file, the file is at fault
        raise UserError(
            f"{field}: the weights in {folder} cannot be read ({type(error).__name__}: {_first_line(error)}). "
            "The file is incomplete or damaged: download it again."
        ) from error
    model, info = loaded
    mismatched = [f"{key} (file {tuple(file)}, model {tuple(own)})" for key, file, own in info["mismatched_keys"]]
    complain_about_keys(
        folder,
        field,
        missing=(key for key in info["missing_keys"] if not _OTHER_PARTS.search(key)),
        unexpected=(key for key in info["unexpected_keys"] if not _OTHER_PARTS.search(key)),
        mismatched=mismatched,
    )
    return model.train()


def complain_about_keys(
    path: Path, field: str, missing: Iterable[str], unexpected: Iterable[str], mismatched: Iterable[str]
) -> None:
    """Raise UserError, listing the keys, if any of the three is not empty."""
    kinds = {
        "lacks": sorted(missing),
        "has unknown": sorted(unexpected),
        "has of another shape": sorted(mismatched),
    }
    complaints = [f"{verb} {_shown(keys)}" for verb, keys in kinds.items() if keys]
    if complaints:
        raise UserError(
            f"{field}: {path} does not fit the model: it {'; it '.join(complaints)}. "
            "Give a checkpoint of this architecture, complete and unmodified."
        )


def read_beats_file(path: Path, field: str, values: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors of an official BEATs `.pt` file, read without running code from it.

    values: False gives tensors of the device "meta" and does not read the weights, so it takes no time.

    Raises:
        UserError: no such file; damaged; not a dictionary with `cfg` and `model`.
    """
    if not path.is_file():
        raise UserError(
            f"{field}: expected an official BEATs .pt file, but there is no file {path}. "
            "Give the path of a downloaded checkpoint; nothing is downloaded for you."
        )
    require_stored(path, field)
    try:
        content = torch.load(path, map_location="cpu" if values else "meta", weights_only=True)
    except Exception as error:  # whatever the reader raises on a damaged file, the file is at fault
        raise UserError(
            f"{field}: {path} cannot be read ({type(error).__name__}: {_first_line(error)}). "
            "It is incomplete, damaged, or holds more than tensors and plain values: download it again."
        ) from error
    for key in ("cfg", "model"):
        if not isinstance(content, dict) or not isinstance(content.get(key), dict):
            found = (
                f"the keys {_shown(sorted(map(str, content)))}" if isinstance(content, dict) else type(content).__name__
            )
            raise UserError(
                f"{field}: {path} is no official BEATs checkpoint: expected a dictionary with 'cfg' and 'model', "
                f"but found no '{key}' in it, only {found}. Give an official BEATs .pt file."
            )
    strangers = [str(key) for key, value in content["model"].items() if not isinstance(value, Tensor)]
    if strangers:
        raise UserError(f"{field}: in {path}, 'model' holds values that are no tensors: {_shown(strangers)}.")
    require_sizes(path, field, claimed_sizes(content["cfg"]), [path])
    return content["cfg"], content["model"]


def _shown(keys: list[str]) -> str:
    more = f" and {len(keys) - _KEYS_SHOWN} more" if len(keys) > _KEYS_SHOWN else ""
    return ", ".join(keys[:_KEYS_SHOWN]) + more


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without the library's report of unused keys and its progress bar; both are put back afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
