"""A comparison of systems as tables in the layout of the paper: rows are systems, columns data sets and directions."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

_NONE = "–"
_PER_COLUMN = 14
"""Characters that a column of results takes in a terminal."""

CSV_COLUMNS = (
    "dataset", "direction", "system", "clips", "queries", "metric", "value", "low", "high",
    "baseline", "difference", "difference_low", "difference_high", "p",
)  # fmt: skip


def columns(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Data set and direction of every column of results."""
    return [(dataset, name) for dataset, entry in found["datasets"].items() for name in entry["directions"]]


def result_tables(found: Mapping[str, Any], width: int) -> Iterator[Table]:
    """Recall@1 (Recall@10) of all systems, in as many tables as a terminal `width` characters wide needs."""
    names = 2 + max(len(name) for name in found["systems"])
    every = columns(found)
    size = max(1, (width - names - 3) // _PER_COLUMN)
    for start in range(0, len(every), size):
        part = every[start : start + size]
        table = Table(title="R@1 (R@10), %" if not start else None, title_justify="left")
        table.add_column("system", no_wrap=True)
        for dataset, direction in part:
            table.add_column(Text(f"{dataset}\n{direction}".strip()), justify="right")
        for name in found["systems"]:
            table.add_row(Text(name), *(_cell(found, name, *column) for column in part))
        yield table


def difference_table(found: Mapping[str, Any]) -> Table:
    """Recall@1 of each system less that of the baseline, with its 95 % interval and p, and the clips that changed."""
    table = Table(title=Text(f"R@1 less that of {found['baseline']}, points"), title_justify="left")
    table.add_column("direction")
    table.add_column("system")
    for head in ("Δ R@1", "95 %", "p", "clips +/−/all"):
        table.add_column(head, justify="right", no_wrap=True)
    for dataset, direction in columns(found):
        entry = found["datasets"][dataset]["directions"][direction]
        for name, row in entry["systems"].items():
            if "difference" in row:
                gap = row["difference"]["R@1"]
                low, high = gap["interval"]
                table.add_row(
                    Text(f"{dataset} {direction}".strip()), Text(name), f"{gap['value']:+.1f}",
                    Text(f"[{low:+.1f}, {high:+.1f}]"), _p(gap["p"], found),
                    f"{row['clips_better']}/{row['clips_worse']}/{entry['clips']}",
                )  # fmt: skip
    return table


def kept(found: Mapping[str, Any]) -> list[str]:
    """What of each file is compared, in sentences."""
    said = []
    for dataset, entry in found["datasets"].items():
        head = f"{dataset}: " if dataset else ""
        systems = entry["systems"]
        if len(systems) == 1:
            said.append(f"{head}only {next(iter(systems))} has embeddings, {entry['clips']} clips")
            continue
        said.append(f"{head}{entry['clips']} clips are in all {len(systems)} files")
        for name, about in systems.items():
            if about["left_out"]:
                said.append(f"  {name}: {about['left_out']} of {about['listed']} clips are not in all files, left out")
            without = [f"{n} without {m}" for m, n in about["without"].items() if n]
            if without:
                said.append(f"  {name}: {', '.join(without)}: left out, for all systems, of what needs it")
            bad = [f"{n} with a {m} row" for m, n in about["unusable"].items() if n]
            if bad:
                said.append(f"  {name}: {', '.join(bad)} that is zero or not finite and ranks last")
        few = [f"{name} ({clips})" for name, clips in entry["too_few_clips"].items()]
        if few:
            said.append(f"  too few clips have what it needs, not compared: {', '.join(few)}")
        if entry["captions_differ"]:
            said.append(
                f"  {entry['captions_differ']} clips have other numbers of captions in one file than in another"
            )
    if not any("difference" in row for column in columns(found) for row in _systems(found, *column).values()):
        said.append(
            f"{found['baseline']} shares no direction with another system: there are values, but no differences"
        )
    return said


def markdown(found: Mapping[str, Any]) -> str:
    """The table in Markdown; the best R@1 of a column is bold, and * marks a difference whose interval excludes 0."""
    every = columns(found)
    heads = ["", *(_escaped(f"{dataset} {direction}".strip()) for dataset, direction in every)]
    rows = [heads, ["---", *["---:"] * len(every)]]
    best = {column: max(_recall(found, name, *column) for name in found["systems"]) for column in every}
    for name in found["systems"]:
        cells = [_escaped(name)]
        for column in every:
            recall, star, ten = _parts(found, name, *column)
            bold = recall != _NONE and round(_recall(found, name, *column), 1) == round(best[column], 1)
            cells.append((f"**{recall}**" if bold else recall) + (rf"\{star}" if star else "") + ten)
        rows.append(cells)
    settings = found["settings"]
    clips = "; ".join(
        f"{dataset} {direction}: {found['datasets'][dataset]['directions'][direction]['clips']}".strip()
        for dataset, direction in every
    )
    note = (
        f"R@1 (R@10) in percent over the clips that all systems have ({clips}). \\*: the 95 % interval of the "
        f"difference in R@1 to {found['baseline']} excludes 0 (paired bootstrap over clips, {settings['resamples']} "
        f"resamples, seed {settings['seed']}, not corrected for the number of comparisons)."
    )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + f"\n\n{_escaped(note)}\n"


def csv_text(found: Mapping[str, Any]) -> str:
    """A line per data set, direction, system and metric; columns `CSV_COLUMNS`, empty where there is no difference."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for dataset, direction in columns(found):
        entry = found["datasets"][dataset]["directions"][direction]
        for name, row in entry["systems"].items():
            for metric, interval in row["intervals"].items():
                gap = row.get("difference", {}).get(metric)
                apart = [found["baseline"], gap["value"], *gap["interval"], gap["p"]] if gap else [""] * 5
                line = [dataset, direction, name, entry["clips"], row["queries"], metric, row[metric], *interval]
                writer.writerow([*line, *apart])
    return text.getvalue()


def _systems(found: Mapping[str, Any], dataset: str, direction: str) -> Mapping[str, Any]:
    systems: Mapping[str, Any] = found["datasets"][dataset]["directions"][direction]["systems"]
    return systems


def _row(found: Mapping[str, Any], name: str, dataset: str, direction: str) -> Mapping[str, Any] | None:
    return _systems(found, dataset, direction).get(name)


def _recall(found: Mapping[str, Any], name: str, dataset: str, direction: str) -> float:
    row = _row(found, name, dataset, direction)
    return -1.0 if row is None else float(row["R@1"])


def _cell(found: Mapping[str, Any], name: str, dataset: str, direction: str) -> str:
    return "".join(_parts(found, name, dataset, direction))


def _parts(found: Mapping[str, Any], name: str, dataset: str, direction: str) -> tuple[str, str, str]:
    """R@1; a star where the interval of the difference to the baseline excludes 0; R@10 in brackets."""
    row = _row(found, name, dataset, direction)
    if row is None:
        return _NONE, "", ""
    low, high = row["difference"]["R@1"]["interval"] if "difference" in row else (0.0, 0.0)
    return f"{row['R@1']:.1f}", "*" if low > 0 or high < 0 else "", f" ({row['R@10']:.1f})"


def _p(value: float, found: Mapping[str, Any]) -> str:
    least = 2 / (1 + found["settings"]["resamples"])
    return f"< {least:.2g}" if value <= least * 1.01 else f"{value:.2g}"


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
