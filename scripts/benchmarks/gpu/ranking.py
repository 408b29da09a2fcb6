"""Exact ranks by volume on a GPU: for n texts among n clips, how many others are nearer."""

from __future__ import annotations

import contrast
import ranking
import torch
from torch import Tensor

import mover.ops
from gpu import rates
from gpu.clock import Clock
from gpu.entries import Contender, measured
from gpu.entries import table as contenders_table

DESCRIPTION = """Exact ranks of n texts among n clips by the volume of text, video and audio, and the ten best clips of
each.

"products" are torch's own matrix products in float32, in strips of rows: the floor. "mover" is `mover.ops.volume_rank`,
"mover, top 10" `mover.ops.volume_topk`; "stacked Gram matrices" and "closed form" work in chunks of texts and count by
comparison. float32, d = 512, random unit rows. "other ranks" counts the texts whose rank differs from that in float64,
of the first 1000."""

PLANS = {"quick": (10_000,), "default": (10_000, 40_000), "full": (1000, 10_000, 100_000)}
STACKED = 10_000
WIDTH = 512


def run(plan: str, clock: Clock) -> list[dict]:
    """One row for each n."""
    results = []
    for n in PLANS[plan]:
        generator = torch.Generator().manual_seed(0)
        unit = torch.nn.functional.normalize
        t, v, a = (unit(torch.randn(n, WIDTH, generator=generator), dim=-1).to(clock.device) for _ in range(3))
        rows = (t, v, a, torch.arange(n, device=clock.device))
        few = (t[: ranking.CHECKED], v, a, rows[3][: ranking.CHECKED])
        exact = exact_ranks(*few)
        others = torch.stack([v, a], 1)
        contenders = {"products": ranking.products, "mover": ranking.ours}
        if n <= STACKED:
            contenders["stacked Gram matrices"] = ranking.by_chunks(contrast.stacked, 512)
        contenders["closed form"] = ranking.by_chunks(contrast.closed_form, 512)

        def contender(call) -> Contender:
            def errors() -> dict[str, int]:
                found = call(*few)
                return {} if found is None else {"other ranks": int((found != exact).sum())}

            return Contender(lambda: call(*rows), None, errors)

        makers = {name: lambda call=call: contender(call) for name, call in contenders.items()}
        makers["mover, top 10"] = lambda: Contender(lambda: mover.ops.volume_topk(t, others, 10))
        results.append({"rows": n, "contenders": measured(f"ranking n = {n}", makers, clock)})
    return results


def exact_ranks(t: Tensor, v: Tensor, a: Tensor, target: Tensor) -> Tensor:
    """In float64, from the whole matrix of a strip of texts."""

    def volumes(texts: Tensor, *others: Tensor) -> Tensor:
        return mover.ops.volume_scores(texts, torch.stack(others, 1))

    return ranking.by_chunks(volumes, ranking.STRIP)(t.double(), v.double(), a.double(), target)


def table(rows: list[dict], measured_rates: rates.Rates) -> str:
    """Markdown: the contenders of every size."""
    parts = []
    for row in rows:
        floor = rates.score_products(measured_rates, row["rows"], WIDTH, 3, False)
        contenders = contenders_table(row["contenders"], (floor, None), ("other ranks",))
        parts.append(f"## n = {row['rows']:,}\n\n{contenders}")
    return "\n\n".join(parts)
