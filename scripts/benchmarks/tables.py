"""Markdown tables, and how their numbers are written."""

from __future__ import annotations

import math


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def milliseconds(times: dict | None) -> str:
    """The median; "once" where a contender was too slow to be called again."""
    if times is None:
        return ""
    return digits(times["ms"]) + (", once" if times["runs"] == 1 else "")


def digits(value: float) -> str:
    """Three digits, no exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def error(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def figures(value: float | None) -> str:
    """Three significant figures, no exponent."""
    if value is None:
        return ""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"
