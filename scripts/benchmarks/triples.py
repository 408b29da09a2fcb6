"""The expected volume under star weights, summed over all B^3 triples; forward and forward + gradients of the costs.

Contenders: `mover.ops.expected_volume` and eager torch in chunks of rows. float32, d = 128, plans of aligned data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from measure import interleaved
from torch import Tensor

import mover.ops

WIDTH, CHUNK = 128, 8


def eager(c12: Tensor, c13: Tensor, c23: Tensor, p12: Tensor, p13: Tensor) -> Tensor:
    """Chunks of rows of the first modality; volumes from half the squared distances, which keep their digits."""
    gamma, total = c23 / 2, c12.new_zeros(())
    for first in range(0, c12.shape[0], CHUNK):
        rows = slice(first, first + CHUNK)
        alpha, beta = c12[rows, :, None] / 2, c13[rows, None, :] / 2
        cross = (beta - gamma) + alpha * (1 - beta)
        square = alpha * (2 - alpha) * beta * (2 - beta) - cross.square()
        volume = square.clamp_min(1e-12).sqrt()
        total = total + (p12[rows, :, None] * p13[rows, None, :] * volume).sum()
    return total


def ours(c12: Tensor, c13: Tensor, c23: Tensor, p12: Tensor, p13: Tensor) -> Tensor:
    return mover.ops.expected_volume(c12, c13, c23, p12, p13)


def with_backward(sum_of: Callable[..., Tensor], costs: list[Tensor], plans: list[Tensor]) -> object:
    leaves = [cost.clone().requires_grad_() for cost in costs]
    sum_of(*leaves, *plans).backward()
    return leaves[0].grad


def run(quick: bool) -> list[dict]:
    results = []
    for size in (64, 128) if quick else (128, 256, 512):
        generator = torch.Generator().manual_seed(0)
        rows = torch.nn.functional.normalize(torch.randn(3, size, WIDTH, generator=generator), dim=-1)
        x, y = rows[[0, 0, 1]].contiguous(), rows[[1, 2, 2]].contiguous()
        plan, cost, *_ = mover.ops.transport(x, y)
        costs, plans = list(cost), [plan[0], plan[1] * size]
        for backward in (False, True):
            contenders: dict[str, Callable[[], object]] = {}
            for name, sum_of in {"mover": ours, "eager torch, chunked": eager}.items():
                if backward:
                    contenders[name] = lambda s=sum_of: with_backward(s, costs, plans)  # type: ignore[misc]
                else:
                    contenders[name] = lambda s=sum_of: s(*costs, *plans)  # type: ignore[misc]
            results.append(
                {
                    "B": size,
                    "what": "forward + gradients" if backward else "forward",
                    "times": interleaved(contenders, most=50),
                }
            )
            times = results[-1]["times"]
            print(
                f"triples B={size} {results[-1]['what']}: "
                + ", ".join(f"{name} {t['ms']:.2f} ms" for name, t in times.items()),
                flush=True,
            )
    return results


def table(rows: list[dict]) -> str:
    """Markdown."""
    names = list(rows[0]["times"])
    lines = ["| B | | " + " | ".join(names) + " | eager / mover |", "|" + "---|" * (len(names) + 3)]
    for row in rows:
        times = {name: row["times"][name]["ms"] for name in names}
        cells = [f"{value:.2f} ms" for value in times.values()]
        lines.append(
            f"| {row['B']} | {row['what']} | "
            + " | ".join(cells)
            + f" | {times['eager torch, chunked'] / times['mover']:.1f} |"
        )
    return "\n".join(lines)
