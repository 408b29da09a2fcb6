"""Entropic transport with the rows of every problem divided among the processes of a group.

    P_ij = K_ij U_i V_j,   K_ij = exp(u_i + v_j - C_ij / epsilon)

as in kernels/README.md. A process has some rows of C and K and the scales of those rows, and the scales of all columns.
An iteration is two products with its rows: K V, of which U follows, and K^T U, whose sum over the processes gives V:
one all-reduce of B + 1 numbers for each problem, all problems in one call. The last number is the L1 error of both
marginals before the iteration, so that the plan that is returned is the one whose error is known.

What processes decide together, to stop and how far to relax, they decide by numbers of the all-reduce, which are the
same bits everywhere, and the potentials are shared once more in the end: all processes return the same, to the last
bit, also where their processors round differently.

One sum over the processes suffices, without a maximum for every column: once the columns have their masses, the next
rows are P_ij a_i / r_i with r_i <= 1, so that a column sum never falls below b_j min a. Before, in the first iteration,
a column far from every row may underflow; its logarithm is summed about its largest exponent, in two more all-reduces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from mover.distributed.newton import Newton
from mover.distributed.rows import Rows
from mover.results import SinkhornResult


class Potentials(NamedTuple):
    """What `sharded_potentials` returns, the same on every process."""

    f: Tensor  # (pairs, B) unit of the cost, <f, a> = <g, b>
    g: Tensor  # (pairs, m)
    n_iter: Tensor  # (pairs) int32
    marginal_error: Tensor  # (pairs) |P 1 - a|_1 + |P^T 1 - b|_1


def own_rows(count: int, group: dist.ProcessGroup | None = None) -> slice:
    """The rows of this process, of `count`: consecutive, in the order of the ranks; none where there are too few."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    return slice(count * rank // size, count * (rank + 1) // size)


def sharded_sinkhorn(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float = 0.1,
    max_iter: int = 100,
    tol: float = 1e-3,
    solver: str = "auto",
    group: dist.ProcessGroup | None = None,
) -> SinkhornResult:
    """`ops.sinkhorn` of costs (pairs, n, m) that every process of the group has; each iterates on a part of the rows.

    Every process calls it with the same arguments and gets the same result. The gradient of the plan, towards the cost
    alone, is that of `ops.sinkhorn`: one linear solve with the whole plan, by every process for itself.

    Args:
        as in `ops.sinkhorn`.
    """
    a, b = (_uniform_unless_given(m, cost, count) for m, count in zip((a, b), cost.shape[1:], strict=True))
    rows = own_rows(cost.shape[1], group)
    found = sharded_potentials(
        cost[:, rows].detach(), a, b, rows, epsilon=epsilon, max_iter=max_iter, tol=tol, solver=solver, group=group
    )
    plan: Tensor = _Plan.apply(cost, found.f, found.g, a, b, epsilon)
    return SinkhornResult(plan, *found)


@torch.no_grad()
def sharded_potentials(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    rows: slice,
    *,
    epsilon: float = 0.1,
    max_iter: int = 100,
    tol: float = 1e-3,
    solver: str = "auto",
    group: dist.ProcessGroup | None = None,
) -> Potentials:
    """The potentials of plans whose costs no process has to hold whole.

    Args:
        cost: the rows of this process, (pairs, rows, m), float32 or float64; any share, also none.
        a: masses of all rows (pairs, n); b: of the columns (pairs, m). The same on every process.
        rows: which rows these are. The processes have each row once.
        epsilon, max_iter, tol, solver: as in `ops.sinkhorn`.

    Returns:
        Potentials; NaN where a cost or mass is not finite, or a mass negative. `plan_of` makes any rows of the plan.
    """
    with torch.autocast(cost.device.type, enabled=False):
        columns = own_rows(b.shape[1], group)
        problems = [Rows(*one, rows, columns, epsilon) for one in zip(cost, a, b, strict=True)]
        _iterate(problems, max_iter, max(tol, _least_tol(cost.dtype, epsilon)), solver, group)
        f, g = _potentials(problems, group)
    n_iter = torch.tensor([problem.iterations for problem in problems], dtype=torch.int32, device=cost.device)
    return Potentials(f, g, n_iter, cost.new_tensor([problem.error for problem in problems]))


