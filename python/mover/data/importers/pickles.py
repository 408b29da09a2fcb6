"""Reading pickles that hold data only. A pickle is a program: one that names anything to call is refused unread."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn

from mover.errors import UserError

_ALLOWED = {(module, kind.__name__): kind for module in ("builtins", "__builtin__") for kind in (set, frozenset)}
"""Containers that older protocols have to name. Lists, dicts, strings and numbers need no name."""


def read_pickle(path: Path) -> Any:
    """The value of a pickle of plain containers, strings and numbers.

    Raises UserError naming the file, and what the pickle wanted to call, for anything else.
    """
    try:
        with open(path, "rb") as file:
            return _Restricted(file, path).load()
    except OSError as error:
        raise UserError(
            f"The annotation file {path} cannot be read: {error.strerror}. Name the published file."
        ) from None
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(f"{path} is not a pickle that can be read: {error}. Fetch it again.") from None


class _Restricted(pickle.Unpickler):
    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="utf-8")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            self._refuse(f"names {module}.{name}")
        return _ALLOWED[module, name]

    def persistent_load(self, identifier: Any) -> NoReturn:
        self._refuse("refers to something outside itself")

    def _refuse(self, what: str) -> NoReturn:
        raise UserError(
            f"{self._path}: this pickle {what}, and loading it could run code. Only containers, strings and numbers "
            "are read: fetch the published file, or save its content as plain dicts."
        )
