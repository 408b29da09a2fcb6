"""Several systems scored on the same clips, with paired bootstrap intervals of their differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mover.errors import UserError
from mover.evaluate.counting import both_ways
from mover.evaluate.directions import Direction, directions
from mover.evaluate.embeddings import Embeddings, ids_hash
from mover.evaluate.intervals import LEVEL, RESAMPLES, bootstrap, interval, means
from mover.evaluate.metrics import AVERAGES, averaged
from mover.evaluate.rank import Sides

FEWEST = 2
"""Clips that a comparison needs: one alone has no spread."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class System:
    """What one system made of one data set. source: where its embeddings come from."""

    name: str
    dataset: str
    embeddings: Embeddings
    source: str


def compare(
    systems: Sequence[System],
    *,
    baseline: str | None = None,
    only: Sequence[str] | None = None,
    unusable: str = "fail",
    count: int = RESAMPLES,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Progress = lambda what: None,
) -> dict[str, Any]:
    """Score the systems of each data set on the clips that all of them have.

    A direction is ranked over the clips that have all of its modalities in every system that has the direction, so the
    questions and the gallery are of the same clips for all, and a joint direction goes by the volume. Captions may be
    other ones, and more or fewer. Clips are resampled with their captions, the same ones for every system.

    Args:
        systems: a name may occur once per data set.
        baseline: the name that the others are compared with; default: the first.
        only: names of the directions to compare; default: all.
        unusable: what becomes of rows that are zero or not finite, as in `Embeddings.under`.
        count, seed: of the resamples.
        device: where to compute the scores; default: the CPU.
        progress: called with what is ranked next.

    Returns:
        a dictionary that JSON can hold; docs/compare.md describes it.

    Raises:
        UserError: a name that occurs twice for a data set, an unknown baseline or direction, systems without a common
            clip, or an unusable row under "fail".
    """
    _check(systems, baseline)
    chosen = baseline or systems[0].name
    found = {}
    for dataset in dict.fromkeys(system.dataset for system in systems):
        there = [_usable(system, unusable) for system in systems if system.dataset == dataset]
        found[dataset] = _dataset(there, chosen, only, count, seed, device or torch.device("cpu"), progress)
    names = {name for entry in found.values() for name in entry["directions"]}
    if not names and only is None:
        raise UserError(f"No direction has {FEWEST} clips with all that it needs: there is nothing to compare.")
    unknown = [name for name in only or () if name not in names]
    if unknown:
        raise UserError(
            f"No data set has clips to compare in {', '.join(unknown)}; there are {', '.join(_all(found))}."
        )
    return {
        "baseline": chosen,
        "systems": list(dict.fromkeys(system.name for system in systems)),
        "settings": {"resamples": count, "seed": seed, "unusable": unusable, "level": LEVEL},
        "datasets": found,
    }


def _check(systems: Sequence[System], baseline: str | None) -> None:
    seen: dict[tuple[str, str], str] = {}
    for system in systems:
        key = system.name, system.dataset
        if key in seen:
            of = f" of {system.dataset}" if system.dataset else ""
            raise UserError(
                f"{seen[key]} and {system.source} are both called '{system.name}'{of}: name them, as in "
                f"first={seen[key]} second={system.source}."
            )
        seen[key] = system.source
    names = dict.fromkeys(system.name for system in systems)
    if baseline is not None and baseline not in names:
        raise UserError(f"The baseline '{baseline}' is none of the systems {', '.join(names)}.")
    if len(names) < 2:
        raise UserError("There is one system: a comparison needs at least two.")


def _usable(system: System, unusable: str) -> System:
    try:
        return replace(system, embeddings=system.embeddings.under("mask", unusable))
    except UserError as error:
        raise UserError(f"{system.source}: {error}") from None


def _all(found: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for entry in found.values() for name in entry["all_directions"]))


def _dataset(
    systems: Sequence[System],
    baseline: str,
    only: Sequence[str] | None,
    count: int,
    seed: int,
    device: torch.device,
    progress: Progress,
) -> dict[str, Any]:
    """The comparison on one data set."""
    ids = sorted(set.intersection(*(set(system.embeddings.ids) for system in systems)))
    if len(ids) < FEWEST:
        firsts = ", ".join(f"'{system.embeddings.ids[0]}' in {system.source}" for system in systems)
        raise UserError(
            f"{len(ids) or 'No'} clip{' is' if len(ids) == 1 else 's are'} in all of the {len(systems)} files, and a "
            f"comparison needs {FEWEST}: do their ids name the same clips? The first are {firsts}."
        )
    same = {system.name: _in_order(system.embeddings, ids) for system in systems}
    every = {name: directions(embeddings.modalities) for name, embeddings in same.items()}
    offered = list(dict.fromkeys(direction for listed in every.values() for direction in listed))
    compared: dict[str, Any] = {}
    too_few: dict[str, int] = {}
    for ways in zip(offered[::2], offered[1::2], strict=True):
        wanted = [direction for direction in ways if only is None or direction.name in only]
        if not wanted:
            continue
        having = {name: embeddings for name, embeddings in same.items() if ways[0] in every[name]}
        clips = _common(having, ways[0])
        if len(clips) < FEWEST:
            too_few |= {direction.name: len(clips) for direction in wanted}
            continue
        progress(f"{systems[0].dataset} {wanted[0].name}".strip())
        selected = {n: e if len(clips) == len(ids) else e.select(clips) for n, e in having.items()}
        compared |= _both_ways(selected, ways, wanted, baseline, count, seed, device)
    return {
        "clips": len(ids),
        "ids_sha256": ids_hash(ids),
        "captions_differ": _differing_captions(same),
        "systems": {
            system.name: {
                "embeddings": system.source,
                "listed": len(system.embeddings.ids),
                "left_out": len(system.embeddings.ids) - len(ids),
                "captions": len(same[system.name].text_owner),
                "without": {m: len(same[system.name].missing(m)) for m in same[system.name].modalities},
                "unusable": {m: len(same[system.name].unusable(m)) for m in same[system.name].modalities},
            }
            for system in systems
        },
        "all_directions": [direction.name for direction in offered],
        "too_few_clips": too_few,
        "directions": compared,
    }


