"""From media files and annotations to batches of tensors.

annotations → `importers` → `Clip`s in a manifest → `ClipDataset` (decode, sample) → `make_loader` (batches).

What is named here is imported when it is first used, so that importers and manifests need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mover.data.collate import Batch, Collate, Sample
    from mover.data.dataset import ClipDataset
    from mover.data.features import read_features
    from mover.data.loader import Loader, make_loader
    from mover.data.manifest import Clip, Reference, read_manifest, select_split, write_manifest
    from mover.data.media import MediaError, read_audio, read_video
    from mover.data.overlap import Overlap, find_overlap
    from mover.data.tokenizer import Tokenizer

_HOMES = {
    "collate": ("Batch", "Collate", "Sample"),
    "dataset": ("ClipDataset",),
    "features": ("read_features",),
    "loader": ("Loader", "make_loader"),
    "manifest": ("Clip", "Reference", "read_manifest", "select_split", "write_manifest"),
    "media": ("MediaError", "read_audio", "read_video"),
    "overlap": ("Overlap", "find_overlap"),
    "tokenizer": ("Tokenizer",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Batch",
    "Clip",
    "ClipDataset",
    "Collate",
    "Loader",
    "MediaError",
    "Overlap",
    "Reference",
    "Sample",
    "Tokenizer",
    "find_overlap",
    "make_loader",
    "read_audio",
    "read_features",
    "read_manifest",
    "read_video",
    "select_split",
    "write_manifest",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mover.data' has no attribute '{name}'")
    return getattr(import_module(f"mover.data.{_HOME[name]}"), name)
