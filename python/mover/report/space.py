"""The embedding space: its t-SNE picture, and the numbers that the picture only suggests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mover.evaluate.tsne import Projection
from mover.report.charts import INK, SERIES, WIDTH, Chart, chart, drawing

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LONGEST = 28


@dataclass(frozen=True)
class Number:
    """A row of the table of the space: what, the value as text, and what good looks like."""

    what: str
    value: str
    good: str


def tsne_charts(projection: Projection) -> list[Chart]:
    """The points by modality and, where they have classes, by class; the marker always says the modality."""
    modalities = list(dict.fromkeys(projection.modality.tolist()))
    tones = {m: SERIES[i % len(SERIES)] for i, m in enumerate(modalities)}
    count = f"{projection.clips} clips" + (f" of {projection.listed}" if projection.listed > projection.clips else "")
    charts = [
        _points(
            projection, "tsne-modality", "by modality", projection.modality, tones,
            f"t-SNE of the embeddings of {count}, coloured by modality: {', '.join(modalities)}.",
        )
    ]  # fmt: skip
    classes = [name for name in dict.fromkeys(projection.label.tolist()) if name]
    if classes:
        classes = sorted(classes, key=lambda name: -int((projection.label == name).sum()))
        tones = {name: SERIES[i % len(SERIES)] for i, name in enumerate(classes)}
        charts.append(
            _points(
                projection, "tsne-class", "by class", projection.label, tones,
                f"The same points, coloured by class: {', '.join(classes)}. The marker tells the modality.",
            )
        )  # fmt: skip
    return charts


def _points(
    projection: Projection, name: str, title: str, group: np.ndarray, tones: Mapping[str, str], label: str
) -> Chart:
    modalities = list(dict.fromkeys(projection.modality.tolist()))
    width, height = np.ptp(projection.points, axis=0)
    with drawing(0.5 + WIDTH * float(np.clip(height / max(width, 1e-9), 0.6, 1.1))) as (figure, axes):
        for value, tone in tones.items():
            for i, m in enumerate(modalities):
                chosen = (group == value) & (projection.modality == m)
                x, y = projection.points[chosen].T
                marker = _MARKERS[i % len(_MARKERS)]
                axes.scatter(x, y, s=11, marker=marker, color=tone, alpha=0.7, linewidths=0)
        shapes = {value: _MARKERS[modalities.index(value) % len(_MARKERS)] for value in tones if value in modalities}
        handles = [
            axes.scatter([], [], s=16, color=tone, marker=shapes.get(value, "o")) for value, tone in tones.items()
        ]
        axes.legend(
            handles, [_short(value) for value in tones], frameon=False, ncols=3, loc="upper center",
            bbox_to_anchor=(0.5, 0.0), fontsize=8, handletextpad=0.2, columnspacing=1.2, labelcolor=INK,
        )  # fmt: skip
        axes.set_title(title, color=INK)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(False)
        axes.spines[["left", "bottom"]].set_visible(False)
        return chart(figure, name, label)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def numbers(analysis: Mapping[str, Any]) -> list[Number]:
    """The rows of the table, from what `mover.evaluate.analysis.analyse` returns; what is not defined is left out."""
    pairs = {name.replace("-", " – "): found for name, found in (analysis.get("pairs") or {}).items()}
    each = analysis.get("modalities") or {}
    rows = [
        Number(
            "Modality gap: distance of the centres",
            _listed({name: found["gap"] for name, found in pairs.items()}), "0: both lie around one centre",
        ),
        Number(
            "Mean cosine of two modalities of one clip",
            _listed({name: found["matched"] for name, found in pairs.items()}), "near 1",
        ),
        Number(
            "Mean cosine of modalities of different clips",
            _listed({name: found["unmatched"] for name, found in pairs.items()}), "near 0, far from the line above",
        ),
        Number(
            "Effective rank", _listed({m: found["effective_rank"] for m, found in each.items()}, 1),
            "high: many dimensions are in use",
        ),
        Number(
            "Uniformity", _listed({m: found["uniformity"] for m, found in each.items()}),
            "low: the rows are spread over the sphere",
        ),
        Number(
            "Silhouette by modality", _text(analysis.get("silhouette_by_modality")),
            "0 or below: modalities mix; 1: each keeps to itself",
        ),
        *_of_classes(analysis),
    ]  # fmt: skip
    return [row for row in rows if row.value]


def _of_classes(analysis: Mapping[str, Any]) -> list[Number]:
    """What the labels, where there are any, say."""
    near = {
        pair.replace("-", " → "): found["5"]
        for pair, found in (analysis.get("neighbours") or {}).items()
        if len(set(pair.split("-"))) == 2
    }
    chance = [found["chance"] for found in (analysis.get("neighbours") or {}).values() if found["chance"] is not None]
    by_chance = f"; chance {np.mean(chance):.1f}" if chance else ""
    together = (analysis.get("kmeans") or {}).get("all")
    clusters = {"NMI": together["nmi"]["mean"], "ARI": together["ari"]["mean"]} if together else {}
    return [
        Number(
            "Silhouette by class, all modalities", _text((analysis.get("silhouette_by_class") or {}).get("all")),
            "1: classes are tight and apart",
        ),
        Number(
            "Share of the 5 nearest rows of another modality that have the same class, %", _listed(near, 1),
            f"100, and far above chance{by_chance}",
        ),
        Number("Clusters of k-means against the classes", _listed(clusters), "1: they are the classes; ARI 0: chance"),
    ]  # fmt: skip


def _listed(values: Mapping[str, float | None], digits: int = 2) -> str:
    """The values that there are, each on one line with its name."""
    pairs = (f"{name} {_text(value, digits)}" for name, value in values.items() if value is not None)
    return ", ".join(pair.replace(" ", "\N{NO-BREAK SPACE}") for pair in pairs)


def _text(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}".replace("-", "−")
