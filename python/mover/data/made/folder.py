"""The folder of a data set that MOVER makes: it appears when it is complete, and the same settings are not made twice.

dataset.json holds the settings, and is the sign that the folder is ours and complete.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mover.data.manifest import write_atomically
from mover.errors import UserError

MANIFEST = "manifest.jsonl"
_SIGN = "dataset.json"


def make_folder(out: Path, settings: Mapping[str, Any], fill: Callable[[Path], None]) -> Path:
    """Make a data set in the folder `out`; gives the path of its manifest.

    settings: everything the content depends on, as JSON values; "name" says which data set it is.
    fill: writes the files, the manifest among them, into the folder it is given.
    A folder with the same settings is left as it is, one of the same name with other settings is replaced when the new
    one is complete. Raises UserError for a folder that holds anything else.
    """
    out = Path(os.path.abspath(out))
    if _found(out, settings["name"]) == settings and (out / MANIFEST).is_file():
        return out / MANIFEST
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UserError(f"The data set cannot be written to {out}: {error.strerror}. Name another folder.") from None
    try:
        os.chmod(building, 0o755)
        fill(building)
        write_atomically(building / _SIGN, json.dumps(settings, indent=2) + "\n")
        _put_in_place(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return out / MANIFEST


def _found(out: Path, name: str) -> dict[str, Any] | None:
    """The settings of the data set in `out`; None where there is nothing. Raises UserError for anything else."""
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        settings = json.loads((out / _SIGN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = None
    if not isinstance(settings, dict) or not str(settings.get("name")).startswith("mover-"):
        raise UserError(
            f"{out} is there already and 'mover synth' did not make it. Name a folder that is new or empty."
        )
    if settings["name"] != name:
        raise UserError(
            f"{out} holds another data set, {settings['name']}, and this is {name}. Name a folder that is new or empty."
        )
    return settings


def _put_in_place(building: Path, out: Path) -> None:
    """Move the finished folder to `out`; an earlier data set there goes only then."""
    earlier = building.with_name(building.name + ".old")
    if os.path.lexists(out):
        os.rename(out, earlier)
    os.rename(building, out)
    shutil.rmtree(earlier, ignore_errors=True)
