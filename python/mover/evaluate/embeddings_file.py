"""Files of embeddings, checked when read.

The file is the seam of evaluation: whatever writes it, this model or another system, is scored by the same code.

    ids            (N,)    unique names of the clips
    text           (C, d)  one row per caption
    text_owner     (C,)    index into ids: the clip of each caption; may be left out when C = N, row i for clip i
    video, audio   (N, d)  one row per clip
    <modality>     (N, d)  the same, of a modality of any other name of a-z, 0-9 and _
    <modality>_present (N,) bool, optional: false where the clip has no such modality and the row means nothing
    labels         (N,)    class names, optional
    provenance     ()      a JSON object as a string, optional

At least two modalities. Rows need not have length 1: they are normalised when ranked.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np

from mover.config import BUILT_IN, RESERVED
from mover.errors import UserError
from mover.evaluate.embeddings import Embeddings

_PRESENT = "_present"


def save_embeddings(embeddings: Embeddings, path: Path) -> None:
    """Write the npz file described above, aside first and then in one move."""
    arrays: dict[str, np.ndarray] = {"ids": np.array(embeddings.ids, dtype=np.str_)}
    for modality in embeddings.modalities:
        arrays[modality] = embeddings.vectors[modality]
        arrays[f"{modality}{_PRESENT}"] = embeddings.present[modality]
    if "text" in embeddings.vectors:
        arrays["text_owner"] = embeddings.text_owner
    if embeddings.labels is not None:
        arrays["labels"] = np.array(embeddings.labels, dtype=np.str_)
    if embeddings.provenance:
        arrays["provenance"] = np.array(json.dumps(dict(embeddings.provenance)))
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    with open(aside, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def load_embeddings(path: Path) -> Embeddings:
    """Read and check an embeddings file.

    Raises:
        UserError: no such file, not an npz file, or an array that is missing, of the wrong shape or out of range. Rows
            that are not finite are no error: see `Embeddings.unusable`.
    """
    arrays = _read(path)
    if "ids" not in arrays:
        raise UserError(f"{path}: there is no array 'ids'; found {', '.join(sorted(arrays)) or 'nothing'}.")
    ids = [str(name) for name in arrays["ids"]] if arrays["ids"].ndim == 1 else []
    if not ids:
        raise UserError(f"{path}: 'ids' has the shape {arrays['ids'].shape}; expected (N,) with N >= 1.")
    repeated = [name for name, count in zip(*np.unique(ids, return_counts=True), strict=True) if count > 1]
    if repeated:
        raise UserError(f"{path}: 'ids' must be unique; {len(repeated)} are repeated, first '{repeated[0]}'.")

    vectors = _vectors(path, arrays)
    for modality, rows in vectors.items():
        _check_rows(path, modality, rows, None if modality == "text" else len(ids))
    widths = {modality: rows.shape[1] for modality, rows in vectors.items()}
    if len(set(widths.values())) > 1:
        raise UserError(f"{path}: all rows must have one width to be compared; found {widths}.")

    owner = _owner(path, arrays, len(ids)) if "text" in vectors else np.zeros(0, dtype=np.int64)
    present = {m: _present(path, arrays, m, len(ids)) for m in vectors}
    if "text" in vectors:
        present["text"] = present["text"] & (np.bincount(owner, minlength=len(ids)) > 0)
    labels = tuple(str(label) for label in arrays["labels"]) if "labels" in arrays else None
    provenance = json.loads(str(arrays["provenance"])) if "provenance" in arrays else {}
    return Embeddings(ids, vectors, owner, present, labels, provenance)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"no embeddings file at {path}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, TypeError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{path}: not a whole npz file of plain arrays ({reason}).") from None


def _vectors(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays that are modalities, text, video and audio first; every other array has to be known, too."""
    names = [name for name in arrays if name not in RESERVED and not name.endswith(_PRESENT)]
    strange = [name for name in names if not re.fullmatch("[a-z][a-z0-9_]*", name)]
    if strange:
        raise UserError(f"{path}: '{strange[0]}' is no name of a modality: they are of a-z, 0-9 and _, as in 'image'.")
    if len(names) < 2:
        raise UserError(f"{path}: expected at least two of the arrays text, video, audio, …; found {sorted(names)}.")
    flags = [name for name in arrays if name.endswith(_PRESENT) and name.removesuffix(_PRESENT) not in names]
    if flags:
        raise UserError(f"{path}: there is '{flags[0]}', but no array '{flags[0].removesuffix(_PRESENT)}'.")
    order = sorted(names, key=lambda name: BUILT_IN.index(name) if name in BUILT_IN else len(BUILT_IN))
    return {name: arrays[name] for name in order}


def _check_rows(path: Path, modality: str, rows: np.ndarray, count: int | None) -> None:
    expected = "(C, d)" if count is None else f"({count}, d), one row per id"
    if rows.ndim != 2 or rows.shape[1] < 1 or (count is not None and len(rows) != count) or len(rows) < 1:
        raise UserError(f"{path}: '{modality}' has the shape {rows.shape}; expected {expected}.")
    if not np.issubdtype(rows.dtype, np.floating):
        raise UserError(f"{path}: '{modality}' has the type {rows.dtype}; expected floating point.")


def _owner(path: Path, arrays: dict[str, np.ndarray], clips: int) -> np.ndarray:
    captions = len(arrays["text"])
    if "text_owner" not in arrays:
        if captions != clips:
            raise UserError(f"{path}: {captions} captions for {clips} ids need the array 'text_owner' ({captions},).")
        return np.arange(clips)
    owner = arrays["text_owner"]
    if owner.shape != (captions,) or not np.issubdtype(owner.dtype, np.integer):
        raise UserError(f"{path}: 'text_owner' is {owner.dtype} {owner.shape}; expected integers ({captions},).")
    if owner.min() < 0 or owner.max() >= clips:
        raise UserError(f"{path}: 'text_owner' must lie in 0..{clips - 1}; found {owner.min()}..{owner.max()}.")
    return owner.astype(np.int64)


def _present(path: Path, arrays: dict[str, np.ndarray], modality: str, clips: int) -> np.ndarray:
    flags = arrays.get(f"{modality}{_PRESENT}", np.ones(clips, dtype=bool))
    if flags.shape != (clips,) or flags.dtype != np.bool_:
        raise UserError(f"{path}: '{modality}_present' is {flags.dtype} {flags.shape}; expected bool ({clips},).")
    return flags
