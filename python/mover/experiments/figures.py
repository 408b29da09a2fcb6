"""The figures of an experiment: bars with their seeds, R@1 against a setting, validation over the steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mover.evaluate.directions import headline
from mover.evaluate.pictures import INK, save_picture
from mover.experiments.axes import TONES, dress, number
from mover.experiments.matches import draw_matches

_MOST_BARS = 40


def draw_figures(found: Mapping[str, Any], folder: Path, stem: str = "") -> dict[str, str]:
    """Draw what the results have.

    Args:
        found: as `mover.experiments.results.gather` gives it.
        folder: where to, as STEMbars.png or STEMstudy.png, and STEMvalidation.png.

    Returns:
        name of a file to what the figure shows, in words.
    """
    drawn: dict[str, str] = {}
    if not any(cell["runs"] for cell in found["cells"].values()):
        return drawn
    if found["study"] is None:
        name = f"{stem}bars.png"
        _bars(found, folder / name)
        drawn[name] = f"{', '.join(found['columns'])} of each variant: means, and a dot for each seed"
    else:
        name = f"{stem}study.png"
        _study(found, folder / name)
        drawn[name] = f"{', '.join(found['columns'])} against {found['study']['label']}: means with standard deviations"
    if any(run["validation"] for cell in found["cells"].values() for run in cell["runs"].values()):
        name = f"{stem}validation.png"
        _validation(found, folder / name)
        drawn[name] = "Validation R@1 over the steps, means over the seeds"
    if draw_matches(found, folder / f"{stem}matches.png"):
        drawn[f"{stem}matches.png"] = "Plans of validation clips, groups kept and right, R@1, over the steps"
    return drawn


def _bars(found: Mapping[str, Any], path: Path) -> None:
    columns, cells = found["columns"], found["cells"]
    width = 0.8 / len(cells)
    figure = Figure(figsize=(min(16, 2.5 + 0.34 * len(columns) * (len(cells) + 1)), 4.2), layout="constrained")
    axes = figure.subplots()
    for i, (name, cell) in enumerate(cells.items()):
        at = np.arange(len(columns)) + (i - (len(cells) - 1) / 2) * width
        means = [number(found["means"][name][column]["mean"]) for column in columns]
        tone = TONES[i % len(TONES)]
        axes.bar(at, means, 0.92 * width, color=tone, alpha=0.55, label=cell["label"])
        for place, column in zip(at, columns, strict=True):
            dots = list(found["means"][name][column]["values"].values())
            spread = np.linspace(-0.25, 0.25, len(dots)) * width if len(dots) > 1 else np.zeros(len(dots))
            axes.scatter(place + spread, dots, s=12, color=tone, edgecolor="white", linewidth=0.4, zorder=3)
    axes.set_xticks(np.arange(len(columns)), columns, fontsize=9)
    dress(axes, found["title"])
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_picture(figure, path)


def _study(found: Mapping[str, Any], path: Path) -> None:
    columns, study = found["columns"], found["study"]
    figure = Figure(figsize=(1.6 + 3.4 * len(columns), 3.9), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(columns), squeeze=True))
    figure.suptitle(found["title"], x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    variants = dict.fromkeys(cell["variant"] for cell in found["cells"].values())
    values = list(dict.fromkeys(str(cell["value"]) for cell in found["cells"].values()))
    numeric = all(_is_number(cell["value"]) for cell in found["cells"].values())
    for panel, column in zip(panels, columns, strict=True):
        for i, variant in enumerate(variants):
            own = {name: cell for name, cell in found["cells"].items() if cell["variant"] == variant}
            at = np.array([c["value"] if numeric else values.index(str(c["value"])) for c in own.values()], dtype=float)
            entries = [found["means"][name][column] for name in own]
            means = np.array([number(entry["mean"]) for entry in entries])
            spread = np.array([entry["deviation"] or 0.0 for entry in entries])
            label = next(iter(own.values()))["variant_label"]
            tone = TONES[i % len(TONES)]
            panel.plot(at, means, color=tone, marker="o", markersize=4, linewidth=1.6, label=label)
            panel.fill_between(at, means - spread, means + spread, color=tone, alpha=0.18, linewidth=0)
        if not numeric:
            panel.set_xticks(range(len(values)), values)
        elif study["log"]:
            panel.set_xscale("log")
            ticks = sorted({float(cell["value"]) for cell in found["cells"].values()})
            panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
            panel.set_xticks([], minor=True)
        if study["log_numbers"]:
            panel.set_yscale("log")
        dress(panel, column)
        panel.set_xlabel(study["label"])
    panels[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_picture(figure, path)


def _validation(found: Mapping[str, Any], path: Path) -> None:
    """One panel: the joint direction, or what stands for all."""
    figure = Figure(figsize=(8.2, 4.2), layout="constrained")
    axes = figure.subplots()
    shown = ""
    for i, cell in enumerate(list(found["cells"].values())[:_MOST_BARS]):
        curves = [dict(map(tuple, run["validation"])) for run in cell["runs"].values() if run["validation"]]
        if not curves:
            continue
        shown = headline(list(next(iter(curves[0].values()))))
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        recall = np.array([[number(curve[step].get(shown)) for step in steps] for curve in curves])
        tone, dash = TONES[i % len(TONES)], ("-", "--", ":", "-.")[i // len(TONES) % 4]
        axes.plot(steps, recall.mean(axis=0), color=tone, linestyle=dash, linewidth=1.6, label=cell["label"])
        if len(curves) > 1:
            axes.fill_between(steps, recall.min(axis=0), recall.max(axis=0), color=tone, alpha=0.12, linewidth=0)
    dress(axes, f"validation {shown} R@1 over the steps: mean, lowest and highest of the seeds")
    axes.set_xlabel("step")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_picture(figure, path)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
