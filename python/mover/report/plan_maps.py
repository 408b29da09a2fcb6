"""Transport plans over training: does each clip's mass go to its own other modality?"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mover.report.charts import INK, SERIES, Chart, chart, drawing, label_ends

MAPS = 6
"""Steps shown at most, of those kept."""


@dataclass(frozen=True)
class PlanMap:
    """One heat map. png: grey values as a data URI, white where all of a clip's mass is. size: clips on each side.

    mass: share of the mass on the diagonal, percent. right: rows whose largest entry is on the diagonal, percent.
    """

    step: int
    png: str
    size: int
    mass: float
    right: float


@dataclass(frozen=True)
class PlanStrip:
    """The maps of one pair of modalities over the steps."""

    pair: str
    maps: tuple[PlanMap, ...]


def plan_strips(plans: Mapping[int, Mapping[str, np.ndarray]]) -> list[PlanStrip]:
    """Heat maps of every pair at up to `MAPS` steps, the first and the last among them.

    Args:
        plans: step to pair to (B, B), B times the plan, as `RunFolder.read_plans` gives them.
    """
    steps = chosen_steps(list(plans))
    pairs = dict.fromkeys(pair for found in plans.values() for pair in found)
    strips = [
        PlanStrip(
            pair.replace("-", " – "),
            tuple(
                PlanMap(step, plan_png(plans[step][pair]), len(plans[step][pair]), *diagonal(plans[step][pair]))
                for step in steps
                if pair in plans[step]
            ),
        )
        for pair in pairs
    ]
    return [strip for strip in strips if strip.maps]


def chosen_steps(steps: Sequence[int], most: int = MAPS) -> list[int]:
    """At most so many of the steps, the first and the last among them, evenly over their order."""
    if len(steps) <= most:
        return list(steps)
    return [steps[i] for i in np.linspace(0, len(steps) - 1, most).round().astype(int)]


def diagonal(plan: np.ndarray) -> tuple[float, float]:
    """Percent of the mass on the diagonal, and percent of the rows with mass whose largest entry is there; a largest
    entry that others equal counts in part."""
    total = float(plan.sum())
    if total <= 0:
        return float("nan"), float("nan")
    rows = np.flatnonzero(plan.sum(1) > 0)
    largest = plan[rows].max(1)
    right = (plan[rows, rows] == largest) / (plan[rows] == largest[:, None]).sum(1)
    return 100 * float(np.trace(plan)) / total, 100 * float(right.mean())


def plan_chart(plans: Mapping[int, Mapping[str, np.ndarray]]) -> Chart:
    """Mass on the diagonal over all the steps kept, one line for each pair."""
    pairs = list(dict.fromkeys(pair for found in plans.values() for pair in found))
    with drawing(2.2) as (figure, axes):
        ends, told = [], []
        for i, pair in enumerate(pairs):
            at = [step for step, found in plans.items() if pair in found]
            values = np.array([diagonal(plans[step][pair]) for step in at])  # (steps, 2)
            tone = SERIES[i % len(SERIES)]
            axes.plot(at, values[:, 0], color=tone, marker="o", markersize=2.2)
            axes.plot(at, values[:, 1], color=tone, linewidth=1.0, linestyle=(0, (1.2, 1.4)))
            name = pair.replace("-", " – ")
            ends.append((name, float(values[-1, 0]), tone))
            told.append(
                f"{name}: mass on the diagonal from {values[0, 0]:.0f} to {values[-1, 0]:.0f} %, right by the largest "
                f"entry from {values[0, 1]:.0f} to {values[-1, 1]:.0f} %"
            )
        axes.set_ylim(0, 100)
        axes.set_xlim(0, max(plans))
        axes.set_xlabel("step")
        axes.set_title("solid: mass on the diagonal, dotted: largest entry right, %", color=INK)
        label_ends(axes, ends, gap=0.1)
        return chart(figure, "diagonal", f"Over the steps, {'; '.join(told)}.")


def plan_png(plan: np.ndarray) -> str:
    """B times a plan as a grey picture, on a square-root scale that ends at 1, as a data URI."""
    from PIL import Image

    grey = np.rint(255 * np.sqrt(np.clip(plan, 0, 1))).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey, mode="L").save(buffer, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
