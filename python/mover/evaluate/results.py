"""The result for people and for programs: a table, metrics.json, and tables of comma-separated values."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mover.durable_file import durable_file
from mover.evaluate.directions import joint_score
from mover.evaluate.embeddings import Embeddings, ids_hash

if TYPE_CHECKING:
    from rich.table import Table

    from mover.evaluate.rank import Ranking

COLUMNS = ("R@1", "R@5", "R@10", "R@50", "MdR", "MnR", "MRR", "mAP@10", "N", "clips")
SHOWN = ("R@5", "R@10", "MdR", "MRR", "N")
"""Of the columns those that a table of 80 characters has room for, beside R@1 with its interval."""
META = "_meta"
"""Key of metrics.json that holds where the numbers come from; every other key is a row of the table."""


def metrics_table(metrics: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """One row per direction: R@1 with its interval, the columns SHOWN, and how much a joint direction gains."""
    from rich import box
    from rich.table import Table

    rows = {name: row for name, row in metrics.items() if name != META}
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("direction", overflow="fold")
    for column in ("R@1", "95 %", *SHOWN, "gain"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, row in rows.items():
        bounds = row.get("intervals", {}).get("R@1")
        table.add_row(
            name,
            f"{row['R@1']:.1f}",
            "" if bounds is None else "–".join(f"{bound:.1f}" for bound in bounds),
            *(f"{row[column]:.0f}" if column == "N" else f"{row[column]:.1f}" for column in SHOWN),
            "" if row.get("gain") is None else f"{row['gain']:+.1f}",
        )
    return table


def provenance(listed: Embeddings, missing: str, anchor: str | None = None, unusable: str = "last") -> dict[str, Any]:
    """What the numbers were computed on.

    Args:
        listed: all clips.
        missing: the policy for clips that lack a modality; what it leaves of them was ranked.
        anchor: of the joint directions, where there is no text.
        unusable: the policy for rows that are zero or not finite.
    """
    ranked = listed.under(missing, unusable)
    return {
        "listed": len(listed.ids),
        "clips": len(ranked.ids),
        "captions": len(ranked.text_owner),
        "without": {m: len(listed.missing(m)) for m in listed.modalities},
        "unusable_rows": {m: len(listed.unusable(m)) for m in listed.modalities},
        "missing_policy": missing,
        "unusable_policy": unusable,
        "ids_sha256": ids_hash(ranked.ids),
        "ties": "expected value under random order",
        "joint_score": joint_score(ranked, anchor),
    }


def write_metrics(path: Path, metrics: Mapping[str, Mapping[str, Any]], meta: Mapping[str, Any]) -> None:
    """Write metrics.json in one move: the rows, then `_meta`.

    Raises:
        UserError: it cannot be written.
    """
    _write(path, json.dumps({**metrics, META: meta}, indent=2) + "\n")


def write_csv(path: Path, metrics: Mapping[str, Mapping[str, Any]], meta: Mapping[str, Any]) -> None:
    """One line per row of the table: every metric, its interval, what it was computed on.

    Raises:
        UserError: it cannot be written.
    """
    bounded = [column for column in COLUMNS if column not in ("N", "clips")]
    ends = [f"{column} {end}" for column in (*bounded, "gain") for end in ("low", "high")]
    policies = ("missing_policy", "unusable_policy", "ids_sha256")
    lines: list[list[Any]] = [["direction", "score", *COLUMNS, "gain", *ends, *policies]]
    for name, row in metrics.items():
        intervals = row.get("intervals", {})
        bounds = [end for column in (*bounded, "gain") for end in intervals.get(column, ("", ""))]
        gain = "" if row.get("gain") is None else row["gain"]
        lines.append([name, row["score"], *(row[c] for c in COLUMNS), gain, *bounds, *(meta[p] for p in policies)])
    _write(path, _separated(lines))


def write_ranks(path: Path, embeddings: Embeddings, rankings: Sequence[Ranking]) -> None:
    """One line per query of every ranking: direction, id of the clip, which of its captions (from 0; empty where the
    query is none), expected rank from 1, and the counts that it follows from: how many wrong candidates are better, how
    many tie, and with how many right ones.

    Raises:
        UserError: it cannot be written.
    """
    order = np.argsort(embeddings.text_owner, kind="stable")
    first = np.searchsorted(embeddings.text_owner[order], embeddings.text_owner)
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    number -= first  # of each caption among those of its clip

    def lines() -> Iterable[Sequence[Any]]:
        yield ("direction", "id", "caption", "rank", "better", "tied", "own")
        for ranking in rankings:
            standing = ranking.standing
            asked = number[ranking.query] if ranking.direction.query == ("text",) else [""] * len(standing)
            yield from zip(
                [ranking.name] * len(standing), [embeddings.ids[i] for i in ranking.query_clip], asked,
                (standing.expected_rank + 1).tolist(), standing.better.tolist(), standing.tied.tolist(),
                standing.own.tolist(), strict=True,
            )  # fmt: skip

    _write(path, _separated(lines()))


def _separated(lines: Iterable[Sequence[Any]]) -> str:
    from io import StringIO

    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    with durable_file(path) as file:
        file.write(text.encode("utf-8"))
