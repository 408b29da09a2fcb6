"""The result for people and for programs: a table, and metrics.json."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from rich.table import Table

from mover.evaluate.directions import joint_score
from mover.evaluate.embeddings import Embeddings

COLUMNS = ("R@1", "R@5", "R@10", "MdR", "MnR", "N", "clips")
META = "_meta"
"""Key of metrics.json that holds where the numbers come from; every other key is a direction."""


def metrics_table(metrics: dict[str, dict[str, float]], title: str) -> Table:
    """One row per direction: Recall@K in percent, median and mean rank from 1, number of queries N and of clips."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("direction")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for name, row in metrics.items():
        if name != META:
            table.add_row(name, *(f"{row[c]:.0f}" if c in ("N", "clips") else f"{row[c]:.1f}" for c in COLUMNS))
    return table


def provenance(listed: Embeddings, missing: str, anchor: str | None = None) -> dict[str, Any]:
    """What the numbers were computed on.

    Args:
        listed: all clips.
        missing: the policy for clips that lack a modality; what it leaves of them was ranked.
        anchor: of the joint directions, where there is no text.
    """
    ranked = listed.under(missing)
    ids = "\n".join(ranked.ids)
    return {
        "listed": len(listed.ids),
        "clips": len(ranked.ids),
        "captions": len(ranked.text_owner),
        "without": {m: len(listed.missing(m)) for m in listed.modalities},
        "unusable_rows": {m: len(ranked.unusable(m)) for m in ranked.modalities},
        "missing_policy": missing,
        "ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
        "ties": "expected value under random order",
        "joint_score": joint_score(ranked, anchor),
    }


def write_metrics(path: Path, metrics: dict[str, dict[str, float]], meta: dict[str, Any]) -> None:
    """Write metrics.json in one move: the directions, then `_meta`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    with open(aside, "w", encoding="utf-8") as file:
        json.dump({**metrics, META: meta}, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
