"""Diagnostics over the steps of training: volumes, Recall@1, plans, matches and gradients within the batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mover.evaluate.directions import headline
from mover.report.charts import INK, MUTED, SERIES, Chart, chart, drawing, label_ends
from mover.report.curves import DASHED, Line, over_steps, running_mean, scale_norms


def diagnostic_charts(log: Sequence[Line]) -> list[Chart]:
    """The charts for which the log has diagnostics.

    Args:
        log: lines of log.jsonl as `read_log` gives them.
    """
    lines = [line for line in log if line.get("kind") == "diagnostics"]
    if not lines:
        return []
    makers: tuple[Callable[[Sequence[Line]], Chart | None], ...] = (_volumes, _recall, _plans, _matches, _gradients)
    return [made for made in (make(lines) for make in makers) if made is not None]


def alarms(log: Sequence[Line]) -> list[str]:
    """What the run was warned of, in the order of the steps."""
    return [str(line["message"]) for line in log if line.get("kind") == "warning" and "message" in line]


def _volumes(lines: Sequence[Line]) -> Chart | None:
    kinds = (("random groups", "negatives", MUTED), ("true groups", "positives", SERIES[0]))
    with drawing() as (figure, axes):
        ends, told = [], []
        for name, key, tone in kinds:
            at, low, middle, high = _over(lines, *(("volumes", key, part) for part in ("10%", "50%", "90%")))
            if len(at) == 0:
                continue
            axes.fill_between(at, low, high, color=tone, alpha=0.18, linewidth=0)
            axes.plot(at, middle, color=tone)
            ends.append((name, float(middle[-1]), tone))
            told.append(f"{name} from {middle[0]:.2f} to {middle[-1]:.2f}")
        if not ends:
            return None
        axes.set_ylim(0, 1.02)
        over_steps(axes, lines, "volumes: median, and from 10 to 90 %")
        label_ends(axes, ends)
        return chart(figure, "batch-volumes", f"Median volumes within the batches over the steps: {'; '.join(told)}.")


def _recall(lines: Sequence[Line]) -> Chart | None:
    main = headline(list(lines[-1]["R@1"]))
    found = {main: _over(lines, ("R@1", main)), "mean of all": _means(lines)}
    with drawing() as (figure, axes):
        ends, told = [], []
        for (name, (at, values)), tone in zip(found.items(), (SERIES[0], MUTED), strict=True):
            if len(at) == 0:
                continue
            mean = running_mean(values)
            axes.plot(at, values, color=tone, linewidth=0.7, alpha=0.35)
            axes.plot(at, mean, color=tone)
            ends.append((name, float(mean[-1]), tone))
            told.append(f"{name} from {mean[0]:.0f} to {mean[-1]:.0f} %")
        if not ends:
            return None
        axes.set_ylim(0, 102)
        over_steps(axes, lines, "Recall@1 within the batch, %")
        label_ends(axes, ends)
        return chart(figure, "batch-recall", f"Recall@1 within the batches over the steps: {', '.join(told)}.")


def _means(lines: Sequence[Line]) -> tuple[np.ndarray, ...]:
    """The steps of the lines that have a Recall@1, and the mean over their directions."""
    there = [(line["step"], [value for value in line["R@1"].values() if value is not None]) for line in lines]
    rows = np.array([(step, np.mean(values)) for step, values in there if values], dtype=np.float64)
    return tuple(rows.reshape(-1, 2).T)


def _plans(lines: Sequence[Line]) -> Chart | None:
    pairs = list(dict.fromkeys(pair for line in lines for pair in line.get("plans", {})))
    with drawing() as (figure, axes):
        ends, told = [], []
        for i, pair in enumerate(pairs):
            tone, name = SERIES[i % len(SERIES)], pair.replace("-", " – ")
            words = []
            for key, word, dash in (("entropy", "entropy", DASHED), ("accuracy", "rows right", "-")):
                at, values = _over(lines, ("plans", pair, key))
                if len(at) == 0:
                    continue
                mean = 100 * running_mean(values)
                axes.plot(at, mean, color=tone, linestyle=dash, linewidth=1.6 if dash == "-" else 1.1)
                words.append(f"{word} from {mean[0]:.0f} to {mean[-1]:.0f} %")
                if key == "accuracy":
                    ends.append((name, float(mean[-1]), tone))
            if words:
                told.append(f"{name}: {', '.join(words)}")
        if not told:
            return None
        axes.set_ylim(0, 102)
        over_steps(axes, lines, "plans: solid: rows right, dashed: entropy, %")
        label_ends(axes, ends, gap=0.1)
        return chart(figure, "batch-plans", f"Transport plans within the batches over the steps. {'; '.join(told)}.")


def _matches(lines: Sequence[Line]) -> Chart | None:
    where = "matches" if any("matches" in line for line in lines) else "pool"
    with drawing() as (figure, axes):
        ends, told = [], []
        for key, name, tone in (("kept", "kept", SERIES[0]), ("right", "right of these", SERIES[2])):
            at, values = _over(lines, (where, key))
            if len(at) == 0:
                continue
            mean = 100 * running_mean(values)
            axes.plot(at, mean, color=tone)
            ends.append((name, float(mean[-1]), tone))
            told.append(f"{name} from {mean[0]:.0f} to {mean[-1]:.0f} %")
        if not ends:
            return None
        axes.set_ylim(0, 102)
        over_steps(axes, lines, "matched groups of unknown order, %")
        label_ends(axes, ends)
        return chart(figure, "batch-matches", f"Matched groups over the steps: {', '.join(told)}.")


def _gradients(lines: Sequence[Line]) -> Chart | None:
    towers = list(dict.fromkeys(name for line in lines for name in (_at(line, "gradients", "towers") or {})))
    rows: list[tuple[str, tuple[str, ...], str, Any]] = [
        (name, ("towers", name), SERIES[i % len(SERIES)], "-") for i, name in enumerate(towers)
    ]
    rows += [("heads", ("heads",), INK, DASHED), ("temperatures", ("temperatures",), MUTED, DASHED)]
    with drawing() as (figure, axes):
        ends, told = [], []
        for name, path, tone, dash in rows:
            at, values = _over(lines, ("gradients", *path))
            if len(at) == 0:
                continue
            mean = running_mean(values)
            axes.plot(at, values, color=tone, linewidth=0.7, alpha=0.35)
            axes.plot(at, mean, color=tone, linestyle=dash)
            ends.append((name, float(mean[-1]), tone))
            told.append(f"{name} from {mean[0]:.2g} to {mean[-1]:.2g}")
        if not ends:
            return None
        scale_norms(axes, np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]))
        over_steps(axes, lines, "norm of the gradient by part, before clipping")
        label_ends(axes, ends, gap=0.09)
        return chart(figure, "batch-gradients", f"Norms of the gradient over the steps: {'; '.join(told)}.")


def _over(lines: Sequence[Line], *paths: Sequence[str]) -> tuple[np.ndarray, ...]:
    """The steps of the lines that have the values at all these paths, and the values; float64 (steps,) each."""
    found = [[line["step"], *(_at(line, *path) for path in paths)] for line in lines]
    whole = np.array([row for row in found if None not in row], dtype=np.float64).reshape(-1, 1 + len(paths))
    return tuple(whole.T)


def _at(line: Line, *path: str) -> Any:
    """The value under these names, None where one of them is not there."""
    value: Any = line
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
