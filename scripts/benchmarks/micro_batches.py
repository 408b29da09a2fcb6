"""Memory and time of a training step whose clips are encoded in parts, against gradient checkpointing.

roberta-base, ViT-B/16 and BEATs with random weights, float32; all layers learn. Clips have a caption of 40 tokens,
frames of 224 x 224 and 10 s of sound; the columns are those of `steps`. "at once": `train.micro_batch`, clips that are
encoded at once, in two passes. "again": layers keep their inputs only. The loss is that of all clips, whatever the
parts; it differs by the masks of dropout, which each part draws for itself.
"""

from __future__ import annotations

import training_steps
from tables import table as markdown

BATCH, FRAMES = 8, 2
PARTS = ((0, False), (4, False), (2, False), (1, False), (0, True), (4, True))
QUICK = ((2, 1), ((0, False), (1, False)))


def run(quick: bool) -> list[dict]:
    """One row for each size of the parts."""
    rows = []
    (batch, frames), parts = QUICK if quick else ((BATCH, FRAMES), PARTS)
    for part, again in parts:
        setting = {"batch": batch, "frames": frames, "learns": "all", "again": again, "micro_batch": part}
        rows.append({**setting, **training_steps.in_a_process(setting)})
        print(f"micro-batches {setting}: {rows[-1]['CPU s']:.1f} s, {rows[-1]['peak']:.0f} MiB", flush=True)
    return rows


def table(rows: list[dict]) -> str:
    """Markdown."""
    head = ["clips", "frames", "at once", "", "CPU s", "peak, GiB", "loss"]
    lines = [
        [
            str(row["batch"]), str(row["frames"]), str(row["micro_batch"] or "all"),
            "again" if row["again"] else "", f"{row['CPU s']:.1f}", f"{row['peak'] / 1024:.2f}", f"{row['loss']:.4f}",
        ]
        for row in rows
    ]  # fmt: skip
    return markdown(head, lines)
