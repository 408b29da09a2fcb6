"""A line of the manifest to a clip, with every value checked, and back."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from sys import intern
from typing import Any, NoReturn

from mover.data.clip import IMAGE_EXTENSIONS, STATUSES, Clip, Reference
from mover.errors import UserError

_NAMES = tuple(f.name for f in fields(Clip))
_KEYS = frozenset(_NAMES)
_NONE: list[str] = []
_ALWAYS = ("id", "captions", "split")
_LONGEST = 1e9
"""Seconds, thirty years: a decoder counts them in millionths, in 64 bits."""
_DEFAULTS = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(Clip)}


class WrongRow(Exception):
    """What is wrong with a row; the reader of the file adds the line."""


def _wrong(row: dict[str, Any], key: str, expected: str) -> WrongRow:
    return WrongRow(f"field '{key}' must be {expected}, got {row.get(key)!r:.80}.")


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant:.80} is no number of JSON, or too large for one")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _no_number(digits)


_decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_no_number)
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once  # type: ignore[attr-defined]


def _object(line: str) -> dict[str, Any]:
    try:
        row, end = _scan(line, 0)
        whole = line[end:] in ("\n", "")
    except (StopIteration, ValueError, RecursionError):
        whole = False
    if not whole:  # blanks around the object, or something wrong
        try:
            row = _decoder.decode(line)
        except (ValueError, RecursionError) as error:
            raise WrongRow(f"not a JSON object ({error}). Each line of a manifest is one JSON object.") from None
    if type(row) is not dict:
        raise WrongRow(f"expected a JSON object, got {type(row).__name__}.")
    return row


def clip_of(line: str, folder: str) -> Clip:
    """The clip of a line; `folder`, which ends in a separator, is what its paths are relative to. Raises WrongRow.

    A manifest may have a million lines: what is usual is looked at in place, what is not in a function of its own, and
    the clip is filled in by hand, since the constructor of a frozen dataclass takes as long as parsing the line.
    """
    row = _object(line)
    if not row.keys() <= _KEYS:
        unknown = min(set(row) - _KEYS)
        raise WrongRow(f"unknown field '{unknown}'. Put what is not known to MOVER under 'extra'.")
    get = row.get
    name, split, captions = get("id"), get("split"), get("captions", _NONE)
    if type(name) is not str or not name or name.isspace() or "\0" in name:
        raise _wrong(row, "id", "a string that is not empty, without zero bytes")
    if type(split) is not str or not split or split.isspace():
        raise _wrong(row, "split", "a string that is not empty")
    if type(captions) is not list:
        raise _wrong(row, "captions", "a list of strings")
    for caption in captions:
        if type(caption) is not str:
            raise _wrong(row, "captions", "a list of strings")
        if not caption or caption.isspace():
            raise _wrong(row, "captions", "a list without empty captions (delete them)")
    video, audio = get("video"), get("audio")
    same = audio == video
    if video is not None:
        video = _path(row, "video", folder)
    if audio is not None:
        audio = video if same else _path(row, "audio", folder)
    start, duration = get("start"), get("duration")
    others = _others(row, folder) if "others" in row else {}
    clip = object.__new__(Clip)
    vars(clip).update(
        id=name,
        captions=tuple(captions),
        _video=video,
        _audio=audio,
        status=_status(row, others) if "status" in row else {},
        start=start if start is None else _seconds(row, "start"),
        duration=duration if duration is None else _seconds(row, "duration"),
        split=intern(split),
        label=_text(row, "label") if "label" in row else None,
        source=intern(_text(row, "source") or "") if "source" in row else "",
        dataset_version=_text(row, "dataset_version") if "dataset_version" in row else None,
        extra=_mapping(row, "extra") if "extra" in row else {},
        others=others,
    )
    return clip


def _text(row: dict[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise _wrong(row, key, "a string or null")
    if value is not None and "\0" in value:
        raise _wrong(row, key, "a string without zero bytes")
    return value or None


def _path(row: dict[str, Any], key: str, folder: str) -> str | None:
    value = _text(row, key)
    return value if value is None or os.path.isabs(value) else folder + value


def _status(row: dict[str, Any], others: dict[str, Reference]) -> dict[str, str]:
    value = _mapping(row, "status")
    for modality, status in value.items():
        if (modality not in ("video", "audio", "text") and modality not in others) or status not in STATUSES:
            raise _wrong(
                row,
                "status",
                f"an object from 'video', 'audio' and names under 'others' to one of {', '.join(STATUSES)}",
            )
    return value


def _seconds(row: dict[str, Any], key: str) -> float:
    value = row[key]
    if type(value) is float and 0 <= value <= _LONGEST:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LONGEST:
        raise _wrong(row, key, "a number of seconds, from 0 to 1e9, or null")
    return float(value)


def _mapping(row: dict[str, Any], key: str) -> dict[str, Any]:
    value = row.get(key) or {}
    if not isinstance(value, dict):
        raise _wrong(row, key, "an object")
    return value


def _others(row: dict[str, Any], folder: str) -> dict[str, Reference]:
    found = {}
    for name, entry in _mapping(row, "others").items():
        if not re.fullmatch("[a-z][a-z0-9_]*", name) or name in ("text", "video", "audio"):
            raise _wrong(row, "others", "an object whose names are of a-z, 0-9 and _, and not text, video or audio")
        if isinstance(entry, str):
            entry = {"file": entry, "row": None}
        file = entry.get("file") if isinstance(entry, dict) and entry.keys() == {"file", "row"} else None
        if not isinstance(file, str) or not file or "\0" in file:
            raise _wrong(row, "others", 'an object from names to "FILE" or {"file": "FILE", "row": ROW}')
        part = entry["row"]
        suffix = os.path.splitext(file)[1].lower()
        if suffix == ".npy":
            fits = part is None or (type(part) is int and part >= 0)
        elif suffix == ".safetensors":
            fits = isinstance(part, str) and part != ""
        else:
            fits = suffix in IMAGE_EXTENSIONS and part is None
        if not fits:
            raise _wrong(
                row, "others", "images (.jpg, .png, …), .npy files, which may have a row from 0, "
                "and .safetensors files with the name of a tensor as row"
            )  # fmt: skip
        found[name] = Reference(Path(folder, file), part)
    return found


def line_of(clip: Clip, folder: str) -> str:
    """The line of a clip; `folder`, which ends in a separator, is what its paths are written relative to."""
    values = {key: getattr(clip, key) for key in _NAMES}
    row = {key: value for key, value in values.items() if key in _ALWAYS or value != _DEFAULTS[key]}
    for modality in ("video", "audio"):
        if modality in row:
            row[modality] = _stored(row[modality], folder)
    if clip.others:
        row["others"] = {name: _stored_reference(entry, folder) for name, entry in clip.others.items()}
    try:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise UserError(
            f"Clip '{clip.id}': what is under 'extra' is nested too deep to be written. Delete it."
        ) from None
    try:
        line.encode()
    except UnicodeEncodeError:  # half a character under `extra`: JSON can escape it, UTF-8 cannot hold it
        line = json.dumps(row, allow_nan=False)
    return line


def _stored(path: Path, folder: str) -> str:
    absolute = os.path.abspath(path)
    return absolute[len(folder) :].replace(os.sep, "/") if absolute.startswith(folder) else absolute


def _stored_reference(reference: Reference, folder: str) -> str | dict[str, Any]:
    stored = _stored(reference.path, folder)
    return stored if reference.row is None else {"file": stored, "row": reference.row}
