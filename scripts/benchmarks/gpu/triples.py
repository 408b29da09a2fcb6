"""The expected volume over all triples on a GPU, forward and with the gradients of all six inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import triples
from problems import relative_error
from torch import Tensor

import mover.ops
from gpu import rates
from gpu.clock import Clock
from gpu.entries import Contender, measured
from gpu.entries import table as contenders_table

DESCRIPTION = """The expected volume, summed over all B^3 triples of three modalities: forward, and with the gradients
of all six inputs, the costs and the weights of every pair.

The peers are chunks of 8 rows in torch, eager and compiled. float32, random unit rows, d = 128. "error" is the relative
error of the sum, "gradient error" that of the gradients, against float64. The floor counts the FP32 instructions of a
triple."""

PLANS = {
    "quick": ((256, False), (512, False)),
    "default": ((512, True), (1024, False), (128, False), (256, False)),
    "full": ((512, True), (1024, True), (2048, False), (128, True), (256, True)),
}
EAGER = 1024  # rows up to which chunks in torch are timed
WIDTH = 128
Sum = Callable[..., Tensor]


def run(plan: str, clock: Clock) -> list[dict]:
    """One row for each B."""
    rows = []
    for size, compile_too in PLANS[plan]:
        inputs = problem(size, clock)
        sums: dict[str, Sum] = {"mover": mover.ops.expected_volume}
        if size <= EAGER:
            sums["eager torch"] = chunked(chunk_sum)
        if compile_too:
            sums["torch.compile"] = compiled()
        exact_inputs = [tensor.double() for tensor in inputs]
        exact = mover.ops.expected_volume(*exact_inputs), gradients(mover.ops.expected_volume, exact_inputs)
        makers = {
            name: lambda name=name, sum_of=sum_of: _contender(name, sum_of, inputs, exact, clock)
            for name, sum_of in sums.items()
        }
        rows.append({"rows": size, "contenders": measured(f"triples B = {size}", makers, clock)})
    return rows


def problem(size: int, clock: Clock) -> list[Tensor]:
    """Three costs and the weights of three pairs."""
    generator = torch.Generator().manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(3, size, WIDTH, generator=generator), dim=-1).to(clock.device)
    result = mover.ops.transport(z[[0, 0, 1]].contiguous(), z[[1, 2, 2]].contiguous())
    weights = torch.rand(size, size, generator=generator).to(clock.device)
    return [cost.contiguous() for cost in result.cost] + [result.plan[0], result.plan[1] * size, weights]


def chunk_sum(a: Tensor, b: Tensor, gamma: Tensor, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
    """The part of a chunk of rows; volumes from half the squared distances, which keep their digits."""
    alpha, beta = a[:, :, None], b[:, None, :]
    cross = (beta - gamma) + alpha * (1 - beta)
    square = alpha * (2 - alpha) * beta * (2 - beta) - cross.square()
    return (p[:, :, None] * q[:, None, :] * r * square.clamp_min(1e-12).sqrt()).sum()


def chunked(part: Sum) -> Sum:
    def total(c12: Tensor, c13: Tensor, c23: Tensor, p12: Tensor, p13: Tensor, p23: Tensor) -> Tensor:
        chunks = [tensor.split(triples.CHUNK) for tensor in (c12 / 2, c13 / 2, p12, p13)]
        gamma = c23 / 2
        return torch.stack([part(a, b, gamma, p, q, p23) for a, b, p, q in zip(*chunks, strict=True)]).sum()

    return total


def compiled() -> Sum:
    import torch._inductor.config

    torch._inductor.config.force_disable_caches = True
    torch._dynamo.reset()
    return chunked(torch.compile(chunk_sum, dynamic=False))


def gradients(sum_of: Sum, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    return torch.autograd.grad(sum_of(*leaves), leaves)


def _contender(name: str, sum_of: Sum, inputs: list[Tensor], exact: tuple, clock: Clock) -> Contender:
    def errors() -> dict[str, float]:
        return {
            "error": abs(sum_of(*inputs).item() / exact[0].item() - 1),
            "gradient error": relative_error(gradients(sum_of, inputs), exact[1]),
        }

    return Contender(
        lambda: sum_of(*inputs), lambda: gradients(sum_of, inputs), errors, compiles=name == "torch.compile"
    )


def table(rows: list[dict], measured_rates: rates.Rates) -> str:
    """Markdown: the contenders of every size."""
    parts = []
    for row in rows:
        floors = tuple(rates.triples(measured_rates, row["rows"], gradients) for gradients in (False, True))
        contenders = contenders_table(row["contenders"], floors, ("error", "gradient error"))
        parts.append(f"## B = {row['rows']}\n\n{contenders}")
    return "\n\n".join(parts)
