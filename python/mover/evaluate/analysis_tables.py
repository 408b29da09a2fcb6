"""The numbers of an analysis as tables and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

_NONE = "–"


def tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """The tables of what `analyse` found, those that have rows."""
    yield _modalities(found)
    if found.get("pairs"):
        rows = [
            [name.replace("-", "–"), str(n["clips"]), *_decimals(n, 3, "gap"), *_decimals(n, 1, "angle"),
             *_decimals(n, 3, "matched", "unmatched", "alignment")]
            for name, n in found["pairs"].items()
        ]  # fmt: skip
        heads = ["pair", "clips", "gap", "angle (°)", "cosine", "unmatched", "alignment"]
        yield _table("pairs of modalities", heads, rows)
    if found.get("kmeans"):
        yield _table("classes", ["rows", "silhouette", "k-means NMI", "k-means ARI"], _classes(found))
    if found.get("neighbours"):
        yield _neighbours(found)
    if found.get("text_to_class"):
        heads = ["rows", "classes", "cosine", "others", "margin", "nearest (%)", "of rows"]
        rows = [
            [name, str(n["classes"]), *_decimals(n, 3, "cosine", "others", "margin"), *_decimals(n, 1, "nearest"),
             str(n["rows"])]
            for name, n in found["text_to_class"].items()
        ]  # fmt: skip
        yield _table("texts of a class and the centre of its rows", heads, rows)


def lines(found: Mapping[str, Any]) -> list[str]:
    """What is one number, in words."""
    said = []
    if found.get("silhouette_by_modality") is not None:
        said.append(f"silhouette by modality: {found['silhouette_by_modality']:.3f} (1: modalities apart, 0: mixed)")
    if found.get("text_to_clip"):
        clip = found["text_to_clip"]
        said.append(
            f"text with the centre of its clip's other modalities: cosine {clip['mean']:.3f} ± {clip['std']:.3f} over "
            f"{clip['clips']} clips"
        )
    if found.get("volume"):
        volume = found["volume"]
        apart = _number(volume["unmatched"], 3)
        said.append(
            f"volume of {', '.join(volume['modalities'])}: {volume['matched']:.3f} of one clip, {apart} of different "
            f"clips, over {volume['clips']} clips"
        )
    sample, clips = found["settings"]["sample"], found["clips"]
    if clips > sample:
        said.append(
            f"uniformity, k-means and the questions of the neighbours: {sample} of {clips} clips, drawn with seed "
            f"{found['settings']['seed']}"
        )
    return said


def _modalities(found: Mapping[str, Any]) -> Table:
    heads = ["modality", "rows", "without", "unusable", "centroid", "eff. rank", "uniformity"]
    rows = []
    for name, count in found["rows"].items():
        numbers = found.get("modalities", {}).get(name, {})
        rows.append(
            [name, str(count), str(found["without"][name]), str(found["unusable"][name]),
             *_decimals(numbers, 3, "centroid"), *_decimals(numbers, 1, "effective_rank"),
             *_decimals(numbers, 3, "uniformity")]
        )  # fmt: skip
    return _table("modalities", heads, rows)


def _classes(found: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, score in found["silhouette_by_class"].items():
        means = found["kmeans"][name]
        rows.append([name, _number(score, 3), *([_spread(means[n]) for n in ("nmi", "ari")] if means else [_NONE] * 2)])
    return rows


def _spread(scores: Mapping[str, float]) -> str:
    return f"{scores['mean']:.3f} [{scores['low']:.3f}, {scores['high']:.3f}]"


def _neighbours(found: Mapping[str, Any]) -> Table:
    ks = [str(k) for k in found["settings"]["neighbours"]]
    rows = [
        [name.replace("-", " → "), *_decimals(n, 1, *ks), *_decimals(n, 1, "chance"), str(n["questions"]),
         str(n["candidates"])]
        for name, n in found["neighbours"].items()
    ]  # fmt: skip
    heads = ["neighbours", *(f"k = {k}" for k in ks), "chance", "questions", "candidates"]
    return _table("nearest neighbours of the same class (%)", heads, rows)


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", no_wrap=not place)
    for row in rows:
        table.add_row(*row)
    return table


def _decimals(numbers: Mapping[str, Any], digits: int, *names: str) -> list[str]:
    return [_number(numbers.get(name), digits) for name in names]


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"
