"""The problems that transport is timed on, the exact gradient, and the errors of plans and gradients.

Data, unit rows: "random": both modalities independent. "aligned": y = normalise(x / 2 + n), n ~ N(0, I / d). "gap":
aligned rows plus a unit mean vector for each modality, normalised again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import mover.ops
import mover.reference


@dataclass(frozen=True)
class Problem:
    """Plans of pairs of modalities, and the upstream gradient of a loss sum(plan * weight)."""

    x: Tensor  # (pairs, B, d)
    y: Tensor  # (pairs, B, d)
    weight: Tensor  # (pairs, B, B), uniform in [0, 1)
    epsilon: float  # entropic weight, in the unit of the squared distance
    tol: float  # L1 error of the marginals to stop at, rows and columns together

    @property
    def rows(self) -> int:
        return self.x.shape[1]

    def double(self) -> Problem:
        return replace(self, x=self.x.double(), y=self.y.double(), weight=self.weight.double())

    def to(self, device: torch.device | str) -> Problem:
        return replace(self, x=self.x.to(device), y=self.y.to(device), weight=self.weight.to(device))


def make(data: str, rows: int, width: int, pairs: int, epsilon: float, tol: float) -> Problem:
    """A problem in float32, drawn from seed 0."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    unit = torch.nn.functional.normalize
    x, noise = unit(normal(pairs, rows, width), dim=-1), normal(pairs, rows, width) / math.sqrt(width)
    y = unit(noise if data == "random" else x / 2 + noise, dim=-1)
    if data == "gap":
        x, y = (unit(z + unit(normal(pairs, 1, width), dim=-1), dim=-1) for z in (x, y))
    elif data not in ("random", "aligned"):
        raise ValueError(f"data is random, aligned or gap, got {data}")
    weight = torch.rand(pairs, rows, rows, generator=generator, dtype=torch.float64)
    return Problem(x.float(), y.float(), weight.float(), epsilon, tol)


def l1_error(plan: Tensor) -> float:
    """L1 distance of the marginals, rows and columns together, to uniform ones; that of the worst pair."""
    plan = plan.detach().double()
    n, m = plan.shape[-2:]
    return ((plan.sum(-1) - 1 / n).abs().sum(-1) + (plan.sum(-2) - 1 / m).abs().sum(-1)).max().item()


def gradients(plan: Callable[[Tensor, Tensor], Tensor], problem: Problem) -> tuple[Tensor, Tensor]:
    """Gradients of sum(plan(x, y) * weight) with respect to x and y, by autograd."""
    x, y = problem.x.detach().requires_grad_(), problem.y.detach().requires_grad_()
    return torch.autograd.grad((plan(x, y) * problem.weight).sum(), (x, y))


def mover_plan(
    problem: Problem, tol: float, max_iter: int = 5000, solver: str = "auto"
) -> Callable[[Tensor, Tensor], Tensor]:
    """x, y -> plan, by `mover.ops.transport`."""
    return lambda x, y: (
        mover.ops.transport(x, y, epsilon=problem.epsilon, max_iter=max_iter, tol=tol, solver=solver).plan
    )


def exact_gradients(problem: Problem) -> tuple[Tensor, Tensor]:
    """The gradients in float64 at an L1 error of 1e-12. `gradients` checks them against `dense_gradients`."""
    problem = problem.double()
    return gradients(mover_plan(problem, tol=1e-12, max_iter=20000), problem)


def dense_gradients(problem: Problem) -> tuple[Tensor, Tensor]:
    """The gradients by a dense least-squares solve at a converged plan, in float64 and plain torch; small B only."""
    problem = problem.double()
    both = []
    for x, y, weight in zip(problem.x, problem.y, problem.weight, strict=True):
        plan = mover.reference.transport(x, y, epsilon=problem.epsilon, tol=1e-13, max_iter=20000).plan
        grad_cost, *_ = mover.reference.plan_gradient(plan, weight, problem.epsilon)
        both.append((-2 * grad_cost @ y, -2 * grad_cost.T @ x))  # the rows and columns of grad_cost sum to 0
    grads_x, grads_y = zip(*both, strict=True)
    return torch.stack(grads_x), torch.stack(grads_y)


def relative_error(found: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> float:
    """Frobenius norm of the difference over that of the exact ones, all tensors as one vector."""
    difference = sum((a.double() - b).square().sum() for a, b in zip(found, exact, strict=True))
    return math.sqrt(difference / sum(b.square().sum() for b in exact))
