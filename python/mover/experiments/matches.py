"""What the matches of a run did over its steps: how many were kept, how many of these were right, and the plans."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mover.configs import setting_text
from mover.evaluate.pictures import INK, save_picture
from mover.experiments.axes import dress, line_styles, validation_line
from mover.report.plan_maps import chosen_steps, diagonal, plan_png
from mover.train.run_folder import RunFolder

_MAPS = 5


def match_history(folder: RunFolder, log: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The matches of a run for its record, None where it has no terms of matches.

    {"kept": [[step, share of rows in a group, share of the groups that are right]], "pair", "maps": [[step, picture of
    the plan of validation clips as a data URI, percent of its rows whose largest entry is right]]}
    """
    lines = [line for line in log if line["kind"] == "diagnostics" and line.get("matches")]
    if not lines:
        return None
    plans = folder.read_plans()
    pair = next((name for found in plans.values() for name in found), None)
    kept = {step: found[pair] for step, found in plans.items() if pair is not None and pair in found}
    steps = chosen_steps(list(kept), _MAPS)
    return {
        "kept": [[line["step"], line["matches"]["kept"], line["matches"]["right"]] for line in lines],
        "pair": pair,
        "maps": [[step, plan_png(kept[step]), round(diagonal(kept[step])[1], 1)] for step in steps],
    }


def draw_matches(found: Mapping[str, Any], path: Path) -> bool:
    """Plans from noise to order, the share and the accuracy of the groups kept, and what becomes of R@1; in a study the
    plans of its first value, and a panel of shares for each value.

    Args:
        found: as `mover.experiments.results.gather` gives it.
        path: the picture to write.

    Returns:
        whether there was anything to draw.
    """
    matched = [
        (cell, [run["matches"] for run in cell["runs"].values() if run.get("matches")])
        for cell in found["cells"].values()
    ]
    matched = [(cell, histories) for cell, histories in matched if histories]
    if not matched:
        return False
    values = list(dict.fromkeys(cell["value"] for cell, _ in matched))
    first = [(cell, histories[0]) for cell, histories in matched if cell["value"] == values[0]]
    rows = [(cell, history) for cell, history in first if history["maps"]][:2]
    figure = Figure(figsize=(max(9.2, 3.2 * len(values)), 1.9 * len(rows) + 3.4), layout="constrained")
    parts = figure.subfigures(len(rows) + 1, 1, height_ratios=[1.9] * len(rows) + [3.2], squeeze=False)[:, 0]
    for part, (cell, history) in zip(parts, rows, strict=False):
        _maps(part, cell["label"], history)
    panels = parts[-1].subplots(1, len(values) + (found["study"] is None), squeeze=False)[0]
    tones = {variant: style["color"] for variant, style in line_styles(found).items()}
    for axes, value in zip(panels, values, strict=False):
        for cell, histories in matched:
            if cell["value"] == value:
                _shares(axes, tones[cell["variant"]], cell["variant_label"], histories)
        dress(axes, "" if found["study"] is None else f"{found['study']['label']} {setting_text(value)}")
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("step")
    title = "groups kept (solid), and those of them that are right (dashed)"
    if found["study"] is None:
        panels[0].set_title(title, loc="left", fontsize=10, color=INK)
        _recall(panels[1], found, tones)
    else:
        parts[-1].suptitle(title, x=0.01, ha="left", fontsize=10, color=INK)
    for axes in panels[-2:] if found["study"] is None else panels[-1:]:
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    save_picture(figure, path)
    return True


def _recall(axes: Any, found: Mapping[str, Any], tones: Mapping[str, str]) -> None:
    """Validation R@1 of all cells."""
    shown = ""
    for cell in found["cells"].values():
        drawn = validation_line(axes, cell, color=tones[cell["variant"]], label=cell["label"])
        shown = shown if drawn is None else drawn[0]
    dress(axes, f"validation {shown} R@1")
    axes.set_xlabel("step")


def _maps(part: Any, label: str, history: Mapping[str, Any]) -> None:
    """One row of heat maps."""
    part.suptitle(
        f"{label}: plan {history['pair'].replace('-', ' – ')} of validation clips", x=0.01, ha="left", fontsize=10,
        color=INK,
    )  # fmt: skip
    for axes, (step, picture, correct) in zip(part.subplots(1, _MAPS, squeeze=False)[0], history["maps"], strict=False):
        axes.imshow(_pixels(picture), cmap="magma", vmin=0, vmax=255, interpolation="nearest")
        axes.set_xlabel(f"step {step}, {correct:.0f} % right", fontsize=8)
    for axes in part.axes:
        axes.set_xticks([])
        axes.set_yticks([])


def _shares(axes: Any, tone: str, label: str, histories: Sequence[Mapping[str, Any]]) -> None:
    """Means over the runs, step by step."""
    for column, style, name in ((1, "-", label), (2, "--", None)):
        values: dict[int, list[float]] = {}
        for history in histories:
            for line in history["kept"]:
                if line[column] is not None:
                    values.setdefault(line[0], []).append(line[column])
        steps = sorted(values)
        axes.plot(steps, [np.mean(values[step]) for step in steps], style, color=tone, linewidth=1.6, label=name)


def _pixels(picture: str) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))))
