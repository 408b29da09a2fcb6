"""Scores by volume and their contrast on a GPU, forward and forward + backward."""

from __future__ import annotations

from collections.abc import Callable

import contrast
import torch
from problems import relative_error
from torch import Tensor

import mover.ops
from gpu import rates
from gpu.clock import Clock
from gpu.entries import Contender, measured
from gpu.entries import table as contenders_table

DESCRIPTION = """The volumes of all N anchors with all N groups of k - 1 others, and the cross entropy of -volume / tau.

"products" are torch's own matrix products in float32, k - 1 forward and twice as many more backward: the floor.
"volume_scores" is that operator alone, with a given upstream gradient; "mover" is `mover.ops.volume_scores` and
`mover.ops.contrast`; the others take torch's cross entropy of volumes by stacked Gram matrices and determinants, or by
the formula of the 3 x 3 determinant, eager and compiled. float32, random unit rows. "gradient error" is relative,
against float64, of the part tangent to the unit sphere."""

PLANS = {  # N, k, d, whether torch.compile is timed
    "quick": ((1024, 3, 512, False), (4096, 3, 512, False)),
    "default": ((4096, 3, 512, True), (1024, 3, 512, False), (2048, 3, 512, False), (1024, 5, 512, False)),
    "full": tuple((n, k, d, k == 3) for k in (3, 2, 5) for d in (512, 256, 1024) for n in (64, 256, 1024, 4096, 8192)),
}
STACKED = 2048  # N up to which Gram matrices are stacked


def run(plan: str, clock: Clock) -> list[dict]:
    """One row for each size."""
    results = []
    for n, k, width, compile_too in PLANS[plan]:
        generator = torch.Generator().manual_seed(0)
        rows = torch.nn.functional.normalize(torch.randn(k, n, width, generator=generator), dim=-1).to(clock.device)
        makers = contenders(list(rows), compile_too)
        entries = measured(f"contrast N = {n}, k = {k}, d = {width}", makers, clock)
        results.append({"rows": n, "k": k, "width": width, "contenders": entries})
    return results


def contenders(rows: list[Tensor], compile_too: bool) -> dict[str, Callable[[], Contender]]:
    n, k = rows[0].shape[0], len(rows)
    weight = torch.rand(n, n, generator=torch.Generator().manual_seed(1)).to(rows[0].device)
    scale, target = torch.tensor(-1 / contrast.TAU).to(weight.device), torch.arange(n, device=weight.device)
    entropy = torch.nn.functional.cross_entropy

    def loss(volumes: Tensor) -> Tensor:
        logits = scale * volumes
        return (entropy(logits, target) + entropy(logits.T, target)) / 2

    def scores(anchor: Tensor, *others: Tensor) -> Tensor:
        return mover.ops.volume_scores(anchor, torch.stack(others, 1))

    def ours(*tensors: Tensor) -> Tensor:
        return mover.ops.contrast(scores(*tensors), scale.to(tensors[0].dtype))

    exact = contrast.tangent(contrast.gradients(ours, [row.double() for row in rows]), [row.double() for row in rows])
    losses = {"mover": ours}
    if n <= STACKED:
        losses["stacked Gram matrices"] = lambda *tensors: loss(stacked(*tensors))
    if k == 3:
        losses["closed form, eager"] = lambda *tensors: loss(contrast.closed_form(*tensors))
    if k == 3 and compile_too:
        losses["closed form, torch.compile"] = _compiled(lambda *tensors: loss(contrast.closed_form(*tensors)))

    def contender(name: str, loss_of: Callable[..., Tensor]) -> Contender:
        def errors() -> dict[str, float]:
            found = contrast.tangent(contrast.gradients(loss_of, rows), rows)
            return {"gradient error": relative_error(found, exact)}

        return Contender(
            lambda: loss_of(*rows),
            lambda: contrast.gradients(loss_of, rows),
            errors,
            compiles="compile" in name,
        )

    def alone() -> Contender:
        leaves = [row.detach().requires_grad_() for row in rows]
        others = torch.stack(rows[1:], 1)
        both = lambda: torch.autograd.grad(scores(*leaves), leaves, weight)  # noqa: E731
        return Contender(lambda: mover.ops.volume_scores(rows[0], others), both)

    makers = {name: lambda name=name, loss_of=loss_of: contender(name, loss_of) for name, loss_of in losses.items()}
    return {"products": lambda: _products(rows, weight), "volume_scores": alone, **makers}


def stacked(anchor: Tensor, *others: Tensor) -> Tensor:
    """Volumes (n, m) from Gram matrices (n, m, k, k)."""
    products = [anchor @ other.T for other in others]
    one = torch.ones_like(products[0])
    inner = [[(a * b).sum(-1).expand_as(one) for b in others] for a in others]
    entries = [one, *products]
    for i, product in enumerate(products):
        entries += [product, *(one if i == j else inner[i][j] for j in range(len(others)))]
    k = len(others) + 1
    return torch.linalg.det(torch.stack(entries, -1).unflatten(-1, (k, k))).abs().sqrt()


def _compiled(loss_of: Callable[..., Tensor]) -> Callable[..., Tensor]:
    import torch._inductor.config

    torch._inductor.config.force_disable_caches = True
    torch._dynamo.reset()
    return torch.compile(loss_of, dynamic=False)


def _products(rows: list[Tensor], weight: Tensor) -> Contender:
    def both() -> list[Tensor]:
        anchor, *others = rows
        found = [anchor @ other.T for other in others]
        return found + [weight @ other for other in others] + [weight.T @ anchor for _ in others]

    return Contender(lambda: [rows[0] @ other.T for other in rows[1:]], both)


def table(rows: list[dict], measured_rates: rates.Rates) -> str:
    """Markdown: the contenders of every size."""
    parts = []
    for row in rows:
        floors = tuple(
            rates.score_products(measured_rates, row["rows"], row["width"], row["k"], backward)
            for backward in (False, True)
        )
        title = f"## N = {row['rows']}, k = {row['k']}, d = {row['width']}"
        parts.append(f"{title}\n\n{contenders_table(row['contenders'], floors, ('gradient error',))}")
    return "\n\n".join(parts)
