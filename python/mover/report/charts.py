"""Figures of matplotlib as SVG inside the page, in the colours of the page.

A figure is drawn with colours that stand for a role (ink, line, a series) and become CSS variables, so that one figure
follows the light and the dark scheme. Nothing but shapes, text and references within the figure is kept.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, LINE, PAPER = "#00a001", "#00a002", "#00a003", "#00a004"
SERIES = ("#00b001", "#00b002", "#00b003", "#00b004", "#00b005", "#00b006")
"""Colours of data, told apart by the colour-blind and with enough contrast for text."""
_VARIABLES = {
    INK: "--ink", MUTED: "--muted", LINE: "--line", PAPER: "--paper",
    **{tone: f"--series-{i + 1}" for i, tone in enumerate(SERIES)},
}  # fmt: skip

WIDTH = 4.4
"""Of a panel, in inches: two fit side by side on a wide screen, one on a telephone, with text of one size."""
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "mover", "text.parse_math": False, "font.size": 8.0,
    "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": LINE, "axes.facecolor": "none",
    "axes.titlesize": 8.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.labelsize": 8.0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.grid.axis": "y",
    "axes.axisbelow": True, "axes.linewidth": 0.8, "grid.color": LINE, "grid.linewidth": 0.5,
    "xtick.color": LINE, "ytick.color": LINE, "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED,
    "xtick.major.size": 3.0, "ytick.major.size": 0.0, "xtick.major.width": 0.8, "lines.linewidth": 1.6,
    "figure.facecolor": "none", "savefig.facecolor": "none", "savefig.edgecolor": "none", "hatch.linewidth": 0.6,
    "lines.color": INK, "patch.edgecolor": INK, "axes.formatter.useoffset": False,
}  # fmt: skip


@dataclass(frozen=True)
class Chart:
    """svg: the figure, for the page. label: what it shows, in words, for who cannot see it."""

    svg: Markup
    label: str


@contextmanager
def drawing(height: float = 2.6, width: float = WIDTH) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one panel in the style of the page; draw and call `chart` inside."""
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in any script: the browser has the font
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()


def chart(figure: Figure, name: str, label: str) -> Chart:
    """The figure as SVG.

    Args:
        figure: drawn with the colours of this module only.
        name: begins the ids within it; no other figure of the page may have it.
        label: what the figure shows, in words.
    """
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    root = ET.fromstring(buffer.getvalue())
    for unwanted in ("metadata", "defs/style"):
        _remove(root, unwanted)
    used = set(re.findall(r"#([\w-]+)", " ".join(v for e in root.iter() for v in e.attrib.values())))
    for element in root.iter():
        element.attrib.update({key: _rewritten(key, value, name) for key, value in element.attrib.items()})
        target = element.attrib.pop(f"{{{_XLINK}}}href", None)
        if target is not None:
            element.set("href", target)
        own = element.attrib.pop("id", None)
        if own in used:
            element.set("id", f"{name}-{own}")
    for unwanted in ("width", "height", "version"):
        root.attrib.pop(unwanted, None)
    root.attrib.update({"class": "chart", "role": "img", "aria-label": label})
    ET.register_namespace("", _SVG)
    return Chart(Markup(ET.tostring(root, encoding="unicode")), label)


def label_ends(axes: Axes, ends: Sequence[tuple[str, float, str]], gap: float = 0.075) -> None:
    """Write names beside the right ends of lines, moved apart so that none covers another.

    Args:
        ends: name, y in data coordinates, colour; entries that are not finite are left out.
        gap: least distance of two names, as a share of the height of the panel.
    """
    low, high = axes.get_ylim()
    log = axes.get_yscale() == "log"

    def share(y: float) -> float:
        if log:
            return float(np.log(max(y, low) / low) / np.log(high / low))
        return (y - low) / (high - low)

    there = sorted((share(y), name, tone) for name, y, tone in ends if np.isfinite(y))
    places = spread([place for place, _, _ in there], gap)
    for (_, name, tone), place in zip(there, places, strict=True):
        axes.text(1.02, place, name, transform=axes.transAxes, va="center", fontsize=7.5, color=tone)


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places in [0, 1], moved as little as it takes (least squares) for neighbours to be `gap` apart; the gap
    is made smaller where all would not fit."""
    count = len(places)
    gap = min(gap, 1 / max(1, count - 1))
    pools: list[tuple[float, int]] = []  # with the gaps taken out, places only have to ascend: pool those that do not
    for i, place in enumerate(places):
        mean, size = place - i * gap, 1
        while pools and pools[-1][0] > mean:
            other, more = pools.pop()
            mean, size = (mean * size + other * more) / (size + more), size + more
        pools.append((mean, size))
    moved = [mean for mean, size in pools for _ in range(size)]
    room = 1 - (count - 1) * gap
    return [min(max(place, 0.0), room) + i * gap for i, place in enumerate(moved)]


def _rewritten(key: str, value: str, name: str) -> str:
    """The value of an attribute: colours as variables, references under the names of this figure, short numbers."""
    if key in ("d", "x", "y", "transform", "points"):
        return re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", value)
    value = re.sub(r"url\(#([\w-]+)\)", rf"url(#{name}-\1)", value)
    value = re.sub(r"^#([\w-]+)$", rf"#{name}-\1", value)
    for tone, variable in _VARIABLES.items():
        value = value.replace(tone, f"var({variable})")
    return value


def _remove(root: ET.Element, path: str) -> None:
    parents, _, tag = path.rpartition("/")
    for parent in root.iter(f"{{{_SVG}}}{parents}") if parents else [root]:
        for child in parent.findall(f"{{{_SVG}}}{tag}"):
            parent.remove(child)
