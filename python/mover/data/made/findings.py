"""Numbers in words: what is measured of an item, put into levels by rule, and the levels into phrases.

A finding is a measurement with a cut into levels and a few phrases for each. A full description says every finding; one
for training leaves each out with a chance of one in ten, and words and order vary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mover.errors import UserError

DROP = 0.1
"""Chance that a training description leaves a finding out."""


@dataclass(frozen=True)
class Finding:
    """What is said of one measurement.

    name: of the measurement. phrases: for each level, from the smallest values to the largest, ways to say it.
    """

    name: str
    phrases: tuple[tuple[str, ...], ...]


def levels(values: np.ndarray, training: np.ndarray, count: int) -> np.ndarray:
    """int64 (n,): levels 0 to count - 1 of values (n,), cut so that each has as many of the `training` (n,) ones."""
    cuts = np.quantile(values[training], np.arange(1, count) / count)
    return np.searchsorted(cuts, values, side="right")


def phrase(finding: Finding, level: int, random: np.random.Generator) -> str:
    """One of the ways to say it."""
    choices = finding.phrases[level]
    return choices[int(random.integers(len(choices)))]


def said(findings: Sequence[Finding], item: Sequence[int], random: np.random.Generator, *, full: bool) -> list[str]:
    """The findings of an item, whose levels these are, in phrases and in random order; at least one."""
    order = [int(i) for i in random.permutation(len(findings))]
    drops = random.random(len(findings)) < DROP
    kept = [i for i in order if full or not drops[i]] or order[:1]
    return [phrase(findings[i], item[i], random) for i in kept]


def deal(total: int, counts: dict[str, int], what: str, random: np.random.Generator) -> list[tuple[int, str]]:
    """(item, split) of as many items as the counts say, drawn from `total`, each at most once, split by split.

    Raises UserError for counts below 1 and for more items than there are.
    """
    for split, count in counts.items():
        if count < 1:
            raise UserError(f"The number of {split} clips must be at least 1, got {count}.")
    wanted = sum(counts.values())
    if wanted > total:
        told = " + ".join(map(str, counts.values()))
        raise UserError(f"There are {total} {what}, and {told} = {wanted} were asked for. Ask for less.")
    splits = [split for split, count in counts.items() for _ in range(count)]
    return list(zip(map(int, random.permutation(total)[:wanted]), splits, strict=True))
