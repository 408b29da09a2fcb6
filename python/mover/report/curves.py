"""Training over its steps: loss terms, validation Recall@1, temperatures, the norm of the gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mover.evaluate.directions import headline
from mover.report.charts import INK, MUTED, SERIES, Chart, chart, drawing, label_ends

_TERMS = {"mover": SERIES[3], "volume_contrastive": SERIES[0], "pairwise": SERIES[2], "total": MUTED}
DASHED = (0, (3, 1.6))

Line = Mapping[str, Any]


def training_charts(log: Sequence[Line]) -> list[Chart]:
    """The charts for which the log has lines.

    Args:
        log: lines of log.jsonl as `read_log` gives them.
    """
    steps = [line for line in log if line.get("kind") == "train"]
    checks = [line for line in log if line.get("kind") == "validation" and line.get("R@1")]
    found = []
    if steps:
        found.append(_losses(steps))
    if checks:
        found.append(_recall(checks))
    if any(line.get("temperatures") for line in steps):
        found.append(_temperatures(steps))
    if any(line.get("grad_norm") is not None for line in steps):
        found.append(_gradient(steps))
    return found


def tone_of(direction: str, names: Sequence[str]) -> tuple[str, Any]:
    """The colour and the dash of a direction among `names`: its two ways share a colour, the second is dashed."""
    place = list(names).index(direction)
    if place >= len(names) - 2 and len(names) > 2:  # the joint ones, or the last pair
        return SERIES[0], "-" if direction == headline(names) else DASHED
    return SERIES[1 + (place // 2) % (len(SERIES) - 1)], "-" if place % 2 == 0 else DASHED


def _tones(names: Sequence[str]) -> dict[str, str]:
    """The colours of terms: some have their own, the others take what is left."""
    free = [tone for tone in SERIES if tone not in {_TERMS.get(name) for name in names}]
    rest = [name for name in names if name not in _TERMS]
    return _TERMS | {name: free[i % len(free)] for i, name in enumerate(rest)}


def _losses(steps: Sequence[Line]) -> Chart:
    names = list(dict.fromkeys(name for line in steps for name in line.get("terms", {})))
    names = [name for name in names if name != "total"] or names
    with drawing() as (figure, axes):
        ends, told, tones = [], [], _tones(names)
        for name in names:
            there = [line for line in steps if name in line["terms"]]  # a term may begin late: the mover term does
            at, values = [line["step"] for line in there], np.array([line["terms"][name] for line in there])
            tone = tones[name]
            axes.plot(at, values, color=tone, linewidth=0.7, alpha=0.35)
            mean = running_mean(values)
            axes.plot(at, mean, color=tone)
            ends.append((name.replace("_", " "), float(mean[-1]), tone))
            told.append(f"{name.replace('_', ' ')} from {values[0]:.3g} at step {at[0]} to {mean[-1]:.3g}")
        over_steps(axes, steps, "loss terms, unweighted")
        label_ends(axes, ends)
        return chart(figure, "loss", f"Loss terms over {steps[-1]['step']} steps: {'; '.join(told)}.")


def _recall(checks: Sequence[Line]) -> Chart:
    names = list(checks[-1]["R@1"])
    with drawing() as (figure, axes):
        at, ends = [line["step"] for line in checks], []
        for name in names:
            values = np.array([line["R@1"].get(name, np.nan) for line in checks], dtype=float)
            tone, dash = tone_of(name, names)
            main = name == headline(names)
            axes.plot(
                at, values, color=tone, linestyle=dash, linewidth=2.2 if main else 1.2, marker="o",
                markersize=2.6 if main else 1.6, zorder=3 if main else 2,
            )  # fmt: skip
            ends.append((name, float(values[-1]), tone))
        axes.set_ylim(0, 100)
        over_steps(axes, checks, "Recall@1 on the validation clips, %")
        label_ends(axes, ends)
        best = max(checks, key=lambda line: float(np.mean(list(line["R@1"].values()))))
        main, last = headline(names), checks[-1]
        first = next(line for line in checks if main in line["R@1"])
        return chart(
            figure, "recall",
            f"Validation Recall@1 over the steps: {main} from {first['R@1'][main]:.1f} % at step "
            f"{first['step']} to {last['R@1'][main]:.1f} % at step {last['step']}; the mean of all directions is "
            f"highest at step {best['step']}. At the end: "
            + ", ".join(f"{name} {value:.1f} %" for name, value in last["R@1"].items()) + ".",
        )  # fmt: skip


def _temperatures(steps: Sequence[Line]) -> Chart:
    names = list(dict.fromkeys(name for line in steps for name in line.get("temperatures", {})))
    with drawing(2.0) as (figure, axes):
        ends, told, tones = [], [], _tones(names)
        for name in names:
            there = [line for line in steps if name in line.get("temperatures", {})]
            at, values = [line["step"] for line in there], [line["temperatures"][name] for line in there]
            tone = tones[name]
            axes.plot(at, values, color=tone)
            ends.append((name.replace("_", " "), float(values[-1]), tone))
            told.append(f"{name.replace('_', ' ')} from {values[0]:.3g} to {values[-1]:.3g}")
        axes.set_ylim(bottom=0)
        over_steps(axes, steps, "temperature")
        label_ends(axes, ends, gap=0.11)
        return chart(figure, "temperature", f"Temperatures over the steps: {'; '.join(told)}.")


def _gradient(steps: Sequence[Line]) -> Chart:
    there = [line for line in steps if line.get("grad_norm") is not None]
    at, values = [line["step"] for line in there], np.array([line["grad_norm"] for line in there], dtype=float)
    with drawing(2.0) as (figure, axes):
        axes.plot(at, values, color=MUTED, linewidth=0.7, alpha=0.5)
        axes.plot(at, running_mean(values), color=INK)
        scale_norms(axes, values)
        over_steps(axes, steps, "norm of the gradient, before clipping")
        return chart(
            figure, "gradient",
            f"Norm of the gradient over the steps: median {np.median(values):.3g}, largest {values.max():.3g} at step "
            f"{at[int(values.argmax())]}, {values[-1]:.3g} at the end.",
        )  # fmt: skip


def scale_norms(axes: Axes, values: np.ndarray) -> None:
    """Logarithms where the values span more than a factor of 30 and none is 0; else from 0 on."""
    if values.min() > 0 and values.max() > 30 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: "")
    else:
        axes.set_ylim(bottom=0)


def running_mean(values: np.ndarray) -> np.ndarray:
    """float64 (n,): the mean of each value and those before it, over a twentieth of all."""
    width = max(1, len(values) // 20)
    sums = np.cumsum(np.insert(np.asarray(values, dtype=np.float64), 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def over_steps(axes: Axes, lines: Sequence[Line], title: str) -> None:
    """The title, and an axis of steps up to that of the last line."""
    axes.set_title(title, color=INK)
    axes.set_xlabel("step")
    axes.set_xlim(0, max(1, lines[-1]["step"]))
