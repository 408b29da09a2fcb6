"""Importers: each turns one public annotation format into clips. To add one, write its `IMPORTER` and name it here."""

from __future__ import annotations

from mover.data.importers import (
    audiocaps,
    audioset,
    clotho,
    kinetics700,
    msrvtt,
    sounddescs,
    vast_json,
    vatex,
    vggsound,
)
from mover.data.importers.importer import Importer, Option

_MODULES = (msrvtt, audiocaps, vatex, clotho, vast_json, sounddescs, vggsound, audioset, kinetics700)
IMPORTERS: dict[str, Importer] = {module.IMPORTER.name: module.IMPORTER for module in _MODULES}

__all__ = ["IMPORTERS", "Importer", "Option"]
