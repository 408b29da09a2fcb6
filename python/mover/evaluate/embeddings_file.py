"""Files of embeddings: the seam of evaluation. Whatever writes one, this model or another system, is scored alike.

    ids            (N,)    unique names of the clips: strings, or whole numbers that become strings
    text           (C, d)  one row per caption
    text_owner     (C,)    index into ids: the clip of each caption; may be left out when C = N, row i for clip i
    video, audio   (N, d)  one row per clip
    <modality>     (N, d)  the same, of a modality of any other name of a-z, 0-9 and _
    <modality>_present (N,) bool, optional: false where the clip has no such modality and the row means nothing
    labels         (N,)    class names, optional; "" for none
    provenance             a JSON object, optional: what made the rows

At least two modalities, float16, float32 or float64, bfloat16 in .safetensors. Rows need not have length 1: they are
normalised when ranked. The ending of the name says which format it is, one module each: .npz, .safetensors, .parquet.
docs/embeddings.md shows how to write one.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mover.array_of_names import names_of
from mover.config import BUILT_IN, RESERVED
from mover.durable_file import durable_file
from mover.errors import UserError
from mover.evaluate import embeddings_npz, embeddings_parquet, embeddings_safetensors
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.embeddings_content import Content

FORMATS = {".npz": embeddings_npz, ".safetensors": embeddings_safetensors, ".parquet": embeddings_parquet}
_MAGIC = {b"PK\3\4": ".npz", b"PAR1": ".parquet", b"\x93NUM": ".npy"}
_PRESENT = "_present"


def save_embeddings(embeddings: Embeddings, path: Path) -> None:
    """Write a file, in the format of its ending, aside first and then in one move.

    Raises:
        UserError: another ending, embeddings that `load_embeddings` would refuse, no pyarrow for .parquet, or no room.
    """
    write_content(
        Content(
            embeddings.ids,
            {m: embeddings.vectors[m] for m in embeddings.modalities},
            embeddings.text_owner,
            embeddings.present,
            embeddings.labels,
            embeddings.provenance,
        ),
        path,
    )


def write_content(content: Content, path: Path, aside: Path | None = None) -> None:
    """Like `save_embeddings`; rows that are on disk stay there. `aside`: where the file is until it is whole."""
    form = format_of(path)
    _check_content(path, content)
    with durable_file(path, aside) as file:
        form.write(file, content)


def load_embeddings(path: Path) -> Embeddings:
    """Read and check a file of embeddings.

    Raises:
        UserError: no such file, not one of the three formats, or an array that is missing, of the wrong shape or type,
            or out of range. Rows that are zero or not finite are no error: see `Embeddings.unusable`.
    """
    arrays = _read(path)
    if "ids" not in arrays:
        raise UserError(f"{path}: there are no 'ids'; found {', '.join(sorted(arrays)) or 'nothing'}.")
    ids = _names(path, "ids", arrays["ids"])
    _check_ids(path, ids)
    vectors = _vectors(path, arrays)
    for modality in vectors:
        _check_rows(path, modality, vectors[modality], None if modality == "text" else len(ids))
    _check_widths(path, vectors)
    for modality in vectors:
        vectors[modality] = _plain(vectors[modality])
        arrays.pop(modality)  # at most one of them is in memory twice
    owner = _owner(path, arrays, len(vectors["text"]), len(ids)) if "text" in vectors else np.zeros(0, dtype=np.int64)
    present = {m: _present(path, arrays, m, len(ids)) for m in vectors}
    if "text" in vectors:
        present["text"] = present["text"] & (np.bincount(owner, minlength=len(ids)) > 0)
    return Embeddings(ids, vectors, owner, present, _labels(path, arrays, len(ids)), _provenance(path, arrays))


def load_provenance(path: Path) -> dict[str, Any]:
    """What a file says about where it comes from, {} where it says nothing; its rows are not read. As above."""
    text = _guarded(path, "read_provenance")
    return {} if text is None else _provenance(path, {"provenance": np.array(text)})


def format_of(path: Path) -> ModuleType:
    """The module that reads and writes a file of that name.

    Raises:
        UserError: the name has another ending, or the format needs a package that is not installed.
    """
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise UserError(
            f"{path}: a file of embeddings ends in {', '.join(FORMATS)}; this name ends in '{path.suffix}'."
        )
    if form is embeddings_parquet:
        embeddings_parquet.modules()
    return form


def _read(path: Path) -> dict[str, np.ndarray]:
    return dict(_guarded(path, "read"))


def _guarded(path: Path, function: str) -> Any:
    """What the function of the format's module gives for the path, any error of its libraries as a UserError."""
    if not path.is_file():
        raise UserError(f"no embeddings file at {path}.")
    form = format_of(path)
    try:
        return getattr(form, function)(path)
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{path}: its arrays do not fit into memory, or their shapes are damaged.") from None
    except Exception as error:  # three libraries, each with errors of its own
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UserError(
            f"{path}: not a whole {path.suffix.lower()} file of plain arrays ({reason}){_looks_like(path)}."
        ) from None


