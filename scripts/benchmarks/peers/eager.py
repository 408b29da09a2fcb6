"""Log-domain Sinkhorn as one would write it in torch, unrolled by autograd."""

from __future__ import annotations

import math

import torch
from problems import Problem, gradients
from torch import Tensor

from peers import Contender


def plan(x: Tensor, y: Tensor, epsilon: float, tol: float, max_iter: int = 1000) -> Tensor:
    """x (..., n, d), y (..., m, d) -> (..., n, m). Stops at the L1 error of the rows' marginal, which the next
    half-iteration knows anyway; the columns' is 0 by then. tol < 0: takes max_iter iterations without a test."""
    cost = (x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * x @ y.mT).clamp_min(0)
    n, m = cost.shape[-2:]
    scaled, f, g = -cost / epsilon, None, torch.zeros_like(cost[..., 0, :])
    for _ in range(max_iter):
        rows = torch.logsumexp(scaled + g[..., None, :], -1)
        if f is not None and tol >= 0 and (((f + rows).detach().exp() - 1 / n).abs().sum(-1) <= tol).all():
            break
        f = -math.log(n) - rows
        g = -math.log(m) - torch.logsumexp(scaled + f[..., :, None], -2)
    return (scaled + f[..., :, None] + g[..., None, :]).exp()


def batched(problem: Problem, iterations: int | None = None) -> Contender:
    """`iterations`: takes so many, without a test."""

    def run(x: Tensor, y: Tensor) -> Tensor:
        return plan(x, y, problem.epsilon, -1.0 if iterations else problem.tol, iterations or 1000)

    return Contender(lambda: run(problem.x, problem.y), lambda: gradients(run, problem))


def loop(problem: Problem) -> Contender:
    return _each_pair(problem, problem.tol, 1000)


def fixed(problem: Problem, iterations: int) -> Contender:
    """Takes all the iterations given."""
    return _each_pair(problem, -1.0, iterations)


def _each_pair(problem: Problem, tol: float, max_iter: int) -> Contender:
    def run(x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([plan(a, b, problem.epsilon, tol, max_iter) for a, b in zip(x, y, strict=True)])

    return Contender(lambda: run(problem.x, problem.y), lambda: gradients(run, problem))
