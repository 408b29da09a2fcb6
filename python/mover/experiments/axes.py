"""How the axes of the figures look."""

from __future__ import annotations

from matplotlib.axes import Axes

from mover.evaluate.pictures import INK

TONES = ("#1f77b4", "#c0392b", "#2a9d5c", "#7b3fa0", "#b8860b", "#4a5a6a", "#d2691e", "#008b8b")


def dress(axes: Axes, title: str) -> None:
    """A title on the left, and lines to read values by."""
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def number(value: float | None) -> float:
    """What a missing value is to a curve."""
    return float("nan") if value is None else float(value)