def _looks_like(path: Path) -> str:
    """A hint at files with the ending of another format."""
    with open(path, "rb") as file:
        start = file.read(9)
    found = _MAGIC.get(start[:4]) or (".safetensors" if start[8:] == b"{" else None)
    return f"; its content looks like a {found} file" if found not in (None, path.suffix.lower()) else ""


def _names(path: Path, what: str, array: np.ndarray) -> list[str]:
    if array.ndim != 1:
        raise UserError(f"{path}: '{what}' has the shape {array.shape}; expected (N,).")
    if array.dtype.kind not in "USiu":
        raise UserError(f"{path}: '{what}' has the type {array.dtype}; expected strings or whole numbers.")
    try:
        return names_of(array)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: '{what}' holds bytes that are no UTF-8, first {error.object!r:.80}.") from None
    except ValueError:
        raise UserError(f"{path}: '{what}' holds numbers that are no characters. Write it again.") from None


def _check_ids(path: Path, ids: list[str]) -> None:
    if not ids:
        raise UserError(f"{path}: 'ids' is empty; expected the names of N clips, N >= 1.")
    repeated = [(name, count) for name, count in Counter(ids).items() if count > 1]
    if repeated:
        name, count = repeated[0]
        raise UserError(
            f"{path}: 'ids' must be unique; of {len(ids)} rows {sum(n for _, n in repeated)} share {len(repeated)} "
            f"names, first '{name}' ({count} rows)."
        )
    _check_characters(path, "ids", ids)
    if "" in ids:
        raise UserError(f"{path}: the id at position {ids.index('')} is empty; give every clip a name.")


def _check_characters(path: Path, what: str, names: list[str]) -> None:
    """Names that not every format can hold."""
    whole = "".join(names)
    if "\0" not in whole and not re.search("[\ud800-\udfff]", whole):
        return
    bad = [name for name in names if "\0" in name or any("\ud800" <= c <= "\udfff" for c in name)]
    if bad:
        raise UserError(f"{path}: {len(bad)} of '{what}' hold a zero byte or half a character, first {bad[0]!r:.80}.")


