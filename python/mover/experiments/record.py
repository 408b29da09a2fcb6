"""What a complete run leaves for the tables, result.json, and whether it is that of a planned run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pydantic import ValidationError

from mover.config import Config
from mover.configs import differences
from mover.durable_file import durable_file
from mover.errors import UserError
from mover.evaluate.directions import headline
from mover.experiments.definition import Column, Evaluation
from mover.experiments.plan import Run
from mover.train.checkpoint import find_checkpoint, load_checkpoint_config

State = Literal["done", "new", "unfinished", "other settings"]

COST = "cost"
"""The row of what a run took: "ms a step", the median, "ms a step, mean", and "MiB" of the loop."""
_INDIFFERENT = (
    "name", "output", "data.cache", "data.cache_folder", "data.workers", "train.checkpoint_every", "train.log_every",
    "train.device", "train.diagnose_every", "train.threads",
)  # fmt: skip
"""Settings that change no result, but for the last digits. But with `data.cache` features nothing is drawn at random
from frames and sound."""


def read_record(path: Path) -> dict[str, Any] | None:
    """The record of a run, None where there is none.

    Raises:
        UserError: the file is none of these.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not the result of a run ({error}): remove it, and the run is made again.") from None
    if not isinstance(record, dict) or not {"settings", "asked", "metrics"} <= set(record):
        raise UserError(f"{path} is not the result of a run: remove it, and the run is made again.")
    return record


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write it in one move."""
    with durable_file(path) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode("utf-8"))


def number_of(record: Mapping[str, Any], column: Column) -> float | None:
    """The number of a column in the record of a run; None where it has none.

    The row "joint" is the direction that stands for all, "joint span" the same by another score, "pairs" the mean of
    those between two single modalities, and "cost" what the run took.
    """
    if column.row == COST:
        cost: float | None = record["cost"].get(column.metric)
        return cost
    rows = record["metrics"].get(column.evaluation, {})
    if column.row == "pairs":
        numbers = [_at(row, column.metric) for name, row in rows.items() if " " not in name and "gain" not in row]
        return fmean(x for x in numbers if x is not None) if numbers and None not in numbers else None
    name, _, score = column.row.partition(" ")
    name = headline(list(rows)) if name == "joint" and rows else name
    return _at(rows.get(f"{name} {score}".rstrip()), column.metric)


def _at(row: Any, path: str) -> float | None:
    """The number at a path through mappings, zero_shot/seen/R@1; None where there is none."""
    for name in path.split("/"):
        row = row.get(name) if isinstance(row, Mapping) else None
    return None if row is None else float(row)


def asked(run: Run) -> dict[str, Any]:
    """The evaluations of a run, as its record has them."""
    return {name: evaluation.model_dump(mode="json") for name, evaluation in run.evaluations.items()}


def state_of(run: Run) -> tuple[State, str]:
    """How far a run is, and, where its folder holds one of other settings, which these are, in words."""
    record = read_record(run.record)
    if record is not None:
        changed = changes(record["settings"], run.config)
        if changed:
            return "other settings", changed
        return ("done" if _asked_the_same(record["asked"], run) else "unfinished"), ""
    try:
        checkpoint = find_checkpoint(run.folder.last)
        old = load_checkpoint_config(checkpoint).model_dump(mode="json")
    except UserError:  # none yet: nothing is lost by beginning anew
        return "new", ""
    changed = changes(old, run.config)
    return ("other settings", changed) if changed else ("unfinished", "")


def _asked_the_same(before: Mapping[str, Any], run: Run) -> bool:
    try:
        return {name: Evaluation.model_validate(told) for name, told in before.items()} == run.evaluations
    except ValidationError:  # of another version
        return False


def changes(settings: Mapping[str, Any], config: Config) -> str:
    """In which settings that count a run differs from `config`, in words; empty where in none."""
    try:
        old = Config.model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])} is not a setting of this version, or not its value"
    found = {
        name: pair
        for name, pair in differences(old, config).items()
        if name not in _INDIFFERENT or (name == "data.cache" and "features" in pair)
    }
    shown = [f"{name} is {before} there and {now} here" for name, (before, now) in list(found.items())[:3]]
    return "; ".join(shown) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
