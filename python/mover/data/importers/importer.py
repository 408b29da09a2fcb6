"""What an importer is: a function from published files to clips, with the options and the help it declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mover.data.clip import Clip
from mover.errors import UserError


@dataclass(frozen=True)
class Option:
    """An argument of an importer beside annotations and media; `--<name>` on the command line.

    With `choices` it is one of them, `default` by default; with a `metavar` a folder or file; with neither a switch.
    """

    name: str
    help: str
    choices: tuple[str, ...] = ()
    default: str | None = None
    metavar: str | None = None


AUDIO = Option("audio", "folder of separate audio files, named as the media are", metavar="DIR")


def untrimmed(names: str) -> Option:
    """The switch for sets whose clips are parts of uploads; `names` says how the files of whole uploads are called."""
    return Option("untrimmed", f"the files are whole uploads, named {names}: each clip is cut out when it is read")


@dataclass(frozen=True)
class Importer:
    """Turns one public annotation format into clips.

    name: on the command line. title: one line that says what the set is. guide: which files are read and how media
    are named, with an example; shown by `mover import NAME --help`. options: beside annotations and media.

    Called with `annotations` (file or folder), `media` (folder) and options by keyword, it returns clips in the order
    of the annotations. A clip whose file is not there is kept with status "missing". Fields it does not know are kept
    under `extra`. Raises UserError naming the file and the row for anything malformed, and when not one media file is
    found.
    """

    name: str
    title: str
    guide: str
    load: Callable[..., list[Clip]]
    options: tuple[Option, ...] = ()

    def __call__(self, annotations: Path, media: Path, **options: Any) -> list[Clip]:
        for option in self.options:
            value = options.get(option.name, option.default)
            if option.choices and value not in option.choices:
                raise UserError(
                    f"{self.name}: '{option.name}' must be one of {', '.join(option.choices)}, got '{value}'."
                )
        return self.load(Path(annotations), Path(media), **options)
