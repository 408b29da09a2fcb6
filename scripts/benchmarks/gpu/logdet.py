"""Volumes and log-determinants of many small groups on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import mover.ops
from gpu import rates
from gpu.clock import Clock
from gpu.entries import Contender, measured
from gpu.entries import table as contenders_table

DESCRIPTION = """Log-determinants of many symmetric positive definite k x k matrices, and volumes of as many groups of k
rows, forward and forward + backward of the sum.

"mover, registers" and "mover, cuSOLVER" are the two backends of `mover.ops.logdet`; "torch.linalg.cholesky" takes the
logarithms of the factor's diagonal, "torch.linalg.slogdet" factorises with pivots. "mover, volume" is
`mover.ops.volume`; "torch, volume" the root of torch.linalg.det of the Gram matrices. float32, d = 64. "error" is the
largest, relative to the largest entry, against float64. The floor is one read of the lower triangles."""

PLANS = {  # (k, count)
    "quick": ((8, 100_000),),
    "default": ((3, 1_000_000), (8, 1_000_000), (16, 70_000), (32, 70_000)),
    "full": tuple((k, count) for k in (2, 3, 4, 5, 8, 9, 16, 32) for count in (1000, 70_000, 500_000)),
}
WIDTH, MOST_IN_REGISTERS = 64, 8


def run(plan: str, clock: Clock) -> list[dict]:
    """One row for each size and count."""
    rows = []
    for k, count in PLANS[plan]:
        generator = torch.Generator(clock.device).manual_seed(0)
        v = torch.randn(count, k, WIDTH, generator=generator, device=clock.device)
        makers = contenders(torch.nn.functional.normalize(v, dim=-1))
        rows.append({"k": k, "count": count, "contenders": measured(f"logdet k = {k}, {count}", makers, clock)})
        del v, makers
        clock.free()
    return rows


def contenders(v: Tensor) -> dict[str, Callable[[], Contender]]:
    """v: unit rows (count, k, d)."""
    g = mover.ops.gram(v)
    logdet, volume = torch.linalg.slogdet(g.double()).logabsdet, torch.linalg.det(v.double() @ v.double().mT).sqrt()
    makers: dict[str, Callable[[], Contender]] = {}

    def add(name: str, function: Callable[[Tensor], Tensor], tensor: Tensor, exact: Tensor) -> None:
        makers[name] = lambda: _contender(name, function, tensor, exact)

    small = v.shape[1] <= MOST_IN_REGISTERS
    if small:
        add("mover, registers", lambda g: mover.ops.logdet(g, backend="registers").logdet, g, logdet)
    add("mover, cuSOLVER", lambda g: mover.ops.logdet(g, backend="cusolver").logdet, g, logdet)
    add("torch.linalg.cholesky", by_cholesky, g, logdet)
    add("torch.linalg.slogdet", lambda g: torch.linalg.slogdet(g).logabsdet, g, logdet)
    if small:
        add("mover, volume", mover.ops.volume, v, volume)
        add("torch, volume", lambda v: torch.linalg.det(v @ v.mT).sqrt(), v, volume)
    return makers


def by_cholesky(g: Tensor) -> Tensor:
    return 2 * torch.linalg.cholesky_ex(g).L.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _contender(name: str, function: Callable[[Tensor], Tensor], tensor: Tensor, exact: Tensor) -> Contender:
    leaf = tensor.detach().requires_grad_()
    upstream = torch.ones_like(exact, dtype=tensor.dtype)
    return Contender(
        lambda: function(tensor),
        lambda: torch.autograd.grad(function(leaf), leaf, upstream),
        lambda: {"error": float((function(tensor).double() - exact).abs().max() / exact.abs().max())},
        capturable=name.startswith("mover") and "cuSOLVER" not in name,
    )


def table(rows: list[dict], measured_rates: rates.Rates) -> str:
    """Markdown: the contenders of every size."""
    parts = []
    for row in rows:
        floor = rates.cholesky(measured_rates, row["k"], row["count"])
        title = f"## k = {row['k']}, {row['count']:,} matrices"
        parts.append(f"{title}\n\n{contenders_table(row['contenders'], (floor, None), ('error',))}")
    return "\n\n".join(parts)
