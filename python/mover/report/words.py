"""What the numbers say, as sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mover.evaluate.directions import Direction, headline

_LETTERS = {"text": "T", "video": "V", "audio": "A"}


@dataclass(frozen=True)
class Gain:
    """What asking or answering jointly adds to Recall@1, in points, over the best single modality.

    joint, single: names of the directions. points: the difference. low, high: its interval, None where none is known.
    """

    joint: str
    single: str
    points: float
    low: float | None
    high: float | None


def listed(names: Sequence[str]) -> str:
    """video; video and audio; video, audio and depth."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def asked(direction: Direction) -> str:
    """text → video and audio."""
    return f"{listed(direction.query)} → {listed(direction.target)}"


def letters(modalities: Sequence[str]) -> str:
    """How the names of directions are read."""
    known = [f"{_LETTERS[m]} is {m}" for m in modalities if m in _LETTERS]
    return ", ".join(known)


def summary(metrics: Mapping[str, Mapping[str, Any]], every: Sequence[Direction]) -> str:
    """The headline number in one sentence."""
    by_name = {d.name: d for d in every}
    name = headline(list(by_name))
    if name not in metrics:
        name = next(iter(metrics))
    row = metrics[name]
    text = f"puts the right answer first for {row['R@1']:.1f} % of {row['N']:,.0f} queries"
    if name in by_name:
        direction = by_name[name]
        text = (
            f"Asked with {listed(direction.query)}, the model puts the right {listed(direction.target)} first for "
            f"{row['R@1']:.1f} % of {row['N']:,.0f} queries"
        )
    else:
        text = f"{name} {text}"
    interval = (row.get("intervals") or {}).get("R@1")
    return text + (f" (95 % interval: {interval[0]:.1f} to {interval[1]:.1f} %)." if interval else ".")


def gains(metrics: Mapping[str, Mapping[str, Any]], every: Sequence[Direction]) -> list[Gain]:
    """Of each joint direction that has been ranked, with the single ones it is set against."""
    found = []
    for joint in every:
        if len(joint.others) < 2 or joint.name not in metrics:
            continue
        asks = len(joint.query) == 1  # the same question, or the same answer, as the single ones
        singles = [
            d.name
            for d in every
            if len(d.others) == 1 and d.name in metrics
            and (d.query == joint.query and d.target[0] in joint.target if asks
                 else d.target == joint.target and d.query[0] in joint.query)
        ]  # fmt: skip
        if not singles:
            continue
        best = max(singles, key=lambda name: metrics[name]["R@1"])
        row = metrics[joint.name]
        points = row.get("gain", row["R@1"] - metrics[best]["R@1"])
        if points is None:  # the single ones were ranked over other clips
            continue
        low, high = (row.get("intervals") or {}).get("gain") or (None, None)
        found.append(Gain(joint.name, best, points, low, high))
    return found