def _vectors(path: Path, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays that are modalities, text, video and audio first; every other array has to be known, too."""
    names = [name for name in arrays if name not in RESERVED and not name.endswith(_PRESENT)]
    strange = [name for name in names if not re.fullmatch("[a-z][a-z0-9_]*", name)]
    if strange:
        raise UserError(f"{path}: '{strange[0]}' is no name of a modality: they are of a-z, 0-9 and _, as in 'image'.")
    unknown = [name for name in arrays if name in ("id", "label")]
    if unknown:
        raise UserError(f"{path}: there is '{unknown[0]}'; the array is called '{unknown[0]}s'.")
    if len(names) < 2:
        raise UserError(f"{path}: expected at least two of the arrays text, video, audio, …; found {sorted(names)}.")
    flags = [name for name in arrays if name.endswith(_PRESENT) and name.removesuffix(_PRESENT) not in names]
    if flags:
        raise UserError(f"{path}: there is '{flags[0]}', but no array '{flags[0].removesuffix(_PRESENT)}'.")
    order = sorted(names, key=lambda name: BUILT_IN.index(name) if name in BUILT_IN else len(BUILT_IN))
    return {name: arrays[name] for name in order}


def _check_rows(path: Path, modality: str, rows: Any, count: int | None) -> None:
    expected = "(C, d), one row per caption" if count is None else f"({count}, d), one row per id"
    if len(rows.shape) != 2 or rows.shape[1] < 1 or (count is not None and len(rows) != count) or len(rows) < 1:
        raise UserError(f"{path}: '{modality}' has the shape {tuple(rows.shape)}; expected {expected}.")
    if rows.dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64):
        raise UserError(
            f"{path}: '{modality}' has the type {rows.dtype}; expected floating point of 16, 32 or 64 bits."
        )


def _check_widths(path: Path, vectors: Mapping[str, Any]) -> None:
    widths = {modality: rows.shape[1] for modality, rows in vectors.items()}
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{modality} {width}" for modality, width in widths.items())
        raise UserError(f"{path}: all rows must have one width to be compared; found {listed}.")


def _plain(rows: np.ndarray) -> np.ndarray:
    """In row-major order and the byte order of this machine."""
    return np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("="))


def _owner(path: Path, arrays: Mapping[str, np.ndarray], captions: int, clips: int) -> np.ndarray:
    if "text_owner" not in arrays:
        if captions != clips:
            raise UserError(f"{path}: {captions} captions for {clips} ids need the array 'text_owner' ({captions},).")
        return np.arange(clips)
    owner = arrays["text_owner"]
    if owner.shape != (captions,) or owner.dtype.kind not in "iu":
        raise UserError(f"{path}: 'text_owner' is {owner.dtype} {owner.shape}; expected integers ({captions},).")
    outside = np.flatnonzero((owner < 0) | (owner >= clips))
    if len(outside):
        raise UserError(
            f"{path}: {len(outside)} of {captions} captions belong to no clip: 'text_owner' must lie in "
            f"0..{clips - 1}, and that of caption {outside[0]} is {owner[outside[0]]}."
        )
    return owner.astype(np.int64)


def _present(path: Path, arrays: Mapping[str, np.ndarray], modality: str, clips: int) -> np.ndarray:
    flags = arrays.get(f"{modality}{_PRESENT}", np.ones(clips, dtype=bool))
    if flags.shape != (clips,) or flags.dtype != np.bool_:
        raise UserError(f"{path}: '{modality}_present' is {flags.dtype} {flags.shape}; expected bool ({clips},).")
    return flags


def _labels(path: Path, arrays: Mapping[str, np.ndarray], clips: int) -> tuple[str, ...] | None:
    if "labels" not in arrays:
        return None
    labels = _names(path, "labels", arrays["labels"])
    if len(labels) != clips:
        raise UserError(f"{path}: 'labels' has the shape ({len(labels)},); expected ({clips},), one per id.")
    _check_characters(path, "labels", labels)
    return tuple(labels) if any(labels) else None


def _provenance(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    if "provenance" not in arrays:
        return {}
    array = arrays["provenance"]
    try:
        found = json.loads(array.item()) if array.shape == () and array.dtype.kind in "US" else None
    except (ValueError, RecursionError, SystemError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path}: 'provenance' is no JSON object in a string: write one with json.dumps, or none.")
    return found


def _check_content(path: Path, content: Content) -> None:
    """That what is written can be read."""
    _check_ids(path, list(content.ids))
    _vectors(path, content.arrays())
    for modality, rows in content.rows.items():
        _check_rows(path, modality, rows, None if modality == "text" else len(content.ids))
    _check_widths(path, content.rows)
    if "text" in content.rows:
        _owner(path, {"text_owner": content.text_owner}, len(content.rows["text"]), len(content.ids))
    for modality in content.rows:
        _present(path, {f"{modality}{_PRESENT}": content.present[modality]}, modality, len(content.ids))
    if content.labels is not None:
        _labels(path, {"labels": np.array(content.labels)}, len(content.ids))
