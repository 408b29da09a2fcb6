"""Whether a checkpoint has the form that its tower takes, found out without loading it, in milliseconds.

What only loading can tell, whether every parameter is there and fits, is left to loading and to `mover weights`.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from mover.errors import UserError
from mover.models.beats import BeatsConfig
from mover.models.pretrained import not_the_file_itself, read_beats_file, read_folder, weight_files
from mover.models.text import require_tokens
from mover.models.video import mean_and_std


def check_text_form(folder: Path, vocab_size: int | None, pad_id: int = 1) -> str:
    """What is in a folder of RoBERTa, in a few words.

    vocab_size, pad_id: of the tokenizer of the run; None: not known.
    Raises UserError: no folder of RoBERTa, weights that are absent, cut short or no weights, another tokenizer's.
    """
    content = read_folder("roberta", folder, "model.text.checkpoint")
    tokens = content.get("vocab_size", 50265)
    if vocab_size is not None:
        require_tokens(folder, tokens, content.get("pad_token_id", 1), vocab_size, pad_id)
    return f"{folder}: RoBERTa, {tokens} tokens, {_weights(folder, 'model.text.checkpoint')}"


def check_image_form(folder: Path, field: str = "model.video.checkpoint") -> str:
    """What is in a folder of ViT, in a few words. field: the setting that names it, for the messages.

    Raises UserError: no folder of ViT, weights that are absent, cut short or no weights, no mean and deviation.
    """
    content = read_folder("vit", folder, field)
    mean_and_std(folder, field)
    size = content.get("image_size", 224)
    return f"{folder}: ViT, images of {size} x {size}, {_weights(folder, field)}"


def check_audio_form(path: Path) -> str:
    """What an official BEATs file holds, in a few words.

    Raises UserError: no file, one that is cut short or of another kind, sizes that are not those of a BEATs encoder.
    """
    field = "model.audio.checkpoint"
    if path.is_file():
        problem = not_the_file_itself(path)
        if problem:
            raise UserError(f"{field}: {problem}")
    cfg, tensors = read_beats_file(path, field, values=False)
    try:
        config = BeatsConfig.from_official(cfg, 0.0)
    except UserError as error:
        raise UserError(f"{field}: {path}: {error}") from error
    return f"{path}: BEATs, {config.layers} layers, {len(tensors)} tensors, {_megabytes([path])}"


def _weights(folder: Path, field: str) -> str:
    files = weight_files(folder)
    if not files:
        raise UserError(f"{field}: not one file of weights that {folder} lists is there: download it completely.")
    for file in files:
        problem = not_the_file_itself(file)
        if problem:
            raise UserError(f"{field}: {problem}")
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, "pt"):
                    pass
            except (SafetensorError, OSError) as error:
                said = " ".join(str(error).split()).rstrip(".")
                raise UserError(f"{field}: {file} is cut short or damaged ({said}): download it again.") from None
    return _megabytes(files)


def _megabytes(files: list[Path]) -> str:
    return f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"
