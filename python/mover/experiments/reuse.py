"""A run that another experiment has trained with equal settings, taken over so that only its evaluation is left.

Beside what is taken lies origin.json: {"taken_from": "presets/mover/seed-0"} and what its record says of the training.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from mover.durable_file import durable_file
from mover.errors import UserError
from mover.experiments.plan import Run
from mover.experiments.record import changes, read_record
from mover.train.checkpoint import copy_checkpoint, find_checkpoint
from mover.train.run_folder import RunFolder

_RECORD = "result.json"
_ORIGIN = "origin.json"
_OF_TRAINING = ("seconds", "resumed", "built_from", "hardware")
"""What a record says of the training beside what stands in the log."""


def find_equal(run: Run) -> Path | None:
    """The folder of a complete run of equal settings and seed, of whatever experiment under the same output; None where
    there is none, or where the run starts from another."""
    if run.config.train.start_from:
        return None
    output = run.config.output.parent.parent
    for path in sorted(output.glob(f"*/*/{run.config.name}/{_RECORD}")):
        if path != run.record and _is_equal(path, run):
            return path.parent
    return None


def _is_equal(path: Path, run: Run) -> bool:
    try:
        record = read_record(path)
        if record is None or changes(record["settings"], run.config):
            return False
        folder = RunFolder(path.parent)
        return all(find_checkpoint(checkpoint) for checkpoint in (folder.last, folder.best))
    except UserError:  # damaged, or its checkpoints were removed: it is of no use here
        return False


def take(source: Path, folder: RunFolder) -> None:
    """Make `folder` the run of `source`, trained and not evaluated. The last checkpoint comes last: without it, the
    run counts as not begun.

    Raises:
        UserError: the record of `source` is not there, or a file cannot be written.
    """
    record = read_record(source / _RECORD)
    if record is None:
        raise UserError(f"{source / _RECORD} is not there: the same command trains the run in place of taking it.")
    origin = origin_of(source) or {
        "taken_from": "/".join(source.parts[-3:]), **{key: record[key] for key in _OF_TRAINING}
    }  # fmt: skip
    given = RunFolder(source)
    forget(folder)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder.last.parent, ignore_errors=True)
        shutil.copyfile(given.log, folder.log)
        if given.plans.is_dir():
            shutil.copytree(given.plans, folder.plans, dirs_exist_ok=True)
        with durable_file(folder.path / _ORIGIN) as file:
            file.write((json.dumps(origin, indent=1) + "\n").encode("utf-8"))
        for old, new in ((given.best, folder.best), (given.last, folder.last)):
            copy_checkpoint(find_checkpoint(old), new)
    except OSError as error:
        raise UserError(f"{source} cannot be copied to {folder.path}: {error.strerror or error}.") from None


def origin_of(path: Path) -> dict[str, Any] | None:
    """Where the run in a folder was taken from, and how it was trained there; None where it was trained here.

    Raises:
        UserError: the file that says so is damaged.
    """
    try:
        origin: dict[str, Any] = json.loads((path / _ORIGIN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path / _ORIGIN} cannot be read ({error}): remove {path}, and the run is made again."
        ) from None
    return origin


def forget(folder: RunFolder) -> None:
    """What is trained in a folder from here on is its own."""
    (folder.path / _ORIGIN).unlink(missing_ok=True)
