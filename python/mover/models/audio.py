"""BEATs over a waveform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mover.config import AudioTowerConfig, TowerConfig
from mover.errors import UserError
from mover.models.beats import Beats, BeatsConfig, GatedAttention
from mover.models.filterbank import SAMPLE_RATE, FilterBank, frame_counts, pad_to_frames
from mover.models.pretrained import complain_about_keys, read_beats_file
from mover.models.tower import Tower

_FIELD = "model.audio.checkpoint"
_TABLE = "self_attn.relative_attention_bias.weight"


class AudioEncoder(Tower):
    """Waveforms to vectors: filter bank, BEATs, mean over the tokens of sound.

    Args:
        config: sizes, or an official BEATs `.pt` file, whose `cfg` then gives the sizes.
        sample_rate: of the waveforms that will come; BEATs hears 16 kHz only.
        built: `architecture()` of the tower to build again; its weights are to come, no checkpoint is read.

    Raises:
        UserError: another sample rate, sizes that do not fit, or a checkpoint that does not load completely.
    """

    def __init__(self, config: AudioTowerConfig, sample_rate: int, built: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if sample_rate != SAMPLE_RATE:
            raise UserError(
                f"data.sample_rate: the audio tower (BEATs) hears {SAMPLE_RATE} samples per second, got {sample_rate}. "
                f"Set data.sample_rate to {SAMPLE_RATE}; audio is resampled when it is decoded."
            )
        self.filterbank = FilterBank()
        if built is not None:
            self.beats = Beats(BeatsConfig(**built, dropout=config.dropout))
        elif config.checkpoint is None:
            sizes = config.model_dump(exclude={"checkpoint", *TowerConfig.model_fields})
            self.beats = Beats(BeatsConfig(**sizes))
        else:
            self.beats = load_beats(config.checkpoint, config.dropout)
        self.width: int = self.beats.config.hidden_size
        self.set_up("model.audio", config, self.beats, self.beats.encoder.layers)
        for module in self.beats.modules():
            if isinstance(module, GatedAttention):
                module.attention = config.attention

    def forward(self, waveform: Tensor, length: Tensor) -> Tensor:
        """Encode waveforms.

        Args:
            waveform: float32 (B, n), 16 kHz mono, amplitudes in [-1, 1]. What follows `length` has no influence.
            length: int64 (B,), valid samples of each row.

        Returns:
            float32 (B, width), zero for a row too short for one patch (16 frames: 2800 samples).
        """
        return self.finish(self.body_output(waveform, length))

    def body_output(self, waveform: Tensor, length: Tensor) -> Tensor:
        """The mean of the tokens of sound: float32 (B, width)."""
        features = self.filterbank(pad_to_frames(waveform, self.beats.config.patch_size))
        tokens, valid = self.beats(features, frame_counts(length))
        counts = valid.sum(1, keepdim=True).clamp_min(1)
        # A product, not a masked sum: one pass, and tokens that are not valid are finite.
        return torch.bmm((valid / counts).to(tokens.dtype).unsqueeze(1), tokens).squeeze(1).float()

    def layers_apart(self) -> tuple[nn.Module, ...]:
        """None: all layers read one table of relative positions."""
        return ()

    def architecture(self) -> dict[str, Any]:
        """Sizes of the BEATs network."""
        sizes = asdict(self.beats.config)
        del sizes["dropout"]
        return sizes


def load_beats(path: Path, dropout: float) -> Beats:
    """A BEATs network with the sizes and every parameter of an official checkpoint, in training mode.

    Args:
        path: official `.pt` file with `cfg` and `model`; a fine-tuned one's `predictor` is left out.
        dropout: of attention and residuals; the file's own rates are those of its pre-training.

    Raises:
        UserError: the file is absent, damaged, of another architecture, or lacks or exceeds the parameters.
    """
    cfg, tensors = read_beats_file(path, _FIELD)
    try:
        config = BeatsConfig.from_official(cfg, dropout)
    except UserError as error:
        raise UserError(f"{_FIELD}: {path}: {error}") from error
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith("predictor")}
    beats = Beats(config)
    own = beats.state_dict()
    mismatched = [
        f"{key} (file {tuple(tensors[key].shape)}, model {tuple(own[key].shape)})"
        for key in own.keys() & tensors.keys()
        if own[key].shape != tensors[key].shape
    ]
    complain_about_keys(path, _FIELD, own.keys() - tensors.keys(), tensors.keys() - own.keys(), mismatched)
    tables = [key for key in own if key.endswith(_TABLE)]
    different = [key for key in tables[1:] if not torch.equal(tensors[key], tensors[tables[0]])]
    if different:
        raise UserError(
            f"{_FIELD}: in {path} the layers must share one table of relative positions, but {', '.join(different)} "
            f"differs from {tables[0]}. Give an official BEATs file, unmodified."
        )
    beats.load_state_dict(tensors)
    return beats
