"""From media files and annotations to batches of tensors.

annotations → `importers` → `Clip`s in a manifest → `ClipDataset` (decode, sample) → `make_loader` (batches).
"""

from mover.data.collate import Batch, Collate, Sample
from mover.data.dataset import ClipDataset
from mover.data.loader import Loader, make_loader
from mover.data.manifest import Clip, read_manifest, select_split, write_manifest
from mover.data.media import MediaError, read_audio, read_video
from mover.data.tokenizer import Tokenizer

__all__ = [
    "Batch",
    "Clip",
    "ClipDataset",
    "Collate",
    "Loader",
    "MediaError",
    "Sample",
    "Tokenizer",
    "make_loader",
    "read_audio",
    "read_manifest",
    "read_video",
    "select_split",
    "write_manifest",
]
