"""Read a configuration: a YAML file by shipped name or path, overridden by dotted settings, checked once."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mover.config import Config, ObjectiveConfig
from mover.configs.fields import leaf_at, leaves, place_at, values_of
from mover.errors import UserError
from mover.presets import TERMS

_FOLDER = Path(__file__).parent


def shipped() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_config(source: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration in `source`, with `overrides` on top.

    Args:
        source: a shipped name (`demo`) or the path of a YAML file; None: the defaults of `mover.config.Config`.
        overrides: dotted name to value, for instance `{"train.steps": 100}`. Values may be the text of the command
            line: `"100"`, `"none"`, `"text,video"`. With another preset than that of the file, the weights that the
            file sets give way to those of the preset.

    Raises:
        UserError: no such file, bad YAML, unknown key or impossible value; the message has the file, the dotted
            name of the setting, the value and what is allowed.
    """
    tree: dict[str, Any] = {}
    origin = "the defaults"
    if source is not None:
        path = find_config(source)
        origin = str(source)
        tree = read_yaml(path)
    if "objective.preset" in (overrides or {}):
        _drop_weights(tree, (overrides or {})["objective.preset"])
    for name, value in (overrides or {}).items():
        _put(tree, name, value, origin)
    return _check(tree, origin, overrides or {})


def save_config(config: Config, path: Path) -> None:
    """Write every setting of `config` as YAML; `load_config(path)` gives the same configuration back."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    aside = path.with_name(f".{path.name}.part")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted names of the settings in which two configurations differ, with both values (old, new).

    A setting of a named section that only one of them has is None in the other.
    """
    before, after = values_of(old), values_of(new)
    names = dict.fromkeys((*before, *after))
    pairs = {name: (before.get(name), after.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def find_config(source: str | Path) -> Path:
    """The YAML file that a shipped name or a path means. Raises UserError where there is none."""
    text = str(source)
    if text in shipped():
        return _FOLDER / f"{text}.yaml"
    path = Path(text)
    if path.is_file():
        return path
    raise UserError(
        f"no configuration '{text}': expected the path of a YAML file or a shipped name ({', '.join(shipped())})."
    )


_MOST_CHARACTERS = 1_000_000
_MOST_VALUES = 100_000
"""Of a configuration: ten thousand times what the largest has, and what still is read at once."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader of PyYAML, but a key given twice is an error and not silently the last one, and so are aliases
    that stand for more values than any configuration has."""

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _values(node, {}) > _MOST_VALUES:
            raise yaml.constructor.ConstructorError(
                None, None, f"its aliases stand for more than {_MOST_VALUES} values, or for themselves", node.start_mark
            )
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError, OverflowError, LookupError):  # of a tag that says what the text is not
            problem = f"'{node.value!s:.60}' is not what the tag {node.tag} says"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "a key is no plain text", key_node.start_mark)
            if key in seen:
                twice = f"the key '{key}' is given twice"
                raise yaml.constructor.ConstructorError(None, None, twice, key_node.start_mark)
            seen.add(key)
        return {str(key): value for key, value in super().construct_mapping(node, deep).items()}


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; an empty file has none.

    Raises:
        UserError: it cannot be read, is no YAML, has a key twice, or is no mapping.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_MOST_CHARACTERS + 1)
        if len(text) > _MOST_CHARACTERS:
            raise UserError(f"{path}: longer than {_MOST_CHARACTERS} characters: this is no configuration.")
        tree = yaml.load(text, _UniqueKeyLoader)  # a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {error.problem or error.context}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a YAML text file: {' '.join(str(error).split())}.") from None
    except RecursionError:
        raise UserError(f"{path}: not a configuration: it is nested too deep.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected 'key: value' lines at the top, got {_show(tree)}.")
    return {str(key): value for key, value in tree.items()}


