"""Entropic optimal transport in the log domain, and the gradient of its plan by a dense linear solve."""

import torch
from torch import Tensor

from mover.reference.cost import cost as squared_distances
from mover.results import SinkhornResult, TransportResult


def sinkhorn(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float = 0.1,
    max_iter: int = 10000,
    tol: float = 1e-13,
) -> SinkhornResult:
    """cost (..., n, m), masses a (..., n) and b (..., m), None uniform -> SinkhornResult in float64.

    Alternates f_i = -epsilon log sum_j b_j exp((g_j - C_ij)/epsilon) and the same for g, until the L1 error of the
    marginals of every problem is at most tol, at the latest after max_iter iterations.
    """
    cost = cost.double()
    n, m = cost.shape[-2:]
    a = cost.new_full((n,), 1 / n) if a is None else a.double()
    b = cost.new_full((m,), 1 / m) if b is None else b.double()
    a, b = a.expand(cost.shape[:-1]), b.expand(*cost.shape[:-2], m)
    log_a, log_b = _log(a), _log(b)
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    n_iter = 0
    while True:
        log_plan = log_a.unsqueeze(-1) + log_b.unsqueeze(-2) + (f.unsqueeze(-1) + g.unsqueeze(-2) - cost) / epsilon
        plan = log_plan.exp()
        error = (plan.sum(-1) - a).abs().sum(-1) + (plan.sum(-2) - b).abs().sum(-1)
        if n_iter == max_iter or (n_iter > 0 and bool((error <= tol).all())):
            break
        f = -epsilon * torch.logsumexp(log_b.unsqueeze(-2) + (g.unsqueeze(-2) - cost) / epsilon, dim=-1)
        g = -epsilon * torch.logsumexp(log_a.unsqueeze(-1) + (f.unsqueeze(-1) - cost) / epsilon, dim=-2)
        n_iter += 1
    shift = ((f * a).sum(-1, keepdim=True) - (g * b).sum(-1, keepdim=True)) / a.sum(-1, keepdim=True) / 2
    iterations = torch.full(cost.shape[:-2], n_iter, dtype=torch.int32)
    return SinkhornResult(plan, f - shift, g + shift, iterations, error.detach())


def transport(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float = 0.1,
    max_iter: int = 10000,
    tol: float = 1e-13,
) -> TransportResult:
    """x (..., n, d), y (..., m, d) -> TransportResult in float64: `cost`, then `sinkhorn`."""
    cost = squared_distances(x, y)
    plan, f, g, n_iter, error = sinkhorn(cost, a, b, epsilon=epsilon, max_iter=max_iter, tol=tol)
    return TransportResult(plan, cost, f, g, n_iter, error)


def transport_value(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float = 0.1,
    max_iter: int = 10000,
    tol: float = 1e-13,
) -> Tensor:
    """<P, C> + epsilon KL(P | a b^T), (...), summed as it is defined; 0 log 0 = 0."""
    plan, cost, *_ = transport(x, y, a, b, epsilon=epsilon, max_iter=max_iter, tol=tol)
    n, m = cost.shape[-2:]
    a = cost.new_full((n,), 1 / n) if a is None else a.double()
    b = cost.new_full((m,), 1 / m) if b is None else b.double()
    product = a.unsqueeze(-1) * b.unsqueeze(-2)
    entropy = torch.xlogy(plan, plan / torch.where(product > 0, product, 1)) - plan + product
    return (plan * cost + epsilon * entropy).sum((-2, -1))


def plan_gradient(plan: Tensor, grad_plan: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of a converged plan with respect to cost, a and b, by a dense least-squares solve.

    plan, grad_plan (n, m) -> grad_cost (n, m), grad_a (n), grad_b (m), the last two centred: <grad_a, P 1> = 0.
    Solves [diag r, P; P^T, diag c] [u; v] = [H 1; H^T 1] with H = P o grad_plan, r = P 1, c = P^T 1; then
    grad_cost = -P o (grad_plan - u_i - v_j) / epsilon, grad_a = u, grad_b = v. Rows of mass 0 have u = 0.
    """
    plan, grad_plan = plan.double(), grad_plan.double()
    n = plan.shape[0]
    weighted = plan * grad_plan
    rows, columns = plan.sum(1), plan.sum(0)
    system = torch.cat(
        [torch.cat([torch.diag(rows), plan], dim=1), torch.cat([plan.T, torch.diag(columns)], dim=1)]
    )  # (n + m, n + m), singular along (1, -1)
    right = torch.cat([weighted.sum(1), weighted.sum(0)])
    solution = torch.linalg.lstsq(system, right.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    u, v = torch.where(rows > 0, solution[:n], 0), torch.where(columns > 0, solution[n:], 0)
    grad_cost = -plan * (grad_plan - u[:, None] - v) / epsilon
    return grad_cost, _centred(u, rows), _centred(v, columns)


def _centred(values: Tensor, masses: Tensor) -> Tensor:
    return torch.where(masses > 0, values - (values * masses).sum() / masses.sum(), values)


def _log(masses: Tensor) -> Tensor:
    """log, with -inf and gradient 0 at mass 0."""
    positive = masses > 0
    return torch.where(positive, torch.where(positive, masses, 1).log(), -torch.inf)
