"""Peak memory of plans of three pairs, forward + backward of sum(plan * W), for at most 10 and 100 iterations.

Contenders: `torch.ops.mover.transport`, whose backward keeps the rows and the plans and solves one linear system, and
log-domain Sinkhorn in eager torch, one pair at a time, whose backward keeps every iteration. The latter takes all
iterations allowed; the former ends at the floor of float32, an L1 error of 2e-6, after fewer than 100. MiB above what
was in use before; "plans" is the size of the three plans themselves. float32, d = 512.
"""

from __future__ import annotations

import torch
from measure import peak_mebibytes
from torch import Tensor
from transport import EPSILON, PAIRS, WIDTH, aligned, eager_plan, with_backward

import mover.ops


def run(quick: bool) -> list[dict]:
    """One row per batch size and number of iterations."""
    rows = []
    for size in (256, 512) if quick else (512, 1024, 2048):
        x, y = aligned(PAIRS, size, WIDTH)
        weight = torch.rand(PAIRS, size, size, generator=torch.Generator().manual_seed(1))
        for iterations in (10, 100):

            def ours(a: Tensor, b: Tensor, count: int = iterations) -> Tensor:
                return mover.ops.transport(a, b, epsilon=EPSILON, max_iter=count, tol=0.0).plan

            def loop(a: Tensor, b: Tensor, count: int = iterations) -> Tensor:
                return torch.stack([eager_plan(p, q, EPSILON, -1.0, count) for p, q in zip(a, b, strict=True)])

            row = {"B": size, "iterations": iterations, "plans": PAIRS * size * size * 4 / 2**20}
            for name, plan in {"mover": ours, "eager torch, pair loop": loop}.items():
                row[name] = peak_mebibytes(lambda plan=plan: with_backward(plan, x, y, weight))  # type: ignore[misc]
            rows.append(row)
            print("memory " + ", ".join(f"{key} {value:.0f}" for key, value in row.items()), flush=True)
    return rows


def table(rows: list[dict]) -> str:
    """Markdown."""
    names = [name for name in rows[0] if name not in ("B", "iterations")]
    lines = [
        "| B | iterations, at most | " + " | ".join(f"{name}, MiB" for name in names) + " |",
        "|" + "---|" * (len(names) + 2),
    ]
    for row in rows:
        lines.append(f"| {row['B']} | {row['iterations']} | " + " | ".join(f"{row[name]:.0f}" for name in names) + " |")
    return "\n".join(lines)
