"""The picture of a t-SNE: colour by class, marker by modality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mover.evaluate.pictures import INK, save_picture
from mover.evaluate.tsne import Projection, classes_shown

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5c2e", "#111111")
"""Okabe and Ito's, which differ for colour-blind readers too; their yellow, too pale on white, is a brown here."""
_REST = "#b5b5b5"
_MARKERS = {"text": "*", "video": "o", "audio": "^"}
_OTHER_MARKERS = ("s", "D", "P", "X", "v")
_LONGEST = 30
_LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 9, "title_fontsize": 9, "alignment": "left"}


def draw_tsne(projection: Projection, path: Path, title: str) -> None:
    """Draw the points of `project`.

    The eight most frequent classes have a colour of their own, any others are grey; without classes, colour goes by
    modality as the marker does.

    Args:
        projection: what `project` gives.
        path: the PNG file to write.
        title: heading of the picture.
    """
    figure = Figure(figsize=(9.4, 6.2), layout="constrained")
    axes = figure.subplots()
    modalities = list(dict.fromkeys(projection.modality.tolist()))
    markers = _markers(modalities)
    classes = classes_shown(projection)
    colors = dict(zip(classes, COLORS, strict=False))
    rest = classes[len(COLORS) :]
    color = _colors(projection, colors, modalities)
    x, y = projection.points.T
    size = float(np.clip(18000 / len(projection.points), 10, 60))
    for layer, modality in enumerate(sorted(modalities, key=lambda m: m == "text")):  # the few texts on top
        for grey in (True, False):
            chosen = (projection.modality == modality) & (np.isin(projection.label, rest) == grey)
            axes.scatter(
                x[chosen], y[chosen], c=color[chosen], marker=markers[modality], linewidths=0.4,
                s=size * (2.2 if modality == "text" else 1), edgecolors="white", alpha=0.85,
                zorder=2 + layer - (10 if grey else 0),
            )  # fmt: skip
    _dress(axes)
    figure.suptitle(_short(title, 60), x=0.006, ha="left", fontsize=12, fontweight="bold", color=INK)
    axes.set_title(_about(projection, len(classes)), loc="left", fontsize=9, color=INK)
    counts = {name: len(np.unique(projection.clip[projection.label == name])) for name in classes}
    handles = [_handle(f"{_short(name)} ({counts[name]})", marker="s", color=colors[name]) for name in colors]
    if rest:
        handles.append(_handle(f"{len(rest)} other classes ({sum(counts[n] for n in rest)})", marker="s", color=_REST))
    if handles:
        figure.legend(handles=handles, title="class (clips)", loc="outside right upper", **_LEGEND)
    shapes = [
        _handle(m, marker=markers[m], color=INK if classes else COLORS[i % len(COLORS)])
        for i, m in enumerate(modalities)
    ]
    figure.legend(handles=shapes, title="modality", loc="outside right lower", **_LEGEND)
    save_picture(figure, path)


def _markers(modalities: list[str]) -> dict[str, str]:
    others = [m for m in modalities if m not in _MARKERS]
    return {m: _MARKERS.get(m) or _OTHER_MARKERS[others.index(m) % len(_OTHER_MARKERS)] for m in modalities}


def _colors(projection: Projection, colors: dict[str, str], modalities: list[str]) -> np.ndarray:
    """The colour of each point."""
    if colors:
        return np.array([colors.get(name, _REST) for name in projection.label.tolist()])
    by = {m: COLORS[i % len(COLORS)] for i, m in enumerate(modalities)}
    return np.array([by[m] for m in projection.modality.tolist()])


def _handle(label: str, *, marker: str, color: str) -> Line2D:
    size = 11 if marker == "*" else 7
    return Line2D([], [], linestyle="none", marker=marker, color=color, markersize=size, markeredgewidth=0, label=label)


def _about(projection: Projection, classes: int) -> str:
    of = "" if projection.clips == projection.listed else f" of {projection.listed:,}"
    what = f"{classes} classes" if classes > 1 else "one class" if classes else "no classes"
    return (
        f"t-SNE, cosine distance, perplexity {projection.perplexity:.0f}: {len(projection.points):,} rows of "
        f"{projection.clips:,}{of} clips, {what}"
    )


def _short(name: str, longest: int = _LONGEST) -> str:
    """A name that fits; `$` is a letter here, not the beginning of a formula."""
    short = name if len(name) <= longest else name[: longest - 1].rstrip() + "…"
    return short.replace("$", r"\$")


def _dress(axes: Axes) -> None:
    axes.set_xticks([])  # the axes of a t-SNE mean nothing
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.04)
    for spine in axes.spines.values():
        spine.set_color("#cccccc")
