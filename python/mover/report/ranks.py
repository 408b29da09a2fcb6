"""Where the right answer stands, in every direction: a histogram of ranks with bins that grow."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from mover.evaluate.standing import Standing
from mover.report.charts import INK, LINE, MUTED, SERIES, WIDTH, Chart, chart, drawing


def rank_bins(candidates: int) -> list[tuple[int, int]]:
    """Bins of ranks counted from 1, first and last, that cover all candidates: 1, 2, 3-5, 6-10, 11-20, 21-50, …"""
    ends = [1]
    for power, factor in itertools.product(range(12), (2, 5, 10)):
        if ends[-1] >= candidates:
            break
        ends.append(min(factor * 10**power, candidates))
    return list(zip([1, *(end + 1 for end in ends)], ends, strict=False))


def rank_shares(standing: Standing, bins: Sequence[tuple[int, int]]) -> np.ndarray:
    """float64 (bins,): percent of the queries whose right answer stands in each bin, expected under random order of
    ties."""
    below = [standing.recall_at(last) for _, last in bins]
    total = np.array([0.0, *(100 * float(values.mean()) for values in below)])
    return np.diff(total)


def by_chance(candidates: int, own: np.ndarray) -> Standing:
    """Where the right answers of queries would stand if all scores were equal: the order is random then.

    candidates: how many there are. own: int64 (Q,), how many of them are right for each query.
    """
    return Standing(np.zeros_like(own), candidates - own, own)


def rank_chart(name: str, standing: Standing, chance: Standing, candidates: int) -> Chart:
    """The ranks in one direction, among so many candidates, with those of `by_chance` dotted."""
    bins = rank_bins(candidates)
    shares, expected = rank_shares(standing, bins), rank_shares(chance, bins)
    with drawing(1.55, WIDTH / 2) as (figure, axes):
        axes.bar([0], shares[:1], width=0.8, color=SERIES[0])
        axes.bar(range(1, len(bins)), shares[1:], width=0.8, color=SERIES[0], alpha=0.45)
        axes.step(
            np.arange(len(bins) + 1) - 0.5, [*expected, expected[-1]], where="post", color=MUTED, linewidth=1.0,
            linestyle=(0, (1.2, 1.4)),
        )  # fmt: skip
        axes.text(0, shares[0] + 2, f"{shares[0]:.0f} %", ha="center", va="bottom", fontsize=7.5, color=INK)
        axes.set_ylim(0, 112)
        axes.set_yticks([0, 50, 100])
        _name_bins(axes, bins)
        axes.set_title(name, color=INK)
        lost = 100 - 100 * float(standing.recall_at(10).mean())
        label = (
            f"{name}, {len(standing)} queries among {candidates} candidates: the right answer is first for "
            f"{shares[0]:.1f} %, beyond the tenth place for {lost:.1f} %."
        )
        return chart(figure, f"rank-{_plain(name)}", label)


def _name_bins(axes: Axes, bins: Sequence[tuple[int, int]]) -> None:
    """Ticks named by the first rank of each bin."""
    names = [str(first) if first == last else f"{first}–" for first, last in bins]
    every = 1 if len(bins) <= 6 else 2
    axes.set_xticks(range(0, len(bins), every), names[::every])
    axes.tick_params(axis="x", labelsize=7, length=0)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(LINE)


def _plain(name: str) -> str:
    """A name as an id may contain it."""
    return "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}" for c in name)
