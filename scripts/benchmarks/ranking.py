"""Exact ranks of n texts among n clips by the volume of text, video and audio: for each, how many others are nearer.

"products" are the matrix products alone, in strips of rows: the floor. "mover" is `mover.ops.volume_rank`; "stacked
Gram matrices" builds every 3 x 3 Gram matrix and takes determinants, as published implementations do; "closed form" is
the formula of the 3 x 3 determinant. The last two work in chunks of texts and count by comparison. float32, d = 512,
random unit rows. "memory" is the peak above the inputs; "other ranks" counts the texts whose rank differs from that in
float64, of the first 1000.
"""

from __future__ import annotations

from collections.abc import Callable

import contrast
import torch
from measure import absent, interleaved, peak_mebibytes
from tables import milliseconds
from tables import table as markdown
from torch import Tensor

import mover.ops

WIDTH, CHUNK, STRIP = 512, 64, 512
CHECKED = 1000
SIZES, QUICK = (1000, 10_000), (300, 1000)
Ranks = Callable[[], Tensor]


def ours(t: Tensor, v: Tensor, a: Tensor, target: Tensor) -> Tensor:
    better, _ = mover.ops.volume_rank(t, torch.stack([v, a], 1), target)
    return better


def by_chunks(volumes_of: Callable[[Tensor, Tensor, Tensor], Tensor], chunk: int = CHUNK) -> Callable[..., Tensor]:
    """Ranks from the volumes (chunk, n) of some texts with all clips."""

    def ranks(t: Tensor, v: Tensor, a: Tensor, target: Tensor) -> Tensor:
        better = []
        for texts, own in zip(t.split(chunk), target.split(chunk), strict=True):
            volumes = volumes_of(texts, v, a)
            better.append((volumes < volumes.gather(1, own[:, None])).sum(1))
        return torch.cat(better)

    return ranks


def products(t: Tensor, v: Tensor, a: Tensor, _: Tensor) -> None:
    for texts in t.split(STRIP):
        texts @ v.T, texts @ a.T


CONTENDERS = {
    "products": products,
    "mover": ours,
    "stacked Gram matrices": by_chunks(contrast.stacked),
    "closed form": by_chunks(contrast.closed_form),
}


def run(quick: bool) -> list[dict]:
    """One row for each size."""
    results = []
    for n in QUICK if quick else SIZES:
        generator = torch.Generator().manual_seed(0)
        unit = torch.nn.functional.normalize
        t, v, a = (unit(torch.randn(n, WIDTH, generator=generator), dim=-1) for _ in range(3))
        rows = (t, v, a, torch.arange(n))
        few = (t[:CHECKED], v, a, torch.arange(n)[:CHECKED])
        exact = by_chunks(lambda *r: mover.ops.volume_scores(r[0], torch.stack(r[1:], 1)), STRIP)(
            *(tensor.double() for tensor in few[:3]), few[3]
        )
        entries: dict[str, dict] = {}
        runs: dict[str, Ranks] = {}
        for name, contender in CONTENDERS.items():
            call = lambda contender=contender: contender(*rows)  # noqa: E731
            try:
                found = contender(*few)
                entries[name] = {"peak, MiB": peak_mebibytes(call, warm=False)}
            except Exception as failure:  # a contender that fails is a line of the table
                entries[name] = {"absent": absent(failure)}
                continue
            if found is not None:
                entries[name]["other ranks"] = int((found != exact).sum())
            runs[name] = call
        for name, times in interleaved(runs, least=3).items():
            entries[name]["time"] = times
            print(f"ranking n={n}: {name} {times['ms']:.0f} ms, {entries[name]['peak, MiB']:.0f} MiB", flush=True)
        results.append({"n": n, "d": WIDTH, "k": 3, "contenders": entries})
    return results


def table(rows: list[dict]) -> str:
    """Markdown: a line for each size and contender."""
    lines = []
    for row in rows:
        floor = row["contenders"]["products"]["time"]["ms"]
        for name, entry in row["contenders"].items():
            if "absent" in entry:
                lines.append([str(row["n"]), name, entry["absent"], "", "", ""])
                continue
            lines.append(
                [
                    str(row["n"]),
                    name,
                    milliseconds(entry["time"]),
                    f"{entry['time']['ms'] / floor:.2f}",
                    f"{entry['peak, MiB']:.0f}",
                    str(entry.get("other ranks", "")),
                ]
            )
    return markdown(["n", "", "ms", "/ products", "memory, MiB", "other ranks"], lines)
