"""Pictures of a run: curves.png (losses and Recall@1 over the steps) and plan.png (transport plans of a batch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from mover.evaluate.directions import headline

PLANS_PER_ROW = 5
INK = "#222222"
_COLORS = {
    "total": "#222222", "mover": "#7b3fa0", "volume_contrastive": "#1f77b4", "pairwise": "#2a9d5c",
    "T2VA": "#c0392b", "VA2T": "#e08a7d", "T2V": "#1f77b4", "V2T": "#8fbfe0",
    "T2A": "#2a9d5c", "A2T": "#93d1ab", "V2A": "#b8860b", "A2V": "#e3c878",
}  # fmt: skip


def draw_curves(log: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw the loss terms and the validation's R@1 against the step.

    Args:
        log: lines of log.jsonl as `read_log` gives them.
        path: the PNG file to write.
        title: heading of the picture.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)

    lines = [line for line in log if line["kind"] == "train"]
    names = dict.fromkeys(["total", *(name for line in lines for name in line["terms"])]) if lines else {}
    for name in names:  # a term may begin late: the mover term does
        there = [line for line in lines if name in line["terms"]]
        _curve(left, [line["step"] for line in there], np.array([line["terms"][name] for line in there]), name)
    _dress(left, "loss", "training loss", outside=False)

    checks = [line for line in log if line["kind"] == "validation"]
    directions = list(checks[-1]["R@1"]) if checks else []
    for name in directions:
        values = np.array([line["R@1"].get(name, np.nan) for line in checks])
        right.plot(
            [line["step"] for line in checks], values, label=name, color=_COLORS.get(name), marker="o", markersize=3,
            linewidth=2.4 if name == headline(directions) else 1.3,
        )  # fmt: skip
    _dress(right, "R@1 (%)", "validation Recall@1", outside=True)
    right.set_ylim(0, 102)
    for axes in (left, right):
        axes.set_xlim(0, max([line["step"] for line in log], default=1))
    save_picture(figure, path)


def draw_plans(plans: Mapping[str, np.ndarray], path: Path, title: str) -> None:
    """Draw the transport plans of one batch as heat maps.

    Args:
        plans: name of the pair ("text-video") to a plan (B, B) that sums to 1; row i and column i are one clip.
        path: the PNG file to write.
        title: heading of the picture.
    """
    width = min(len(plans), PLANS_PER_ROW)
    height = -(-len(plans) // width)
    figure = Figure(figsize=(1.2 + 3.9 * width, 0.3 + 4.3 * height), layout="constrained")
    panels = np.atleast_1d(figure.subplots(height, width)).ravel()
    for panel in panels[len(plans) :]:
        panel.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    for panel, (name, plan) in zip(panels, plans.items(), strict=False):
        rows, _, columns = name.partition("-")
        image = panel.imshow(plan * len(plan), norm=PowerNorm(0.5, 0, 1), cmap="magma", interpolation="nearest")
        right = 100 * np.trace(plan)
        panel.set_title(f"{rows} – {columns}\n{right:.0f} % of the mass on true pairs", fontsize=10, color=INK)
        panel.set_xlabel(f"clip, {columns}")
        panel.set_ylabel(f"clip, {rows}")
        panel.tick_params(length=0, labelsize=8)
    figure.colorbar(
        image, ax=list(panels), shrink=0.75, pad=0.015, label="B · plan (1: certain)", ticks=[0, 0.05, 0.2, 0.5, 1]
    )
    save_picture(figure, path)


def _curve(axes: Axes, steps: Sequence[int], values: np.ndarray, name: str) -> None:
    """The values in pale, their running mean over a twentieth of the points in full colour."""
    width = max(1, len(values) // 20)
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    mean = (sums[ends] - sums[starts]) / (ends - starts)
    color = _COLORS.get(name)
    style: dict[str, Any] = {"linewidth": 4.0, "alpha": 0.3} if name == "total" else {"linewidth": 1.5}
    line = axes.plot(steps, mean, label=name, color=color, **style)[0]
    if width > 1 and name != "total":
        axes.plot(steps, values, color=line.get_color(), linewidth=0.6, alpha=0.3)


def _dress(axes: Axes, ylabel: str, title: str, *, outside: bool) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.lines:
        if outside:
            axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        else:
            axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
    else:
        axes.text(0.5, 0.5, "nothing logged", transform=axes.transAxes, ha="center", color="#888888")


def save_picture(figure: Figure, path: Path) -> None:
    """Write the PNG aside and move it in place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    aside = path.with_name(f".{path.name}.part")
    figure.savefig(aside, format="png", dpi=140, facecolor="white")
    aside.replace(path)
