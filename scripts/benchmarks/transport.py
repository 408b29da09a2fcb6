"""Plans of three pairs to an L1 marginal error of 1e-3, forward and forward + backward of sum(plan * W).

Contenders: the matrix products alone (the floor), `torch.ops.mover.transport`, log-domain Sinkhorn in eager torch
(one pair at a time, and batched) and POT's log-domain Sinkhorn on torch tensors. All take the same epsilon, stop at the
same error and work in float32; the eager and POT gradients are unrolled through the iterations.
Data "aligned": y = normalise(x / 2 + n), n ~ N(0, I / d).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from measure import interleaved
from torch import Tensor

import mover.ops

PAIRS, WIDTH, EPSILON, TOL = 3, 512, 0.1, 1e-3


def aligned(pairs: int, rows: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """x, y of shape (pairs, rows, width), unit rows."""
    generator = torch.Generator().manual_seed(seed)
    normalise = torch.nn.functional.normalize
    x = normalise(torch.randn(pairs, rows, width, generator=generator, dtype=torch.float64), dim=-1)
    noise = torch.randn(pairs, rows, width, generator=generator, dtype=torch.float64) / math.sqrt(width)
    return x.float(), normalise(0.5 * x + noise, dim=-1).float()


def eager_plan(x: Tensor, y: Tensor, epsilon: float, tol: float, max_iter: int = 1000) -> Tensor:
    """Log-domain Sinkhorn as one would write it in torch; x, y (..., n, d)."""
    cost = (x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * x @ y.mT).clamp_min(0)
    n, m = cost.shape[-2:]
    scaled, f, g = -cost / epsilon, None, torch.zeros_like(cost[..., 0, :])
    for _ in range(max_iter):
        rows = torch.logsumexp(scaled + g[..., None, :], -1)
        if f is not None and (((f + rows).detach().exp() - 1 / n).abs().sum(-1) <= tol).all():
            break
        f = -math.log(n) - rows
        g = -math.log(m) - torch.logsumexp(scaled + f[..., :, None], -2)
    return (scaled + f[..., :, None] + g[..., None, :]).exp()


def pot_plan(x: Tensor, y: Tensor, epsilon: float, tol: float) -> Tensor:
    """POT's log-domain Sinkhorn. Its stopping test is the 2-norm of a marginal's error, taken every 10 iterations; the
    threshold is set so that the L1 error is about `tol`."""
    import ot

    n, m = x.shape[-2], y.shape[-2]
    cost = ot.dist(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ot.bregman.sinkhorn_log(
            torch.full((n,), 1 / n), torch.full((m,), 1 / m), cost, epsilon, stopThr=tol / math.sqrt(m), numItermax=1000
        )


def products(x: Tensor, y: Tensor, weight: Tensor, backward: bool) -> list[Tensor]:
    """x yT for each pair; with `backward` also the two products of the gradient."""
    out = []
    for a, b, w in zip(x, y, weight, strict=True):
        out.append(a @ b.T)
        if backward:
            out += [w @ b, w.T @ a]
    return out


def with_backward(plan: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    (plan(x, y) * weight).sum().backward()
    assert x.grad is not None
    return x.grad


def run(quick: bool) -> list[dict]:
    """One row per batch size and direction."""
    rows = []
    for size in (128, 256) if quick else (128, 256, 512, 1024, 2048):
        x, y = aligned(PAIRS, size, WIDTH)
        weight = torch.rand(PAIRS, size, size, generator=torch.Generator().manual_seed(1))

        def ours(a: Tensor, b: Tensor) -> Tensor:
            return mover.ops.transport(a, b, epsilon=EPSILON, max_iter=1000, tol=TOL).plan

        def loop(a: Tensor, b: Tensor) -> Tensor:
            return torch.stack([eager_plan(p, q, EPSILON, TOL) for p, q in zip(a, b, strict=True)])

        def batched(a: Tensor, b: Tensor) -> Tensor:
            return eager_plan(a, b, EPSILON, TOL)

        def pot(a: Tensor, b: Tensor) -> Tensor:
            return torch.stack([pot_plan(p, q, EPSILON, TOL) for p, q in zip(a, b, strict=True)])

        plans = {"mover": ours, "eager torch, pair loop": loop, "eager torch, batched": batched, "POT": pot}
        result = mover.ops.transport(x, y, epsilon=EPSILON, max_iter=1000, tol=TOL)
        errors = {name: _l1_error(plan(x, y)) for name, plan in plans.items()}
        for backward in (False, True):
            contenders: dict[str, Callable[[], object]] = {
                "products": lambda b=backward: products(x, y, weight, b)  # type: ignore[misc]
            }
            for name, plan in plans.items():
                if backward:
                    contenders[name] = lambda plan=plan: with_backward(plan, x, y, weight)  # type: ignore[misc]
                else:
                    contenders[name] = lambda plan=plan: plan(x, y)  # type: ignore[misc]
            rows.append(
                {
                    "B": size,
                    "d": WIDTH,
                    "pairs": PAIRS,
                    "epsilon": EPSILON,
                    "data": "aligned",
                    "what": "forward + backward" if backward else "forward",
                    "iterations": result.n_iter.tolist(),
                    "L1 error": errors,
                    "times": interleaved(contenders),
                }
            )
            print_row(rows[-1])
    return rows


def _l1_error(plan: Tensor) -> float:
    n, m = plan.shape[-2:]
    error = (plan.sum(-1) - 1 / n).abs().sum(-1) + (plan.sum(-2) - 1 / m).abs().sum(-1)
    return error.max().item()


def print_row(row: dict) -> None:
    times = row["times"]
    floor = times["products"]["ms"]
    print(
        f"transport B={row['B']} {row['what']}: "
        + ", ".join(f"{name} {t['ms']:.1f} ms ({t['ms'] / floor:.2f}x)" for name, t in times.items()),
        flush=True,
    )


def table(rows: list[dict]) -> str:
    """Markdown."""
    names = list(rows[0]["times"])
    lines = [
        "| B | | " + " | ".join(names) + " | mover / products | fastest peer / mover |",
        "|" + "---|" * (len(names) + 4),
    ]
    for row in rows:
        times = {name: row["times"][name]["ms"] for name in names}
        peer = min(value for name, value in times.items() if name not in ("products", "mover"))
        cells = [f"{value:.1f} ms" for value in times.values()]
        lines.append(
            f"| {row['B']} | {row['what']} | "
            + " | ".join(cells)
            + f" | {times['mover'] / times['products']:.2f} | {peer / times['mover']:.1f} |"
        )
    return "\n".join(lines)
