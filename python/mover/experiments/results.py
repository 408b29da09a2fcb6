"""What came out of an experiment, as one dictionary: results.json, from which tables and figures are made.

experiment, title, asks, notes, config, overrides, columns, study
cells        cell to its label, variant, value, own settings, and "runs": seed to metrics, validation, cost …
means        cell to column to {"mean", "deviation", "n", "values": seed to number}
differences  cell to the cell it is compared with to column, as above, of the differences of equal seeds
settings     those of all runs that are not the defaults
made_by      versions, commits and hardware, each with the number of runs
absent       runs that are not complete
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mover.config import Config
from mover.configs import differences, setting_text
from mover.experiments.definition import Column, Definition
from mover.experiments.plan import Cell, Run, cells_of
from mover.experiments.record import number_of, read_record, state_of

_OF_A_RUN = (
    "metrics", "validation", "matches", "cost", "seconds", "best", "resumed", "built_from", "hardware",
    "taken_from",
)  # fmt: skip


def gather(definition: Definition, runs: Sequence[Run], config: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The results of those runs that are complete and have the settings of the plan.

    Args:
        definition: the experiment. runs: as planned.
        config, overrides: what the runs were planned with, to be told.
    """
    records, absent = {}, []
    for run in runs:
        record = read_record(run.record) if state_of(run)[0] == "done" else None
        if record is None:
            absent.append(run.name)
        else:
            records[run.cell, run.seed] = record
    planned = {run.cell for run in runs}
    cells = [cell for cell in cells_of(definition) if cell.name in planned and definition.variants[cell.variant].shown]
    columns = definition.measured
    values = {
        cell.name: {column.label: _values(records, cell.name, column) for column in columns} for cell in cells
    }  # fmt: skip
    study = definition.study
    return {
        "experiment": definition.name,
        "title": definition.title,
        "asks": definition.asks,
        "notes": list(definition.notes),
        "config": config,
        "overrides": {name: setting_text(value) for name, value in overrides.items()},
        "columns": [column.label for column in columns],
        "tables": {title: [column.label for column in own] for title, own in definition.tables.items()},
        "study": None if study is None else {
            "setting": study.setting, "label": study.label or study.setting, "log": study.log,
            "log_numbers": study.log_numbers,
        },
        "cells": {cell.name: _told(cell, definition, records) for cell in cells},
        "means": {
            cell: {label: summary(by_seed) for label, by_seed in entries.items()} for cell, entries in values.items()
        },
        "differences": {
            cell.name: {
                other.name: {label: summary(paired(values[cell.name][label], values[other.name][label]))
                             for label in values[cell.name]}
                for other in _compared(cell, cells, definition)
            }
            for cell in cells
        },
        "settings": _common_settings(runs),
        "made_by": _made_by(records.values()),
        "absent": absent,
    }  # fmt: skip


def summary(by_seed: Mapping[str, float]) -> dict[str, Any]:
    """Mean and standard deviation (n - 1 degrees of freedom; None of one value) of a number by seed."""
    numbers = list(by_seed.values())
    mean = math.fsum(numbers) / len(numbers) if numbers else None
    deviation = None
    if mean is not None and len(numbers) > 1:
        deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in numbers) / (len(numbers) - 1))
    return {
        "mean": None if mean is None else round(mean, 4),
        "deviation": None if deviation is None else round(deviation, 4),
        "n": len(numbers),
        "values": dict(by_seed),
    }


def paired(by_seed: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """The first less the second, for the seeds that both have."""
    return {seed: round(value - other[seed], 4) for seed, value in by_seed.items() if seed in other}


def _values(records: Mapping[tuple[str, int], Any], cell: str, column: Column) -> dict[str, float]:
    found = {}
    for (name, seed), record in records.items():
        if name == cell:
            value = number_of(record, column)
            if value is not None:
                found[str(seed)] = round(value, 4)
    return found


def _told(cell: Cell, definition: Definition, records: Mapping[tuple[str, int], Any]) -> dict[str, Any]:
    variant = definition.variants[cell.variant]
    runs = {
        str(seed): {key: record.get(key) for key in _OF_A_RUN}
        for (n, seed), record in records.items()
        if n == cell.name
    }
    return {
        "label": cell.label, "variant": cell.variant, "variant_label": variant.label or cell.variant,
        "value": cell.value, "settings": {name: setting_text(value) for name, value in variant.settings.items()},
        "start_from": list(variant.start_from), "runs": runs,
    }  # fmt: skip


def _compared(cell: Cell, cells: Sequence[Cell], definition: Definition) -> list[Cell]:
    """The cells that a cell is compared with: of the same value."""
    others = definition.compared_with(cell.variant)
    return [other for other in cells if other.variant in others and other.value == cell.value]


def _common_settings(runs: Sequence[Run]) -> dict[str, str]:
    """The settings that all runs share and that are not the defaults."""
    changed = [
        {name: setting_text(new) for name, (_, new) in differences(Config(), run.config).items()} for run in runs
    ]
    shared = {name: text for name, text in (changed[0] if changed else {}).items() if name not in ("name", "output")}
    return {name: text for name, text in shared.items() if all(other.get(name) == text for other in changed)}


def _made_by(records: Any) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for record in records:
        for name, value in (record["built_from"] | record["hardware"]).items():
            counts.setdefault(name, Counter())[str(value)] += 1
    return {name: dict(counter.most_common()) for name, counter in counts.items()}
