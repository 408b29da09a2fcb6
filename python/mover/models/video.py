"""ViT on each frame of a clip, then over time; an image is a clip of one frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mover.config import VideoTowerConfig, VitTowerConfig
from mover.errors import UserError
from mover.models.pretrained import (
    PREPROCESSOR,
    load_folder,
    read_folder_config,
    read_json,
    set_dropout,
    without_code,
)
from mover.models.sizes import initializer_range, require_multiple
from mover.models.temporal import TemporalTransformer
from mover.models.tower import Tower, folder_architecture

if TYPE_CHECKING:
    from transformers import ViTModel


class VideoEncoder(Tower):
    """Clips to vectors: the class token of every frame, an optional temporal transformer, the mean over frames.

    Args:
        config: sizes, or the folder of a checkpoint, whose own files then give the sizes, mean and deviation. That
            of an image has no temporal transformer.
        image_size: height and width of the frames that will come, pixels. A checkpoint of another resolution
            is served by resizing the frames on their device.
        frames: largest number of frames per clip.
        section: of the configuration, for the messages.
        built: `architecture()` of the tower to build again; its weights are to come, no checkpoint is read.

    Raises:
        UserError: sizes that do not fit, or a checkpoint that does not load completely.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        config: VitTowerConfig,
        image_size: int,
        frames: int,
        section: str = "model.video",
        built: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._frames = frames
        mean = std = [0.5, 0.5, 0.5]
        if built is not None:
            self.vit = _vit_built(config, built["vit"])
        elif config.checkpoint is None:
            self.vit = _random_vit(config, image_size, section)
        else:
            self.vit = _pretrained_vit(config, config.checkpoint, f"{section}.checkpoint")
            mean, std = mean_and_std(config.checkpoint, f"{section}.checkpoint")
        self.vit.set_attn_implementation("eager" if config.attention == "eager" else "sdpa")
        self.image_size: int = self.vit.config.image_size  # type: ignore[assignment]  # one number, as is checked
        self.width: int = self.vit.config.hidden_size
        deviation = torch.tensor(std).view(3, 1, 1)
        scale, shift = 1 / (255 * deviation), -torch.tensor(mean).view(3, 1, 1) / deviation
        if built is not None:
            scale, shift = (torch.tensor(built[name]).view(3, 1, 1) for name in ("scale", "shift"))
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.temporal: TemporalTransformer | None = None
        if isinstance(config, VideoTowerConfig) and config.temporal_layers:
            sizes = self.vit.config
            self.temporal = TemporalTransformer(
                self.width,
                frames,
                config.temporal_layers,
                sizes.num_attention_heads,
                sizes.intermediate_size,
                config.dropout,
            )
        self.set_up(section, config, self.vit, self.vit.layers, above=(self.vit.layernorm,))

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode clips.

        Args:
            pixels: uint8 (B, F, 3, H, W), RGB.

        Returns:
            float (B, width).
        """
        return self.finish(self.body_output(pixels))

    def body_output(self, pixels: Tensor) -> Tensor:
        """The class token of every frame: float32 (B, F, width)."""
        clips, frames = pixels.shape[:2]
        images = self.normalise(pixels.flatten(0, 1))
        return self.vit(pixel_values=images).last_hidden_state[:, 0].unflatten(0, (clips, frames)).float()

    def finish(self, output: Tensor) -> Tensor:
        """Temporal layers, where there are some, and the mean over frames: float (B, F, width) to (B, width)."""
        if self.temporal is not None:
            output = self.temporal(output)
        return output.mean(1)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(F, width), F = data.frames."""
        return (self._frames, self.width)

    def architecture(self) -> dict[str, Any]:
        """The configuration of the ViT network, and the scale and the shift of each colour."""
        colours = {"scale": self.scale.flatten().tolist(), "shift": self.shift.flatten().tolist()}
        return {"vit": folder_architecture(self.vit.config), **colours}

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) to the float32 (N, 3, image_size, image_size) the tower was trained on."""
        images = images.to(torch.float32, copy=True)
        if images.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        return images.mul_(self.scale).add_(self.shift)


def _random_vit(config: VitTowerConfig, image_size: int, section: str) -> ViTModel:
    from transformers import ViTConfig, ViTModel

    require_multiple(f"{section}.hidden_size", config.hidden_size, f"{section}.heads", config.heads)
    require_multiple("data.image_size", image_size, f"{section}.patch_size", config.patch_size)
    return ViTModel(
        ViTConfig(
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=config.intermediate_size,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            initializer_range=initializer_range(config.hidden_size),
            image_size=image_size,
            patch_size=config.patch_size,
        ),
        add_pooling_layer=False,
    )


def _vit_built(config: VitTowerConfig, built: Mapping[str, Any]) -> ViTModel:
    from transformers import ViTConfig, ViTModel

    stored = ViTConfig.from_dict(without_code(built))
    set_dropout(stored, config.dropout)
    return ViTModel(stored, add_pooling_layer=False)


def _pretrained_vit(config: VitTowerConfig, folder: Path, field: str) -> ViTModel:
    from transformers import ViTConfig, ViTModel

    stored = read_folder_config(ViTConfig, folder, field)
    if not isinstance(stored.image_size, int) or stored.num_channels != 3:
        raise UserError(
            f"{field}: {folder / 'config.json'} asks for images of size {stored.image_size} "
            f"with {stored.num_channels} channels, but frames are square and have 3. Give another checkpoint."
        )
    set_dropout(stored, config.dropout)
    return load_folder(ViTModel, stored, folder, field)


def mean_and_std(folder: Path, field: str) -> tuple[list[float], list[float]]:
    """What the checkpoint in `folder` expects of each colour; UserError, naming `field`, where it does not say."""
    path = folder / PREPROCESSOR
    content = read_json(path, field)
    values = []
    for key in ("image_mean", "image_std"):
        value = content.get(key)
        if not isinstance(value, list) or len(value) != 3 or not all(isinstance(v, (int, float)) for v in value):
            raise UserError(f"{field}: {path} must give {key} as three numbers, got {value!r}. Add it.")
        values.append([float(v) for v in value])
    if min(values[1]) <= 0:
        raise UserError(f"{field}: image_std in {path} must be positive, got {values[1]}. Correct it.")
    return values[0], values[1]
