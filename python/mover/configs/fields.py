"""The fields of the configuration as a flat list, and what each accepts in words.

The command line, its help and every error message are made from this one walk over the pydantic models, so none of
them can fall behind the models.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_NOUNS = {int: "an integer", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
_PLACEHOLDERS = {int: "INT", float: "NUMBER", bool: "true|false", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True)
class Leaf:
    """One setting: `path` is its dotted name (`train.steps`), `section` the model it belongs to."""

    path: str
    info: FieldInfo
    section: type[BaseModel]

    @property
    def optional(self) -> bool:
        """Whether the setting may be none."""
        return type(None) in get_args(_strip(self.info.annotation)[0])

    @property
    def listed(self) -> bool:
        """Whether the setting is a list of values."""
        return get_origin(_strip(self.info.annotation)[0]) is tuple

    @property
    def allowed(self) -> str:
        """What the setting accepts, in words: `an integer of at least 1`."""
        return _allowed(self.info.annotation, list(self.info.metadata))

    @property
    def placeholder(self) -> str:
        """The short name of the value in the help: `INT`."""
        return _placeholder(self.info.annotation)


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[Leaf]:
    """Every setting below `model`, own settings before those of its sections, in the order of definition."""
    sections = []
    for name, info in model.model_fields.items():
        if is_section(info.annotation):
            sections.append((name, info.annotation))
        else:
            yield Leaf(prefix + name, info, model)
    for name, section in sections:
        yield from leaves(section, f"{prefix}{name}.")  # type: ignore[arg-type]


def section_at(model: type[BaseModel], path: tuple[str, ...]) -> type[BaseModel] | None:
    """The model of the section at `path`, None where the path names none."""
    for name in path:
        info = model.model_fields.get(name)
        if info is None or not is_section(info.annotation):
            return None
        model = info.annotation  # type: ignore[assignment]
    return model


def leaf_at(model: type[BaseModel], path: str) -> Leaf | None:
    """The setting at a dotted path, None where the path names none."""
    *parents, name = path.split(".")
    section = section_at(model, tuple(parents))
    if section is None or name not in section.model_fields or is_section(section.model_fields[name].annotation):
        return None
    return Leaf(path, section.model_fields[name], section)


def is_section(annotation: Any) -> bool:
    """Whether a field of this type is a section, that is a model of its own."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _strip(annotation: Any) -> tuple[Any, list[Any]]:
    """The bare type and the constraints of an `Annotated` type."""
    if get_origin(annotation) is not Annotated:
        return annotation, []
    bare, *constraints = get_args(annotation)
    metadata: list[Any] = []
    for constraint in constraints:
        metadata += constraint.metadata if isinstance(constraint, FieldInfo) else [constraint]
    return bare, metadata


def _allowed(annotation: Any, metadata: list[Any]) -> str:
    bare, own = _strip(annotation)
    metadata = metadata + own
    if get_origin(bare) in (Union, types.UnionType):
        members = get_args(bare)
        words = " or ".join(_allowed(member, metadata) for member in members if member is not type(None))
        return f"{words}, or none" if type(None) in members else words
    if get_origin(bare) is Literal:
        return "one of " + ", ".join(str(value) for value in get_args(bare))
    if get_origin(bare) is tuple:
        members = get_args(bare)
        if len(members) == 2 and members[1] is Ellipsis:
            return f"a list, each entry {_allowed(members[0], [])}"
        return f"a list of {len(members)}, each entry {_allowed(members[0], [])}"
    noun = _NOUNS.get(bare, str(bare))
    pattern = next((m.pattern for m in metadata if getattr(m, "pattern", None)), None)
    if pattern == r"^[\w.-]+$":
        return f"{noun} of letters, digits, '.', '_' and '-'"
    return noun + _bounds(metadata)


def _bounds(metadata: list[Any]) -> str:
    words = []
    for name, text in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than")):
        words += [f"{text} {getattr(m, name):g}" for m in metadata if getattr(m, name, None) is not None]
    return f" of {' and '.join(words)}" if words else ""


def _placeholder(annotation: Any) -> str:
    bare, _ = _strip(annotation)
    if get_origin(bare) in (Union, types.UnionType):
        return "|".join("none" if m is type(None) else _placeholder(m) for m in get_args(bare))
    if get_origin(bare) is Literal:
        return "|".join(str(value) for value in get_args(bare))
    if get_origin(bare) is tuple:
        return f"{_placeholder(get_args(bare)[0])},…"
    return _PLACEHOLDERS.get(bare, "VALUE")
