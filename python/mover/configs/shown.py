"""A configuration as people read it: what differs from the defaults, and who said so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mover.config import Config
from mover.configs.fields import leaf_at, values_of
from mover.configs.loading import differences

_WIDTH = 46
"""Columns that values are aligned in; a longer one moves its default to the right."""


def setting_text(value: Any) -> str:
    """A value as the command line takes it: `none`, `true`, `text,video`, `0.001`."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(setting_text(entry) for entry in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def config_text(config: Config, source: object, given: Collection[str] = ()) -> str:
    """Lines that tell what a run will do: each setting that has not its default, by section, its default in brackets.

    Args:
        config: the run's, complete.
        source: the file it was read from; None: no file was given.
        given: dotted names that the command line set; they are marked, and listed even at their defaults.
    """
    changed = differences(Config(), config)
    current = values_of(config)
    given = set(current) & set(given)
    names = [name for name in current if name in changed or name in given]
    head = f"configuration: {source or 'the defaults'}"
    if given:
        head += f", and {len(given)} from the command line, marked *"
    head += "; defaults in brackets" if names else ""
    margin = max((len(name.rpartition(".")[2]) for name in names), default=0)
    values = {name: setting_text(current[name]) for name in names}
    breadth = max((len(value) for value in values.values() if len(value) <= _WIDTH), default=0)
    lines, section = [head], ""
    for name in names:
        parent, _, last = name.rpartition(".")
        if parent != section:
            lines.append(f"  {parent}")
            section = parent
        mark = "*" if name in given else " "
        default = _default(name, current)
        lines.append(f"  {mark} {last:<{margin}}  {values[name]:<{breadth}}  [{default}]")
    rest = "the rest keep their defaults (mover train --help)" if names else "every setting has its default"
    lines.append(f"{rest}; everything is written to {config.folder / 'config.yaml'}")
    return "\n".join(lines)


def _default(name: str, values: Mapping[str, Any]) -> str:
    """The default of a setting among `values`; that of a named section depends on its kind."""
    leaf = leaf_at(Config, name, values.get(f"{name.rpartition('.')[0]}.kind"))
    if leaf is None or leaf.info.is_required():
        return "required"
    return setting_text(leaf.info.get_default(call_default_factory=True))
