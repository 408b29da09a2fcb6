"""The pool of a whole training set matched anew: time and peak memory, by transport, partial transport and softmax.

Groups of text, video and audio among N unaligned clips each, d = 128, float32: what `objective.pool` does every
`objective.matching.refresh` steps. The clips of a modality are unit rows 1.2 from those of another before they are
brought to length one, so that most partners are near, and many others nearer. "kept" is the share of clips in a group,
"right" the share of these groups that are of one clip. Partial: half of the mass.
"""

from __future__ import annotations

import time

import torch
from measure import peak_mebibytes
from tables import digits, figures
from tables import table as markdown
from torch.nn.functional import normalize

from mover.config import MatchingConfig
from mover.losses.embeddings import Clips
from mover.losses.matching import Matching, match_groups

WIDTH, NOISE, MODALITIES = 128, 1.2, 3
WAYS = {
    "transport": MatchingConfig(),
    "partial transport": MatchingConfig(mass=0.5),
    "softmax": MatchingConfig(by="softmax"),
}
SIZES, QUICK = (2000, 5000, 10000, 20000), (500, 1000)


def run(quick: bool) -> list[dict]:
    """One row for each size and way of matching."""
    rows = []
    for size in QUICK if quick else SIZES:
        clips = _clips(size)
        for by, config in WAYS.items():
            found: list[Matching] = []

            def match(clips: Clips = clips, config: MatchingConfig = config, found: list[Matching] = found) -> None:
                found[:] = [match_groups(clips, config, [[m] for m in range(MODALITIES)])]

            peak = peak_mebibytes(match)
            began = time.perf_counter()
            match()
            took = time.perf_counter() - began
            kept = found[0].kept
            right = (found[0].members[kept] == found[0].members[kept][:, :1]).all(1).double().mean()
            rows.append(
                {
                    "N": size,
                    "by": by,
                    "s": took,
                    "MiB": peak,
                    "kept": float(kept.double().mean()),
                    "right": float(right),
                }
            )
            print(f"pool N {size} by {by}: {took:.2f} s, {peak:.0f} MiB", flush=True)
    return rows


def table(rows: list[dict]) -> str:
    """Markdown."""
    lines = [
        [f"{row['N']:,}", row["by"], figures(row["s"]), f"{row['MiB']:.0f}", digits(row["kept"]), digits(row["right"])]
        for row in rows
    ]
    return markdown(["N", "by", "s", "MiB", "kept", "right"], lines)


def _clips(size: int) -> Clips:
    """Unit rows (N, d) of every modality, each at its distance from common ones."""
    generator = torch.Generator().manual_seed(0)

    def unit() -> torch.Tensor:
        return normalize(torch.randn(size, WIDTH, generator=generator), dim=1)

    common = unit()
    return Clips(tuple(normalize(common + NOISE * unit(), dim=1) for _ in range(MODALITIES)), None)
