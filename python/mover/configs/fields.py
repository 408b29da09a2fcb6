"""The fields of the configuration as a flat list, and what each accepts in words.

The command line, its help and every error message are made from this one walk over the pydantic models, so none of
them can fall behind the models.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_NOUNS = {int: "an integer", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
_PLACEHOLDERS = {int: "INT", float: "NUMBER", bool: "true|false", str: "TEXT", Path: "PATH"}


NAME = "NAME"
"""Stands in a listing for the name, free to choose, of a section of a mapping: `model.others.NAME.kind`."""


@dataclass(frozen=True)
class Leaf:
    """One setting: `path` is its dotted name (`train.steps`), `section` the model it belongs to.

    kinds: of a setting in a mapping of sections, what it is in each kind of section that has it.
    """

    path: str
    info: FieldInfo
    section: type[BaseModel]
    kinds: Mapping[str, FieldInfo] = field(default_factory=dict)

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
    def choices(self) -> list[str]:
        """The words that the setting may be, none where it is no choice of words."""
        bare = _strip(self.info.annotation)[0]
        return [str(value) for value in get_args(bare)] if get_origin(bare) is Literal else []

    @property
    def placeholder(self) -> str:
        """The short name of the value in the help: `INT`."""
        return _placeholder(self.info.annotation)


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[Leaf]:
    """Every setting below `model`, own settings before those of its sections, in the order of definition.

    Sections of a mapping come once, under the name NAME, with the settings of all kinds.
    """
    below: list[Iterator[Leaf]] = []
    for name, info in model.model_fields.items():
        if is_section(info.annotation):
            below.append(leaves(info.annotation, f"{prefix}{name}."))  # type: ignore[arg-type]
        elif kinds_of(info.annotation):
            below.append(_mapped_leaves(f"{prefix}{name}.{NAME}", kinds_of(info.annotation)))
        else:
            yield Leaf(prefix + name, info, model)
    yield from chain.from_iterable(below)


def _mapped_leaves(path: str, kinds: Mapping[str, type[BaseModel]]) -> Iterator[Leaf]:
    names = dict.fromkeys(name for section in kinds.values() for name in section.model_fields)
    for name in sorted(names, key=lambda name: name != "kind"):
        yield _mapped_leaf(f"{path}.{name}", name, kinds)


def _mapped_leaf(path: str, name: str, kinds: Mapping[str, type[BaseModel]]) -> Leaf:
    having = {kind: section for kind, section in kinds.items() if name in section.model_fields}
    infos = {kind: section.model_fields[name] for kind, section in having.items()}
    first = next(iter(infos.values()))
    if name == "kind":
        every = Literal[tuple(kinds)]  # type: ignore[valid-type]
        first = FieldInfo(annotation=every, description=first.description)  # type: ignore[arg-type]
    return Leaf(path, first, next(iter(having.values())), infos)


@dataclass(frozen=True)
class Place:
    """Where a dotted path leads: to a section, to a mapping of sections, or to a section of a mapping.

    section: the model of a section. kinds: those that the sections of the mapping may be. named: whether the path
    goes on to the name of one of these.
    """

    section: type[BaseModel] | None = None
    kinds: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    named: bool = False

    @property
    def names(self) -> list[str]:
        """The settings and sections that lie below; none below a mapping, whose names are free."""
        if self.section is not None:
            return list(self.section.model_fields)
        return list(dict.fromkeys(n for s in self.kinds.values() for n in s.model_fields)) if self.named else []


def place_at(model: type[BaseModel], path: Sequence[str]) -> Place | None:
    """What lies at a path, None for a setting and for what does not exist."""
    place = Place(model)
    for name in path:
        if place.section is None:
            if place.named:
                return None
            place = Place(kinds=place.kinds, named=True)
            continue
        info = place.section.model_fields.get(name)
        if info is None:
            return None
        if is_section(info.annotation):
            place = Place(info.annotation)  # type: ignore[arg-type]
        elif kinds_of(info.annotation):
            place = Place(kinds=kinds_of(info.annotation))
        else:
            return None
    return place


def leaf_at(model: type[BaseModel], path: str, kind: str | None = None) -> Leaf | None:
    """The setting at a dotted path, None where the path names none.

    kind: of the section, where it is one of a mapping; without it, the setting of the first kind that has it.
    """
    *parents, name = path.split(".")
    place = place_at(model, parents)
    if place is None or name not in place.names:
        return None
    if place.section is None:
        kinds = place.kinds if kind is None else {kind: place.kinds[kind]}
        return _mapped_leaf(path, name, kinds) if any(name in s.model_fields for s in kinds.values()) else None
    info = place.section.model_fields[name]
    if is_section(info.annotation) or kinds_of(info.annotation):
        return None
    return Leaf(path, info, place.section)


def values_of(section: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Dotted name to value of every setting of a configuration, those of named sections included."""
    values: dict[str, Any] = {}
    below: dict[str, Any] = {}
    for name, info in type(section).model_fields.items():
        value, path = getattr(section, name), prefix + name
        if isinstance(value, BaseModel):
            below |= values_of(value, f"{path}.")
        elif kinds_of(info.annotation):
            for key, entry in value.items():
                below |= values_of(entry, f"{path}.{key}.")
        else:
            values[path] = value
    return values | below


def is_section(annotation: Any) -> bool:
    """Whether a field of this type is a section, that is a model of its own."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def kinds_of(annotation: Any) -> dict[str, type[BaseModel]]:
    """Of a mapping from names to sections: what such a section may be, by its `kind`. Of any other type: nothing."""
    if get_origin(annotation) is not dict:
        return {}
    entries = get_args(_strip(get_args(annotation)[1])[0])
    return {get_args(entry.model_fields["kind"].annotation)[0]: entry for entry in entries}


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
