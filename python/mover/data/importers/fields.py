"""Checked values of annotation files. Every complaint names the file and the row."""

from __future__ import annotations

import re
from reprlib import Repr
from typing import Any

from mover.errors import UserError

_repr = Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother = 2, 80, 80


def shown(value: Any) -> str:
    """A value as code, cut short while it is made: that of a pickle whose parts share parts may have no end."""
    return _repr.repr(value)


def clip_name(value: Any, where: str, key: str) -> str:
    """An id that also names media files: a string that is not empty and stays within the media folder."""
    name = text(value, where, key)
    parts = name.replace("\\", "/").split("/")
    if "\0" in name or ".." in parts or not parts[0] or re.match("[A-Za-z]:", name):
        raise UserError(f"{where}: '{key}' leads out of the media folder: '{name:.80}'. Correct or delete the row.")
    return name


def text(value: Any, where: str, key: str) -> str:
    """A string that is not empty, without blanks around it."""
    if not isinstance(value, str) or not value.strip():
        raise UserError(
            f"{where}: '{key}' must be a string that is not empty, got {shown(value)}. Correct or delete it."
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: '{key}' holds half a character: {shown(value)}. Correct or delete it.") from None
    return value.strip()


def texts(value: Any, where: str, key: str) -> list[str]:
    """A list of such strings, at least one."""
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: '{key}' must be a list of strings, got {shown(value)}. Correct or delete the row.")
    return [text(item, where, f"{key}[{position}]") for position, item in enumerate(value)]


def seconds(value: Any, where: str, key: str) -> float:
    """A time in seconds, from a number or its digits."""
    try:
        number = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError, OverflowError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise UserError(f"{where}: '{key}' must be a number of seconds, at least 0, got {shown(value)}.")
    return number


def mapping(value: Any, where: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object, got {shown(value)}. Correct or delete it.")
    return value


def twice(where: str, name: str, first: str) -> UserError:
    """The error for an id that was met before, at `first`."""
    return UserError(f"{where}: the id '{name}' occurs twice, first at {first}. Delete one of the two.")
