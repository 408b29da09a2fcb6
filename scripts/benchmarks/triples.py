"""The expected volume under star weights, summed over all B^3 triples; forward and forward + gradients of the costs.

"mover" is `mover.ops.expected_volume`; the peers are chunks of 8 rows in torch, eager and compiled (first calls:
seconds of the first forward and forward + gradients). float32, d = 128, plans of random rows. "error" is the relative
error of the sum, "gradient error" that of the gradients of the three costs, against float64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from measure import interleaved, timed
from problems import relative_error
from tables import error, milliseconds
from tables import table as markdown
from torch import Tensor

import mover.ops

WIDTH, CHUNK = 128, 8
SIZES, QUICK = (128, 256, 512), (64, 128)
FORWARD, BACKWARD = "forward", "forward + gradients"
Sum = Callable[..., Tensor]


def chunk_sum(alpha: Tensor, beta: Tensor, gamma: Tensor, p12: Tensor, p13: Tensor) -> Tensor:
    """The rows' part of the sum; volumes from half the squared distances, which keep their digits."""
    alpha, beta = alpha[:, :, None], beta[:, None, :]
    cross = (beta - gamma) + alpha * (1 - beta)
    square = alpha * (2 - alpha) * beta * (2 - beta) - cross.square()
    return (p12[:, :, None] * p13[:, None, :] * square.clamp_min(1e-12).sqrt()).sum()


def chunked(part: Sum) -> Sum:
    """The whole sum, from chunks of rows of the first modality."""

    def total(c12: Tensor, c13: Tensor, c23: Tensor, p12: Tensor, p13: Tensor) -> Tensor:
        chunks = [tensor.split(CHUNK) for tensor in (c12 / 2, c13 / 2, p12, p13)]
        gamma = c23 / 2
        return torch.stack([part(a, b, gamma, p, q) for a, b, p, q in zip(*chunks, strict=True)]).sum()

    return total


def compiled() -> Sum:
    import torch._inductor.config

    torch._inductor.config.force_disable_caches = True
    torch._dynamo.reset()
    return chunked(torch.compile(chunk_sum, dynamic=False))


def gradients(sum_of: Sum, costs: list[Tensor], plans: list[Tensor]) -> tuple[Tensor, ...]:
    leaves = [cost.detach().requires_grad_() for cost in costs]
    return torch.autograd.grad(sum_of(*leaves, *plans), leaves)


def problem(size: int) -> tuple[list[Tensor], list[Tensor]]:
    """The costs of the three pairs, and the weights of the first modality's two pairs, (size, size) each."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(3, size, WIDTH, generator=generator), dim=-1)
    plan, cost, *_ = mover.ops.transport(rows[[0, 0, 1]].contiguous(), rows[[1, 2, 2]].contiguous())
    return list(cost), [plan[0], plan[1] * size]


def run(quick: bool) -> list[dict]:
    """One row for each B."""
    results = []
    for size in QUICK if quick else SIZES:
        costs, plans = problem(size)
        sums = {"mover": mover.ops.expected_volume, "eager torch": chunked(chunk_sum), "torch.compile": compiled()}
        entries = _entries(sums, costs, plans)
        runs = {name: lambda sum_of=sum_of: sum_of(*costs, *plans) for name, sum_of in sums.items()}
        both = {name: lambda sum_of=sum_of: gradients(sum_of, costs, plans) for name, sum_of in sums.items()}
        for what, contenders in ((FORWARD, runs), (BACKWARD, both)):
            for name, times in interleaved(contenders).items():
                entries[name][what] = times
                print(f"triples B={size} {what}: {name} {times['ms']:.2f} ms", flush=True)
        results.append({"B": size, "contenders": entries})
    return results


def _entries(sums: dict[str, Sum], costs: list[Tensor], plans: list[Tensor]) -> dict[str, dict]:
    double_costs, double_plans = [cost.double() for cost in costs], [plan.double() for plan in plans]
    exact = mover.ops.expected_volume(*double_costs, *double_plans)
    exact_gradients = gradients(mover.ops.expected_volume, double_costs, double_plans)
    entries = {}
    for name, sum_of in sums.items():
        first, total = timed(lambda sum_of=sum_of: sum_of(*costs, *plans))
        both, found = timed(lambda sum_of=sum_of: gradients(sum_of, costs, plans))
        entries[name] = {
            "error": abs(total.item() / exact.item() - 1),
            "gradient error": relative_error(found, exact_gradients),
        }
        if name == "torch.compile":
            entries[name]["first calls, s"] = [first, both]
    return entries


def table(rows: list[dict]) -> str:
    """Markdown: a line for each B and contender."""
    lines = []
    for row in rows:
        best = row["contenders"]["mover"]
        for name, entry in row["contenders"].items():
            lines.append(
                [
                    str(row["B"]),
                    name,
                    milliseconds(entry[FORWARD]),
                    milliseconds(entry[BACKWARD]),
                    f"{entry[FORWARD]['ms'] / best[FORWARD]['ms']:.1f}",
                    f"{entry[BACKWARD]['ms'] / best[BACKWARD]['ms']:.1f}",
                    error(entry["error"]),
                    error(entry["gradient error"]),
                    " + ".join(f"{seconds:.1f}" for seconds in entry.get("first calls, s", ())),
                ]
            )
    head = ["B", "", "forward, ms", "forward + gradients, ms", "/ mover", "/ mover", "error", "gradient error"]
    return markdown([*head, "first calls, s"], lines)
