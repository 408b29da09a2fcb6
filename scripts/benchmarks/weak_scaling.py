"""Weak scaling: clips a second of one training process and of two, each on a core of its own and with as many clips.

`mover train` with the towers and the objective of the demo, clips of the embedded data set decoded before; one process
with a batch of 64, two with one of 128 between them, connected by gloo. Each computes the objective of the whole batch.
"2, apart" are two runs of one process each at the same time: what the cores give that share a machine. Rounds
alternate; of each there is the median clips a second of its steps, without the first ones. The table has the median of
the rounds, and the fastest: what else runs on the machine slows a round as a whole, and two processes wait for the
slower.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

from tables import table as markdown
from training_runs import clips_a_second, make_clips, start

SHARE, STEPS, WARM, ROUNDS = 64, 16, 4, 9
KINDS = (("1", 1, 1), ("2", 1, 2), ("2, apart", 2, 1))  # name, runs at the same time, processes of each
QUICK = (6, 3, 1, 1)


def run(quick: bool) -> list[dict]:
    """One row for each round and number of processes; a machine of one core has no more than one."""
    share, steps, warm, rounds = QUICK if quick else (SHARE, STEPS, WARM, ROUNDS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        manifest = make_clips(Path(folder) / "data", 2 * share)
        for turn in range(rounds):
            for kind, runs, size in KINDS:
                if runs * size > (os.cpu_count() or 1):
                    continue
                started = [start(manifest, Path(folder), size, share * size, steps, number) for number in range(runs)]
                rate = sum(clips_a_second(run, warm) for run in started)
                rows.append({"processes": kind, "batch": share * size, "round": turn, "clips/s": rate})
                print(f"processes {kind}: {rate:.1f} clips/s", flush=True)
    return rows


def table(rows: list[dict]) -> str:
    """Markdown."""
    rates: dict[str, list[float]] = {}
    for row in rows:
        rates.setdefault(row["processes"], []).append(row["clips/s"])
    batches = {row["processes"]: row["batch"] for row in rows}
    lines = []
    for kind, own in rates.items():
        cells = [(take(own), take(own) / take(rates["1"])) for take in (statistics.median, max)]
        lines.append(
            [kind, str(batches[kind]), *(text for rate, ratio in cells for text in (f"{rate:.1f}", f"{ratio:.2f}x"))]
        )
    return markdown(["processes", "batch", "clips a second", "against one", "fastest", "against one"], lines)
