"""The volume contrastive loss of three modalities: cross entropy of -volume / tau, forward and forward + backward.

"products" are the matrix products alone, the floor. "mover" is `mover.ops.volume_scores` and `mover.ops.contrast`;
the others take torch's cross entropy. "stacked Gram matrices" builds every 3 x 3 Gram matrix and takes determinants, as
published implementations do; "closed form" is the formula of the 3 x 3 determinant in torch, eager and compiled (first
calls: seconds of the first forward and forward + backward).
float32, d = 512, random unit rows. "gradient error" is relative, against float64, of the part tangent to the unit
sphere; "text = video" says whether the gradient is finite where every text equals its video; "arrays" is the peak
memory of forward + backward, as a number of N x N arrays.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from measure import interleaved, peak_mebibytes, timed
from problems import relative_error
from tables import digits, error, milliseconds
from tables import table as markdown
from torch import Tensor

import mover.ops

WIDTH, TAU = 512, 0.07
SIZES, QUICK = (512, 1024, 2048), (128, 256)
FORWARD, BACKWARD = "forward", "forward + backward"


def stacked(t: Tensor, v: Tensor, a: Tensor) -> Tensor:
    """Volumes (n, m) of n texts with m clips, from Gram matrices (n, m, 3, 3)."""
    tv, ta = t @ v.T, t @ a.T
    va, one = (v * a).sum(-1).expand_as(tv), torch.ones_like(tv)
    gram = torch.stack([one, tv, ta, tv, one, va, ta, va, one], -1).unflatten(-1, (3, 3))
    return torch.linalg.det(gram).abs().sqrt()


def closed_form(t: Tensor, v: Tensor, a: Tensor) -> Tensor:
    tv, ta, va = t @ v.T, t @ a.T, (v * a).sum(-1)
    return (1 + 2 * tv * ta * va - tv.square() - ta.square() - va.square()).clamp_min(1e-12).sqrt()


def ours(t: Tensor, v: Tensor, a: Tensor) -> Tensor:
    return mover.ops.contrast(mover.ops.volume_scores(t, torch.stack([v, a], 1)), torch.tensor(-1 / TAU))


def products(rows: list[Tensor], weight: Tensor, backward: bool) -> list[Tensor]:
    t, v, a = rows
    out = [t @ v.T, t @ a.T]
    if backward:
        out += [weight @ v, weight @ a, weight.T @ t, weight.T @ t]
    return out


def loss(volumes: Tensor) -> Tensor:
    logits, target = -volumes / TAU, torch.arange(volumes.shape[0])
    entropy = torch.nn.functional.cross_entropy
    return (entropy(logits, target) + entropy(logits.T, target)) / 2


def gradients(loss_of: Callable[..., Tensor], rows: list[Tensor]) -> tuple[Tensor, ...]:
    leaves = [row.detach().requires_grad_() for row in rows]
    return torch.autograd.grad(loss_of(*leaves), leaves)


def compiled() -> Callable[..., Tensor]:
    """The closed form and its loss as one graph, compiled without caches."""
    import torch._inductor.config

    torch._inductor.config.force_disable_caches = True
    torch._dynamo.reset()
    return torch.compile(lambda t, v, a: loss(closed_form(t, v, a)), dynamic=False)


def run(quick: bool) -> list[dict]:
    """One row for each N."""
    results = []
    for n in QUICK if quick else SIZES:
        generator = torch.Generator().manual_seed(0)
        rows = [torch.nn.functional.normalize(torch.randn(n, WIDTH, generator=generator), dim=-1) for _ in range(3)]
        weight = torch.rand(n, n, generator=generator)
        losses: dict[str, Callable[..., Tensor]] = {
            "mover": ours,
            "stacked Gram matrices": lambda *r: loss(stacked(*r)),
            "closed form, eager": lambda *r: loss(closed_form(*r)),
            "closed form, torch.compile": compiled(),
        }
        first = timed(lambda: losses["closed form, torch.compile"](*rows))[0]
        both = timed(lambda: gradients(losses["closed form, torch.compile"], rows))[0]
        entries = {name: _properties(loss_of, rows) for name, loss_of in losses.items()}
        entries["closed form, torch.compile"]["first calls, s"] = [first, both]
        entries = {"products": {}, **entries}
        runs = {name: lambda loss_of=loss_of: loss_of(*rows) for name, loss_of in losses.items()}
        runs_both = {name: lambda loss_of=loss_of: gradients(loss_of, rows) for name, loss_of in losses.items()}
        for what, contenders in ((FORWARD, runs), (BACKWARD, runs_both)):
            floor = {"products": lambda backward=what == BACKWARD: products(rows, weight, backward)}
            for name, times in interleaved({**floor, **contenders}).items():
                entries[name][what] = times
                print(f"contrast N={n} {what}: {name} {times['ms']:.1f} ms", flush=True)
        results.append({"N": n, "d": WIDTH, "k": 3, "contenders": entries})
    return results


def _properties(loss_of: Callable[..., Tensor], rows: list[Tensor]) -> dict:
    exact = gradients(ours, [row.double() for row in rows])
    equal = gradients(loss_of, [rows[1], rows[1], rows[2]])
    mebibytes = peak_mebibytes(lambda: gradients(loss_of, rows))
    return {
        "gradient error": relative_error(tangent(gradients(loss_of, rows), rows), tangent(exact, rows)),
        "finite where text = video": all(bool(grad.isfinite().all()) for grad in equal),
        "peak, MiB": mebibytes,
        "arrays": mebibytes * 2**20 / (4 * rows[0].shape[0] ** 2),
    }


def tangent(grads: tuple[Tensor, ...], rows: list[Tensor]) -> tuple[Tensor, ...]:
    """Without the part along the row itself, in which formulas for unit rows are free to differ."""
    return tuple(
        grad.double() - (grad * row).sum(-1, keepdim=True) * row for grad, row in zip(grads, rows, strict=True)
    )


def table(rows: list[dict]) -> str:
    """Markdown: a line for each N and contender."""
    lines = []
    for row in rows:
        floor = row["contenders"]["products"]
        for name, entry in row["contenders"].items():
            finite = entry.get("finite where text = video")
            lines.append(
                [
                    str(row["N"]),
                    name,
                    milliseconds(entry[FORWARD]),
                    milliseconds(entry[BACKWARD]),
                    f"{entry[FORWARD]['ms'] / floor[FORWARD]['ms']:.2f}",
                    f"{entry[BACKWARD]['ms'] / floor[BACKWARD]['ms']:.2f}",
                    error(entry.get("gradient error")),
                    "" if finite is None else "finite" if finite else "NaN",
                    digits(entry["arrays"]) if "arrays" in entry else "",
                    " + ".join(f"{seconds:.1f}" for seconds in entry.get("first calls, s", ())),
                ]
            )
    ratios = ["/ products", "/ products"]
    head = ["N", "", "forward, ms", "forward + backward, ms", *ratios, "gradient error", "text = video", "arrays"]
    return markdown([*head, "first calls, s"], lines)
