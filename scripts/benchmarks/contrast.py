"""The volume contrastive loss of three modalities: cross entropy of -volume / tau, forward and forward + backward.

Contenders: the matrix products alone (the floor); `mover.ops.volume_scores` and `mover.ops.contrast`; the volumes by
stacking every 3 x 3 Gram matrix and taking determinants (as published implementations do), and the closed form of the
3 x 3 determinant in eager torch, both with torch's cross entropy. float32, d = 512, unit rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from measure import interleaved
from torch import Tensor

import mover.ops

WIDTH, TAU = 512, 0.07
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def determinants(t: Tensor, v: Tensor, a: Tensor) -> Tensor:
    """Volumes (n, n) from stacked Gram matrices (n, n, 3, 3)."""
    n = t.shape[0]
    tv, ta, va = t @ v.T, t @ a.T, (v * a).sum(-1).expand(n, n)
    one = torch.ones_like(tv)
    gram = torch.stack([one, tv, ta, tv, one, va, ta, va, one], -1).view(n, n, 3, 3)
    return torch.linalg.det(gram).abs().sqrt()


def closed_form(t: Tensor, v: Tensor, a: Tensor) -> Tensor:
    tv, ta, va = t @ v.T, t @ a.T, (v * a).sum(-1)
    return (1 + 2 * tv * ta * va - tv.square() - ta.square() - va.square()).clamp_min(1e-12).sqrt()


def ours(t: Tensor, v: Tensor, a: Tensor) -> Tensor:
    return mover.ops.contrast(mover.ops.volume_scores(t, torch.stack([v, a], 1)), torch.tensor(-1 / TAU))


def products(t: Tensor, v: Tensor, a: Tensor, weight: Tensor, backward: bool) -> list[Tensor]:
    out = [t @ v.T, t @ a.T]
    if backward:
        out += [weight @ v, weight @ a, weight.T @ t, weight.T @ t]
    return out


def eager_loss(volumes: Tensor) -> Tensor:
    logits, target = -volumes / TAU, torch.arange(volumes.shape[0])
    entropy = torch.nn.functional.cross_entropy
    return (entropy(logits, target) + entropy(logits.T, target)) / 2


def eager(score: Loss) -> Loss:
    return lambda *rows: eager_loss(score(*rows))


def with_backward(loss: Loss, rows: list[Tensor]) -> object:
    leaves = [row.clone().requires_grad_() for row in rows]
    loss(*leaves).backward()
    return leaves[0].grad


def run(quick: bool) -> list[dict]:
    results = []
    for n in (128, 256) if quick else (256, 512, 1024, 2048):
        generator = torch.Generator().manual_seed(0)
        rows = [torch.nn.functional.normalize(torch.randn(n, WIDTH, generator=generator), dim=-1) for _ in range(3)]
        weight = torch.rand(n, n, generator=generator)
        losses = {
            "mover": ours,
            "stacked Gram matrices": eager(determinants),
            "closed form, eager": eager(closed_form),
        }
        for backward in (False, True):
            contenders: dict[str, Callable[[], object]] = {
                "products": lambda b=backward: products(*rows, weight, b)  # type: ignore[misc]
            }
            for name, loss in losses.items():
                if backward:
                    contenders[name] = lambda loss=loss: with_backward(loss, rows)  # type: ignore[misc]
                else:
                    contenders[name] = lambda loss=loss: loss(*rows)  # type: ignore[misc]
            results.append(
                {
                    "N": n,
                    "d": WIDTH,
                    "k": 3,
                    "what": "forward + backward" if backward else "forward",
                    "times": interleaved(contenders),
                }
            )
            times = results[-1]["times"]
            print(
                f"contrast N={n} {results[-1]['what']}: "
                + ", ".join(f"{name} {t['ms']:.1f} ms" for name, t in times.items()),
                flush=True,
            )
    return results


def table(rows: list[dict]) -> str:
    """Markdown."""
    names = list(rows[0]["times"])
    lines = [
        "| N | | " + " | ".join(names) + " | mover / products | stacked / mover |",
        "|" + "---|" * (len(names) + 4),
    ]
    for row in rows:
        times = {name: row["times"][name]["ms"] for name in names}
        cells = [f"{value:.1f} ms" for value in times.values()]
        lines.append(
            f"| {row['N']} | {row['what']} | "
            + " | ".join(cells)
            + f" | {times['mover'] / times['products']:.2f} | {times['stacked Gram matrices'] / times['mover']:.1f} |"
        )
    return "\n".join(lines)