def plan_of(cost: Tensor, f: Tensor, g: Tensor, a: Tensor, b: Tensor, epsilon: float) -> Tensor:
    """P_ij = a_i b_j exp((f_i + g_j - C_ij) / epsilon) of any rows: cost (..., n, m), f, a (..., n), g, b (..., m)."""
    u, v = f / epsilon + a.log(), g / epsilon + b.log()
    exponent = torch.sub(u.unsqueeze(-1), cost, alpha=1 / epsilon)
    return exponent.add_(v.unsqueeze(-2)).exp_()


class _Plan(torch.autograd.Function):
    """`plan_of` with the gradient of a plan that has converged."""

    @staticmethod
    def forward(ctx: Any, cost: Tensor, f: Tensor, g: Tensor, a: Tensor, b: Tensor, epsilon: float) -> Tensor:
        plan = plan_of(cost, f, g, a, b, epsilon)
        ctx.epsilon = epsilon
        ctx.save_for_backward(plan)
        return plan

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_plan: Tensor) -> tuple[Tensor | None, ...]:
        (plan,) = ctx.saved_tensors
        grad_cost, *_ = torch.ops.mover.sinkhorn_backward(grad_plan, plan, ctx.epsilon, [True, False, False])
        return (grad_cost, *(None,) * 5)


# ---- all problems --------------------------------------------------------------------------------------------------


def _iterate(problems: Sequence[Rows], max_iter: int, tol: float, solver: str, group: dist.ProcessGroup | None) -> None:
    active = list(problems)
    while active:
        sums = torch.stack([problem.scale_rows() for problem in active])
        dist.all_reduce(sums, group=group)
        errors: list[float] = sums[:, -1].tolist()
        told = [
            (one, column_sum, error)
            for one, column_sum, error in zip(active, sums[:, :-1], errors, strict=True)
            if one.goes_on(error, max_iter, tol)
        ]
        crawling = [one for one, _, error in told if one.chooses(error, tol, solver)]
        for one, column_sum, _ in told:
            one.scale_columns(column_sum)
        active = [one for one, *_ in told]
        if active and active[0].iterations == 1:
            _mend_columns(active, group)
        for one in crawling:
            Newton(one, group).run(max_iter, tol)


def _mend_columns(problems: Sequence[Rows], group: dist.ProcessGroup | None) -> None:
    """After the first iteration: the columns that were too far from every row for their sums."""
    which = [problem.underflowed() for problem in problems]
    if any(bool(columns.any()) for columns in which):
        for problem, columns, sums in zip(problems, which, _log_sums(problems, which, group), strict=True):
            problem.set_columns(columns, sums)


def _log_sums(problems: Sequence[Rows], which: Sequence[Tensor], group: dist.ProcessGroup | None) -> Sequence[Tensor]:
    """log sum_i exp(u_i - C_ij / epsilon) of some columns of every problem, over the rows of all processes."""
    own = torch.cat([problem.log_sums(columns) for problem, columns in zip(problems, which, strict=True)])
    largest = own.clone()
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
    total = (own - largest).exp()
    dist.all_reduce(total, group=group)
    return (largest + total.log()).split([int(columns.sum()) for columns in which])


def _potentials(problems: Sequence[Rows], group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor]:
    """f (pairs, n) and g (pairs, m), the same bits on every process, shifted so that <f, a> = <g, b>."""
    which = [problem.b == 0 for problem in problems]
    sums: Sequence[Tensor] = [problem.b[:0] for problem in problems]
    if any(bool(columns.any()) for columns in which):
        sums = _log_sums(problems, which, group)
    told = torch.stack([problem.potentials(own) for problem, own in zip(problems, sums, strict=True)])
    dist.all_reduce(told, group=group)
    of_f, of_g, masses = told[:, -3:].unbind(1)
    shift = ((of_g - of_f) / masses).unsqueeze(1)
    n = problems[0].all_rows
    failed = told.new_tensor([problem.error for problem in problems]).isnan().unsqueeze(1)
    f, g = told[:, :n] + shift, told[:, n:-3] - shift
    dtype = problems[0].cost.dtype
    return f.masked_fill(failed, math.nan).to(dtype), g.masked_fill(failed, math.nan).to(dtype)


def _least_tol(dtype: torch.dtype, epsilon: float) -> float:
    """The L1 error of the marginals that can be reached."""
    return max(2e-6, 4e-8 / epsilon) if dtype == torch.float32 else 1e-13 + 1e-16 / epsilon


def _uniform_unless_given(masses: Tensor | None, cost: Tensor, count: int) -> Tensor:
    """(pairs, count)."""
    shape = (cost.shape[0], count)
    return cost.new_full(shape, 1 / count) if masses is None else masses.to(cost.dtype).expand(shape)
