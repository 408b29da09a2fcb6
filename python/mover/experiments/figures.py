"""The figures of an experiment: bars with their seeds, numbers against a setting, validation over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from mover.configs import setting_text
from mover.evaluate.pictures import INK, save_picture
from mover.experiments.axes import TONES, dress, line_styles, number, validation_line
from mover.experiments.matches import draw_matches

_LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 8, "loc": "outside right center"}


def draw_figures(found: Mapping[str, Any], folder: Path, stem: str = "") -> dict[str, str]:
    """Draw what the results have.

    Args:
        found: as `mover.experiments.results.gather` gives it.
        folder: where to, as STEMbars.png or STEMstudy.png, STEMvalidation.png and STEMmatches.png.

    Returns:
        name of a file to what the figure shows, in words.
    """
    drawn: dict[str, str] = {}
    columns = [c for c in found["columns"] if any(cell[c]["n"] for cell in found["means"].values())]
    if columns and found["study"] is None:
        name = f"{stem}bars.png"
        _bars(found, columns, folder / name)
        drawn[name] = f"{', '.join(columns)} of each variant: means, and a dot for each seed"
    elif columns:
        name = f"{stem}study.png"
        _study(found, columns, folder / name)
        drawn[name] = f"{', '.join(columns)} against {found['study']['label']}: means with standard deviations"
    if any(len(run["validation"]) > 1 for cell in found["cells"].values() for run in cell["runs"].values()):
        name = f"{stem}validation.png"
        _validation(found, folder / name)
        drawn[name] = "Validation R@1 over the steps: mean, lowest and highest of the seeds"
    if draw_matches(found, folder / f"{stem}matches.png"):
        recall = "" if found["study"] else ", R@1"
        drawn[f"{stem}matches.png"] = f"Plans of validation clips, groups kept and right{recall}, over the steps"
    return drawn


def _bars(found: Mapping[str, Any], columns: Sequence[str], path: Path) -> None:
    """A panel for each table."""
    tables = {title: [name for name in own if name in columns] for title, own in found["tables"].items()}
    tables = {title: own for title, own in tables.items() if own}
    most = max(map(len, tables.values()))
    size = (min(16, 3.2 + 0.34 * most * (len(found["cells"]) + 1)), 0.4 + 3.4 * len(tables))
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(found["title"], x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    for axes, (title, own) in zip(figure.subplots(len(tables), 1, squeeze=False)[:, 0], tables.items(), strict=True):
        _group(axes, found, own)
        dress(axes, title)
    figure.legend(*axes.get_legend_handles_labels(), **_LEGEND)
    save_picture(figure, path)


def _group(axes: Axes, found: Mapping[str, Any], columns: Sequence[str]) -> None:
    width = 0.8 / len(found["cells"])
    for i, (name, cell) in enumerate(found["cells"].items()):
        at = np.arange(len(columns)) + (i - (len(found["cells"]) - 1) / 2) * width
        entries = [found["means"][name][column] for column in columns]
        tone = TONES[i % len(TONES)]
        axes.bar(at, [number(e["mean"]) for e in entries], 0.92 * width, color=tone, alpha=0.55, label=cell["label"])
        for place, entry in zip(at, entries, strict=True):
            dots = list(entry["values"].values())
            spread = np.linspace(-0.25, 0.25, len(dots)) * width if len(dots) > 1 else np.zeros(len(dots))
            axes.scatter(place + spread, dots, s=12, color=tone, edgecolor="white", linewidth=0.4, zorder=3)
    axes.set_xticks(np.arange(len(columns)), columns, fontsize=9)


def _study(found: Mapping[str, Any], columns: Sequence[str], path: Path) -> None:
    """A panel for each number, a line for each variant."""
    study, cells = found["study"], found["cells"]
    figure = Figure(figsize=(2.6 + 3.4 * len(columns), 3.9), layout="constrained")
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    figure.suptitle(found["title"], x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    values = list(dict.fromkeys(cell["value"] for cell in cells.values()))
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places = {value: float(value) if numeric else float(i) for i, value in enumerate(values)}
    for panel, column in zip(panels, columns, strict=True):
        for variant, style in line_styles(found).items():
            own = {name: cell for name, cell in cells.items() if cell["variant"] == variant}
            at = np.array([places[cell["value"]] for cell in own.values()])
            entries = [found["means"][name][column] for name in own]
            means = np.array([number(entry["mean"]) for entry in entries])
            spread = np.array([entry["deviation"] or 0.0 for entry in entries])
            panel.plot(at, means, markersize=4, linewidth=1.6, label=next(iter(own.values()))["variant_label"], **style)
            panel.fill_between(at, means - spread, means + spread, color=style["color"], alpha=0.15, linewidth=0)
        if numeric and study["log"]:
            panel.set_xscale("log")
        if study["log_numbers"]:
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
        panel.set_xticks(list(places.values()), [setting_text(value) for value in places], minor=False)
        panel.set_xticks([], minor=True)
        dress(panel, column)
        panel.set_xlabel(study["label"])
    figure.legend(*panels[0].get_legend_handles_labels(), **_LEGEND)
    save_picture(figure, path)


def _validation(found: Mapping[str, Any], path: Path) -> None:
    """The joint direction, or what stands for all: a panel for each value of the study, a line for each variant."""
    values = list(dict.fromkeys(cell["value"] for cell in found["cells"].values()))
    width = 4.2 if len(values) == 1 else 2.9
    figure = Figure(figsize=(3.2 + width * len(values), 4.0), layout="constrained")
    panels = figure.subplots(1, len(values), squeeze=False, sharey=True)[0]
    styles, named, shown = line_styles(found), {}, ""
    for panel, value in zip(panels, values, strict=True):
        for cell in (cell for cell in found["cells"].values() if cell["value"] == value):
            drawn = validation_line(panel, cell, **styles[cell["variant"]] | {"marker": ""})
            if drawn is not None:
                shown, named[cell["variant_label"]] = drawn
        dress(panel, "" if found["study"] is None else f"{found['study']['label']} {setting_text(value)}")
        panel.set_xlabel("step")
    figure.suptitle(f"validation {shown} R@1: mean, lowest and highest of the seeds", x=0.01, ha="left", fontsize=10)
    figure.legend(list(named.values()), list(named), **_LEGEND)
    save_picture(figure, path)
