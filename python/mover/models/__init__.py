"""Encoders of text, video, audio, images and features, and the model that joins them."""

from mover.models.audio import AudioEncoder
from mover.models.features import FeatureEncoder
from mover.models.heads import Projection, unit_rows
from mover.models.model import MoverModel
from mover.models.text import TextEncoder
from mover.models.video import VideoEncoder

__all__ = ["AudioEncoder", "FeatureEncoder", "MoverModel", "Projection", "TextEncoder", "VideoEncoder", "unit_rows"]
