"""The results of an experiment in Markdown: means with their spread, and differences of equal seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mover.configs import setting_text

_NONE = "–"


def markdown(found: Mapping[str, Any], figures: Mapping[str, str] | None = None) -> str:
    """The page of an experiment.

    Args:
        found: as `mover.experiments.results.gather` gives it.
        figures: path, as the page is to link to it, to what the figure shows.
    """
    parts = [*tables(found), notes(found)]
    parts += [f"![{text}]({path})" for path, text in (figures or {}).items()]
    return "\n\n".join(part for part in parts if part) + "\n"


def tables(found: Mapping[str, Any]) -> list[str]:
    """Each table with its title, and that of the differences after it."""
    parts = []
    for title, columns in found["tables"].items():
        parts += [f"**{title}**" if title else "", mean_table(found, columns), difference_table(found, columns)]
    return [part for part in parts if part]


def mean_table(found: Mapping[str, Any], columns: Sequence[str]) -> str:
    """A row for each cell, a column for each number: mean ± standard deviation over the seeds."""
    head = ["", *columns, "seeds"]
    rows = []
    for name, cell in found["cells"].items():
        entries = found["means"][name]
        counts = sorted({entries[column]["n"] for column in columns})
        seeds = "–".join(str(count) for count in counts[:: max(1, len(counts) - 1)])
        rows.append([cell["label"], *(_spread(entries[column]) for column in columns), seeds])
    return _table(head, rows)


def difference_table(found: Mapping[str, Any], columns: Sequence[str]) -> str:
    """Each cell less those it is compared with, seed by seed; empty where nothing is compared."""
    rows = []
    for name, others in found["differences"].items():
        for other, entries in others.items():
            cell, study = found["cells"][name], found["study"]
            label = f"{cell['variant_label']} − {found['cells'][other]['variant_label']}"
            label += "" if study is None else f", {study['label']} {setting_text(cell['value'])}"
            rows.append([label, *(_spread(entries[column], signed=True) for column in columns)])
    return _table(["difference of equal seeds", *columns], rows) if rows else ""


def notes(found: Mapping[str, Any]) -> str:
    """What has to be known of the numbers."""
    seeds = sorted({int(seed) for cell in found["cells"].values() for seed in cell["runs"]})
    text = f"`mover experiment {found['experiment']}"
    text += "".join(f" {name}={value}" for name, value in found["overrides"].items()) + "`"
    lines = [
        f"Mean ± standard deviation over the seeds ({', '.join(map(str, seeds)) or 'none yet'}); in brackets how many "
        f"of the differences are above 0. Configuration `{found['config']}`; made by {text}."
    ]
    made = found["made_by"]
    if made:
        lines.append("; ".join(f"{key}: {_counted(values)}" for key, values in made.items() if values) + ".")
    taken = {
        (cell["label"], run["taken_from"].rpartition("/")[0])
        for cell in found["cells"].values() for run in cell["runs"].values() if run.get("taken_from")
    }  # fmt: skip
    if taken:
        listed = ", ".join(f"{label} ({source})" for label, source in sorted(taken))
        lines.append(f"Trained for another experiment, with equal settings, and evaluated here: {listed}.")
    if found["absent"]:
        lines.append(f"Not complete, and not in the tables: {', '.join(found['absent'])}.")
    return "\n".join([*found["notes"], *lines])


def _counted(values: Mapping[str, int]) -> str:
    """`a` where all runs have it, else `a (2 runs), b (1)`."""
    if len(values) == 1:
        return next(iter(values))
    return ", ".join(f"{value} ({count} run{'s' if count > 1 else ''})" for value, count in values.items())


def _spread(entry: Mapping[str, Any], signed: bool = False) -> str:
    if entry["mean"] is None:
        return _NONE
    sign = "+" if signed else ""
    text = f"{entry['mean']:{sign}.1f}".replace("-", "−")
    if entry["deviation"] is not None:
        text += f" ± {entry['deviation']:.1f}"
    if signed:
        above = sum(value > 0 for value in entry["values"].values())
        text += f" ({above} of {entry['n']})"
    return text


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in lines)
