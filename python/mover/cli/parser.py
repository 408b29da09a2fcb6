"""The argument parser of all commands, and the settings of the configuration as options."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from mover.config import Config
from mover.configs import load_config, setting_text, shipped, unknown_setting
from mover.configs.fields import Leaf, leaf_at, leaves, values_of
from mover.errors import UserError

_ASSIGNMENT = re.compile(r"[a-z_][\w-]*(\.[\w-]+)*=")
"""How a word that sets something begins: train.steps=3, name=mine."""

_NAMED = """\
A modality besides text, video and audio, under a name of your choice (a-z, 0-9, _): the one that the manifest has
  under 'others' and that 'modalities' lists. Its kind decides which of these settings there are."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError and takes no abbreviations."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", HelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Called by argparse for anything wrong on the command line."""
        raise UserError(f"{message.rstrip('.')}. See {self.prog} --help.")

    def wants_value(self, word: str) -> bool:
        """Whether `word` is an option whose value is the next word."""
        action = self._option_string_actions.get(word)
        return action is not None and action.nargs != 0


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal, up to 110 columns."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=40, width=min(shutil.get_terminal_size().columns, 110) - 2)


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """The option --config."""
    parser.add_argument(
        "--config", metavar="NAME|FILE",
        help=f"a shipped configuration ({', '.join(shipped())}) or the path of a YAML file",
    )  # fmt: skip


def add_settings(parser: argparse.ArgumentParser, argv: Sequence[str], *, shown: bool = True) -> None:
    """One option per setting of the configuration, in groups by section.

    The help shows the values of the configuration that `argv` names with --config; or no settings, unless `shown`.
    """
    if not shown:
        for leaf in leaves(Config):
            parser.add_argument(f"--{leaf.path}", default=argparse.SUPPRESS, dest=leaf.path, help=argparse.SUPPRESS)
        _add_named(parser, argv)
        return
    values = values_of(_config_named(argv))
    groups: dict[str, Any] = {}
    for leaf in leaves(Config):
        section = leaf.path.rpartition(".")[0]
        if section not in groups:
            title = section or "settings of the run"
            about = _NAMED if leaf.kinds else _one_line(leaf.section.__doc__)
            groups[section] = parser.add_argument_group(title, about if section else None)
        groups[section].add_argument(
            f"--{leaf.path}", metavar=leaf.placeholder, default=argparse.SUPPRESS, dest=leaf.path,
            help=_explained(leaf, values).replace("%", "%%"),
        )  # fmt: skip
    _add_named(parser, argv)


def _add_named(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    for name in _named_settings(argv, {leaf.path for leaf in leaves(Config)}):
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, dest=name, help=argparse.SUPPRESS)


def parse_settings(parser: Parser, argv: Sequence[str]) -> tuple[argparse.Namespace, Config]:
    """The options of the command, and the configuration: --config first, then the settings given.

    A setting is given as `--section.setting value`, `--section.setting=value` or `section.setting=value`.

    Raises:
        UserError: an unknown option, or a value that is not allowed.
    """
    options, given = given_settings(parser, argv)
    return options, load_config(options.config, given)


def given_settings(parser: Parser, argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The options of the command, and the settings given: dotted name to value. As `parse_settings`, unchecked."""
    options, rest = parser.parse_known_args(_spelled_out(parser, argv))
    for word in rest:
        if word.startswith("--"):
            raise UserError(f"--{unknown_setting(word[2:].partition('=')[0])} See {parser.prog} --help.")
        raise UserError(
            f"'{word}' is not an option: they begin with --, or read section.setting=value. See {parser.prog} --help."
        )
    return options, {name: value for name, value in vars(options).items() if leaf_at(Config, name) is not None}


def _config_named(argv: Sequence[str]) -> Config:
    first = Parser(add_help=False)
    first.add_argument("--config")
    try:
        return load_config(first.parse_known_args(list(argv))[0].config)
    except UserError:
        return Config()


def _spelled_out(parser: Parser, argv: Sequence[str]) -> list[str]:
    """The words with settings as options of their exact names: train.steps=3 is --train.steps=3."""
    words: list[str] = []
    for word in argv:
        is_value = bool(words) and parser.wants_value(words[-1])
        if not is_value and _ASSIGNMENT.match(word):
            word = f"--{word}"
        words.append(word if is_value else _underscored(word))
    return words


def _underscored(word: str) -> str:
    """--train.batch-size is --train.batch_size."""
    if not word.startswith("--") or "." not in word.partition("=")[0]:
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def _named_settings(argv: Sequence[str], listed: Collection[str]) -> list[str]:
    """The settings on the command line that belong to sections with names of their own: `model.others.depth.kind`."""
    options = [word if word.startswith("--") else f"--{word}" for word in argv]
    words = [_underscored(option)[2:].partition("=")[0] for option in options]
    return [name for name in dict.fromkeys(words) if name not in listed and leaf_at(Config, name) is not None]


def _explained(leaf: Leaf, values: Mapping[str, Any]) -> str:
    """What a setting means and, in brackets, its value."""
    if not leaf.kinds:
        return f"{leaf.info.description or leaf.allowed} [{setting_text(values[leaf.path])}]"
    texts = dict.fromkeys(info.description for info in leaf.kinds.values())
    text = next(iter(texts)) if len(texts) == 1 else "; ".join(f"{k}: {i.description}" for k, i in leaf.kinds.items())
    if leaf.path.endswith(".kind"):
        return f"{text} [required]"
    defaults = {k: "required" if i.is_required() else setting_text(i.default) for k, i in leaf.kinds.items()}
    return f"{text} [{', '.join(f'{kind}: {value}' for kind, value in defaults.items())}]"


def _one_line(text: str | None) -> str | None:
    return " ".join(text.split()) if text else None


def positive(text: str) -> int:
    """Type of an option that counts from 1."""
    return _at_least(1, text)


def non_negative(text: str) -> int:
    """Type of an option that counts from 0."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    if not text.lstrip("-").isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected an integer of at least {least}, got '{text}'")
    return int(text)