def _values(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node stands for, those counted again that an alias repeats; infinite where it holds itself.

    known: of nodes, by their identity, what was counted; infinite while they are.
    """
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = math.inf
    below = node.value if isinstance(node, yaml.CollectionNode) else ()
    entries = chain.from_iterable(below) if isinstance(node, yaml.MappingNode) else below
    known[id(node)] = count = 1 + sum(_values(entry, known) for entry in entries)
    return count


def _drop_weights(tree: dict[str, Any], preset: Any) -> None:
    """Take out of the tree the weights, and the anchor of pairs, that were set beside another preset than this."""
    objective = tree.get("objective")
    if isinstance(objective, dict) and objective.get("preset", ObjectiveConfig().preset) != preset:
        for name in (*TERMS, "pairwise_anchor"):
            objective.pop(name, None)


def _put(tree: dict[str, Any], name: str, value: Any, origin: str) -> None:
    leaf = leaf_at(Config, name)
    if leaf is None:
        raise UserError(unknown_setting(name))
    if isinstance(value, str):
        if leaf.optional and value.lower() in ("none", "null"):
            value = None
        elif leaf.listed:
            value = [part.strip() for part in value.strip("[]()").split(",") if part.strip()]
    *parents, last = name.split(".")
    for parent in parents:
        below = tree.get(parent)
        if below is None:
            below = tree[parent] = {}
        if not isinstance(below, dict):
            raise UserError(f"{origin}: {parent}: expected a section of 'key: value' lines, got {_show(below)}.")
        tree = below
    tree[last] = value


def _check(tree: dict[str, Any], origin: str, overrides: Mapping[str, Any]) -> Config:
    tree = _drop_empty_sections(tree)
    _refuse_booleans(tree, origin)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        sentences = []
        for problem in error.errors(include_url=False):
            path = ".".join(_location(problem)[0])
            where = "" if any(path.startswith(name) for name in overrides) else f"{origin}: "
            sentences.append(where + _sentence(problem))
        raise UserError(" ".join(dict.fromkeys(sentences))) from None


def _location(problem: Any) -> tuple[tuple[str, ...], str | None]:
    """The names that lead to what is wrong, and the kind of the named section in which it lies.

    pydantic puts the kind behind the name of the section, as if it were a section below it.
    """
    location = tuple(str(part) for part in problem["loc"])
    for end in range(1, len(location)):
        place = place_at(Config, location[:end])
        if place is not None and place.named and location[end] in place.kinds:
            return location[:end] + location[end + 1 :], location[end]
    return location, None


def _sentence(problem: Any) -> str:
    location, kind = _location(problem)
    path = ".".join(location)
    if problem["type"] == "extra_forbidden":
        other = leaf_at(Config, path) if kind is not None else None
        if other is not None:
            return f"{path}: there is no such setting with kind {kind}, only with kind {', '.join(other.kinds)}."
        return unknown_setting(path)
    if problem["type"] == "value_error":  # raised by a check of our own, which names the setting itself
        said = str(problem["ctx"]["error"])
        return f"{path}: {said}." if location else f"{said}."
    shown = "nothing" if problem["type"] == "missing" else _show(problem["input"])
    if problem["type"] in ("union_tag_not_found", "union_tag_invalid"):
        location, shown = (*location, "kind"), _show(problem["input"].get("kind"))
    for end in range(len(location), 0, -1):
        leaf = leaf_at(Config, ".".join(location[:end]), kind)
        if leaf is not None:
            close = difflib.get_close_matches(str(problem["input"]), leaf.choices, n=1)
            hint = f"; did you mean {close[0]}?" if close else "."
            return f"{leaf.path}: expected {leaf.allowed}, got {shown}{hint}"
    return f"{path}: expected a section of 'key: value' lines, got {shown}."


def unknown_setting(path: str) -> str:
    """The sentence about a dotted name that is no setting, with the closest one."""
    *parents, last = path.replace("-", "_").split(".")
    if parents == ["weights"] and leaf_at(Config, f"model.{last}.checkpoint") is not None:
        return f"{path}: there is no such setting; did you mean model.{last}.checkpoint?"
    itself, place = place_at(Config, [*parents, last]), place_at(Config, parents)
    if itself is not None:
        below = next((leaf.path for leaf in leaves(Config) if leaf.path.startswith(f"{path}.")), f"{path}.kind")
        return f"{path}: there is no such setting, but a section of that name; did you mean {below}?"
    known = [] if place is None else place.names
    every = [leaf.path for leaf in leaves(Config)]
    if known:  # a slip in the last name, before a slip anywhere
        siblings = difflib.get_close_matches(last, known, n=1, cutoff=0.7)
        close = [".".join([*parents, name]) for name in siblings]
    else:
        close = difflib.get_close_matches(path, every, n=1, cutoff=0.8)
    if not close:  # the right name in another section
        close = [name for name in every if name.split(".")[-1] == last][:1]
    hint = f"; did you mean {close[0]}?" if close else "."
    listed = f" Known here: {', '.join(known)}." if known and not close else ""
    return f"{path}: there is no such setting{hint}{listed}"


def _drop_empty_sections(tree: dict[str, Any], at: tuple[str, ...] = ()) -> dict[str, Any]:
    """A section with nothing below its name (`train:`) stands for its defaults."""
    kept = {}
    for key, value in tree.items():
        place = place_at(Config, (*at, key))
        if place is not None:
            if value is None and not place.named:
                continue
            if isinstance(value, dict):
                value = _drop_empty_sections({str(k): v for k, v in value.items()}, (*at, key))
        kept[key] = value
    return kept


def _refuse_booleans(tree: dict[str, Any], origin: str, prefix: str = "") -> None:
    """YAML reads yes, no, on and off as booleans, which would pass for the numbers 1 and 0."""
    for key, value in tree.items():
        if isinstance(value, dict):
            _refuse_booleans(value, origin, f"{prefix}{key}.")
        leaf = leaf_at(Config, prefix + key)
        if isinstance(value, bool) and leaf is not None and leaf.info.annotation is not bool:
            raise UserError(f"{origin}: {prefix}{key}: expected {leaf.allowed}, got {_show(value)}.")


def _show(value: Any) -> str:
    text = "true" if value is True else "false" if value is False else "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