def _in_order(embeddings: Embeddings, ids: Sequence[str]) -> Embeddings:
    """The clips with these ids, in this order; the modalities in one order for all systems, so directions are alike."""
    place = {name: i for i, name in enumerate(embeddings.ids)}
    chosen = embeddings.select(np.array([place[name] for name in ids], dtype=np.int64))
    return replace(chosen, vectors={m: chosen.vectors[m] for m in sorted(chosen.vectors)})


def _common(having: Mapping[str, Embeddings], direction: Direction) -> np.ndarray:
    """int64: the clips that have all modalities of a direction in all systems."""
    flags = [e.present[m] for e in having.values() for m in (*direction.query, *direction.target)]
    return np.flatnonzero(np.logical_and.reduce(flags))


def _differing_captions(same: Mapping[str, Embeddings]) -> int:
    """Of how many clips the systems that have text have different numbers of captions."""
    counts = [np.bincount(e.text_owner, minlength=len(e.ids)) for e in same.values() if "text" in e.modalities]
    return int(np.logical_or.reduce([one != counts[0] for one in counts]).sum()) if counts else 0


def _both_ways(
    systems: Mapping[str, Embeddings],
    ways: Sequence[Direction],
    wanted: Sequence[Direction],
    baseline: str,
    count: int,
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    """The two ways of a comparison, `wanted` of them, over clips that all systems have in one order."""
    first = next(iter(systems.values()))
    clips = len(first.ids)
    found: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {direction.name: {} for direction in ways}
    for name, embeddings in systems.items():
        sides = Sides(embeddings, ways[0], device)
        standings = both_ways(sides.scores(sides.score_names()[0]), sides.usable)
        asking = sides.owner, np.arange(clips)
        for way, standing, clip in zip(ways, standings, asking, strict=True):
            found[way.name][name] = clip, averaged(standing)
    about = {"clips": clips, "ids_sha256": ids_hash(first.ids)}
    return {
        direction.name: {**about, "systems": _rows(found[direction.name], clips, baseline, count, seed)}
        for direction in wanted
    }


def _rows(
    found: Mapping[str, tuple[np.ndarray, np.ndarray]], clips: int, baseline: str, count: int, seed: int
) -> dict[str, Any]:
    """The row of each system, from the clip of each query, (Q,), and its metrics, (Q, AVERAGES)."""
    statistic = means(list(found.values()), clips)

    def by_system(numbers: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(found, np.split(numbers, len(found), axis=-1), strict=True))

    point = by_system(statistic(np.ones((1, clips)))[0])
    spread = by_system(bootstrap(statistic, clips, count, seed))  # name to (count, AVERAGES)
    rows: dict[str, Any] = {}
    for name, (_, values) in found.items():
        row: dict[str, Any] = {metric: _short(v) for metric, v in zip(AVERAGES, point[name], strict=True)}
        row |= {"queries": len(values), "intervals": dict(zip(AVERAGES, _pairs(spread[name]), strict=True))}
        if baseline in found and name != baseline:
            row["difference"] = _differences(point[name] - point[baseline], spread[name] - spread[baseline])
            mine, theirs = (_of_clips(*found[system], clips) for system in (name, baseline))
            row["clips_better"], row["clips_worse"] = int((mine > theirs).sum()), int((mine < theirs).sum())
        rows[name] = row
    return rows


def _of_clips(clip: np.ndarray, values: np.ndarray, clips: int) -> np.ndarray:
    """R@1 of each clip: the mean over its queries, rounded so that sums in another order are no difference."""
    return np.round(np.bincount(clip, weights=values[:, 0], minlength=clips) / np.bincount(clip, minlength=clips), 9)


def _pairs(spread: np.ndarray) -> list[list[float]]:
    """[low, high] of each column."""
    return [[_short(low), _short(high)] for low, high in interval(spread).T]


def _differences(point: np.ndarray, spread: np.ndarray) -> dict[str, Any]:
    """Of each metric the difference, its interval, and twice the smaller share of resamples on either side of 0."""
    found = {}
    for i, (metric, ends) in enumerate(zip(AVERAGES, _pairs(spread), strict=True)):
        gaps = np.round(spread[:, i], 9)
        least = min(int((gaps <= 0).sum()), int((gaps >= 0).sum()))
        p = min(1.0, 2 * (1 + least) / (1 + len(spread)))
        found[metric] = {"value": _short(point[i]), "interval": ends, "p": round(p, 6)}
    return found


def _short(value: float) -> float:
    return round(float(value), 4) + 0.0  # no -0.0
