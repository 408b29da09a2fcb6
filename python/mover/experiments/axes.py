"""How the axes of the figures look, and the curve that several of them have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mover.evaluate.directions import headline
from mover.evaluate.pictures import INK

TONES = ("#1f77b4", "#c0392b", "#2a9d5c", "#7b3fa0", "#b8860b", "#4a5a6a", "#d2691e", "#008b8b")


def dress(axes: Axes, title: str) -> None:
    """A title on the left, and lines to read values by."""
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def line_styles(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """How the line of each variant looks: beyond eight, dashes and markers tell tones apart."""
    variants = dict.fromkeys(cell["variant"] for cell in found["cells"].values())
    looks = [("-", "o"), ("--", "s"), (":", "^"), ("-.", "D")]
    styles = {}
    for i, variant in enumerate(variants):
        dash, marker = looks[i // len(TONES) % len(looks)]
        styles[variant] = {"color": TONES[i % len(TONES)], "linestyle": dash, "marker": marker}
    return styles


def number(value: float | None) -> float:
    """What a missing value is to a curve."""
    return float("nan") if value is None else float(value)


def readable(direction: str) -> str:
    """The name of a direction; where a digit stands before the 2, `view1 → view2` for view12view2."""
    return re.sub(r"(?<=\d)2(?=[A-Za-z])", " → ", direction)


def validation_line(axes: Axes, cell: Mapping[str, Any], **style: Any) -> tuple[str, Line2D] | None:
    """Validation R@1 of a cell over the steps: a line of the mean, a band from the lowest to the highest of the seeds.

    Returns the direction shown, the joint one or what stands for all, and the line; None where no run was validated.
    """
    curves = [dict(map(tuple, run["validation"])) for run in cell["runs"].values() if run["validation"]]
    if not curves:
        return None
    shown = headline(list(next(iter(curves[0].values()))))
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    recall = np.array([[number(curve[step].get(shown)) for step in steps] for curve in curves])
    line = axes.plot(steps, recall.mean(axis=0), linewidth=1.6, **style)[0]
    axes.fill_between(steps, recall.min(axis=0), recall.max(axis=0), color=line.get_color(), alpha=0.12, linewidth=0)
    return readable(shown), line
