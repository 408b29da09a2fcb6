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

from mover.errors import UserError
from mover.results import SinkhornResult

_UNDERFLOW = 1e-30  # a column sum below is taken again, in log domain
_STRETCH = math.exp(20)  # beyond it a scale is taken into the kernel
_LEAST = {torch.float32: math.exp(-64), torch.float64: math.exp(-80)}  # a kernel below is 0: no denormal numbers
_FARTHEST = 2.0  # bound on the factor that is relaxed
_MOST_OVER, _GROWTH, _RETREAT = 0.9, 3.0, 0.7  # of over-relaxation


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
        as in `ops.sinkhorn`; solver "auto" or "sinkhorn".

    Raises:
        UserError: for the solver "newton".
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
        epsilon, max_iter, tol: as in `ops.sinkhorn`. solver: "auto", over-relaxed updates, or "sinkhorn", plain ones.

    Returns:
        Potentials; NaN where a cost or mass is not finite, or a mass negative. `plan_of` makes any rows of the plan.

    Raises:
        UserError: for the solver "newton".
    """
    if solver == "newton":
        raise UserError(
            "Newton's steps are not divided among processes: set objective.transport.solver to auto or sinkhorn, or "
            "objective.transport.shard_rows to 0."
        )
    with torch.autocast(cost.device.type, enabled=False):
        columns = own_rows(b.shape[1], group)
        problems = [_Problem(*one, rows, columns, epsilon) for one in zip(cost, a, b, strict=True)]
        _iterate(problems, max_iter, max(tol, _least_tol(cost.dtype, epsilon)), solver == "auto", group)
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


# ---- one problem ---------------------------------------------------------------------------------------------------


class _Problem:
    """The rows of one problem that this process has, and its scales.

    A step is `scale_rows`, the sum of what it returns over all processes, and `scale_columns`.
    """

    def __init__(self, cost: Tensor, a: Tensor, b: Tensor, rows: slice, columns: slice, epsilon: float) -> None:
        """cost: own rows (rows, m); a (n), b (m). columns: those whose error this process tells."""
        self.cost, self.epsilon, self.rows, self.columns = cost, epsilon, rows, columns
        self.all_rows, self.a, self.b = len(a), a[rows], b
        self.valid = _are_masses(a) and _are_masses(b) and bool(cost.sum().isfinite())
        self.v = b.log()  # -inf without mass
        self.kernel = torch.sub(self.v, cost, alpha=1 / epsilon)
        largest = self.kernel.amax(1) if len(cost) else self.a
        self.u = torch.where(self.a > 0, -largest, -torch.inf)
        self.row_scale, self.column_scale = torch.ones_like(self.a), torch.ones_like(b)
        self.next_scale, self.column_sum = self.row_scale, b
        self._exponentiate()
        self.pace, self.over = _Pace(), 0.0
        self.iterations, self.error = 0, math.nan

    def scale_rows(self) -> Tensor:
        """(m + 1): the column sums K^T U of own rows at their next scales, and the own part of the error before."""
        sums = self.kernel @ self.column_scale
        self.next_scale = torch.where(self.a > 0, _beyond(self.a / sums, self.row_scale, self.over), 0)
        of_rows = (self.row_scale * sums - self.a).abs().sum()
        of_columns = (self.column_scale * self.column_sum - self.b)[self.columns].abs().sum()
        error = of_rows + of_columns if self.valid else of_rows.new_tensor(math.nan)
        return torch.cat([self.next_scale @ self.kernel, error.unsqueeze(0)])

    def goes_on(self, error: float, max_iter: int, tol: float, relax: bool) -> bool:
        """Whether to `scale_columns`; if not, the scales are the last ones, and `error` that of their marginals."""
        self.error = error
        if not math.isfinite(error) or (self.iterations > 0 and (error <= tol or self.iterations == max_iter)):
            return False
        if relax and self.iterations > 0:
            self.over = self.pace.next_over(error)
        return True

    def scale_columns(self, column_sum: Tensor) -> None:
        """Go on to the next scales; column_sum (m): K^T U of all rows. Columns that underflow stay as they are."""
        self.row_scale, self.column_sum = self.next_scale, column_sum
        scale = _beyond(self.b / column_sum, self.column_scale, self.over)
        self.column_scale = torch.where((self.b > 0) & (column_sum >= _UNDERFLOW), scale, 1)
        self.iterations += 1
        least, most = self.column_scale.aminmax()
        if not bool((least > 1 / _STRETCH) & (most < _STRETCH)):
            self.absorb()
            self._make_kernel()

    def underflowed(self) -> Tensor:
        """bool (m): the columns whose sums are of no use."""
        return (self.b > 0) & (self.column_sum < _UNDERFLOW)

    def set_columns(self, which: Tensor, log_sums: Tensor) -> None:
        """Give columns their mass whose sums of exp(u_i - C_ij / epsilon) are known by logarithm."""
        self.absorb()
        self.v[which] = self.b[which].log() - log_sums
        self.column_sum[which] = self.b[which]
        self._make_kernel()

    def log_sums(self, which: Tensor) -> Tensor:
        """log sum_i exp(u_i - C_ij / epsilon) of some columns, over own rows."""
        u = self.u + self.row_scale.log()
        return torch.logsumexp(u.unsqueeze(1) - self.cost[:, which] / self.epsilon, dim=0)

    def absorb(self) -> None:
        """Take the scales into u and v, and set them to 1; the kernel has to follow."""
        self.u = self.u + self.row_scale.log()
        self.v = self.v + self.column_scale.log()
        self.column_sum = self.column_sum * self.column_scale
        self.row_scale, self.column_scale = torch.ones_like(self.u), torch.ones_like(self.v)

    def _make_kernel(self) -> None:
        torch.sub(self.v, self.cost, alpha=1 / self.epsilon, out=self.kernel)
        self._exponentiate()

    def _exponentiate(self) -> None:
        """The kernel, from v - C / epsilon in its place."""
        self.kernel.add_(self.u.unsqueeze(1)).exp_()
        torch.threshold_(self.kernel, _LEAST[self.kernel.dtype], 0.0)

    def potentials(self, log_sums: Tensor) -> Tensor:
        """f of own rows and g of own columns among zeros, then the own parts of <f, a>, <g, b> and of the masses.

        log_sums: those of the columns without mass, over all rows. (n + m + 3) float64.
        """
        self.absorb()
        f, g = self.epsilon * (self.u - self.a.log()), self.epsilon * (self.v - self.b.log())
        without = self.a == 0
        f[without] = -self.epsilon * torch.logsumexp(self.v - self.cost[without] / self.epsilon, dim=1)
        g[self.b == 0] = -self.epsilon * log_sums
        f, g, a, b = (tensor.double() for tensor in (f, g[self.columns], self.a, self.b[self.columns]))
        told = f.new_zeros(self.all_rows + len(self.b) + 3)
        told[: self.all_rows][self.rows] = f
        told[self.all_rows : -3][self.columns] = g
        told[-3:] = torch.stack([f @ a, g @ b, a.sum() + b.sum()])
        return told


class _Pace:
    """How far scales go beyond their updates, from the errors so far: kernels/README.md, over-relaxation."""

    def __init__(self) -> None:
        self.over, self.most = 0.0, _MOST_OVER
        self.least = self.last = math.inf
        self.count = self.since = 0

    def next_over(self, error: float) -> float:
        """That of the coming iteration, after one that left `error`."""
        rate = error / self.last
        self.since += 1
        if error > _GROWTH * self.least:
            self.most, self.over, self.least, self.since = _RETREAT * self.over, 0.0, error, -1
        elif self.count >= 2 and self.since >= 2 and self.over < rate < 1:
            rho = (rate + self.over) ** 2 / (rate * (1 + self.over) ** 2)
            best = min(self.most, 2 / (1 + math.sqrt(1 - rho)) - 1) if rho < 1 else 0.0
            if best > self.over:
                self.over, self.since = best, 0
        self.least, self.last = min(self.least, error), error
        self.count += 1
        return self.over


# ---- all problems --------------------------------------------------------------------------------------------------


def _iterate(
    problems: Sequence[_Problem], max_iter: int, tol: float, relax: bool, group: dist.ProcessGroup | None
) -> None:
    active = list(problems)
    while active:
        sums = torch.stack([problem.scale_rows() for problem in active])
        dist.all_reduce(sums, group=group)
        going = []
        for problem, own, error in zip(active, sums, sums[:, -1].tolist(), strict=True):
            if problem.goes_on(error, max_iter, tol, relax):
                problem.scale_columns(own[:-1])
                going.append(problem)
        active = going
        if active and active[0].iterations == 1:
            _mend_columns(active, group)


def _mend_columns(problems: Sequence[_Problem], group: dist.ProcessGroup | None) -> None:
    """After the first iteration: the columns that were too far from every row for their sums."""
    which = [problem.underflowed() for problem in problems]
    if any(bool(columns.any()) for columns in which):
        for problem, columns, sums in zip(problems, which, _log_sums(problems, which, group), strict=True):
            problem.set_columns(columns, sums)


def _log_sums(
    problems: Sequence[_Problem], which: Sequence[Tensor], group: dist.ProcessGroup | None
) -> Sequence[Tensor]:
    """log sum_i exp(u_i - C_ij / epsilon) of some columns of every problem, over the rows of all processes."""
    own = torch.cat([problem.log_sums(columns) for problem, columns in zip(problems, which, strict=True)])
    largest = own.clone()
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
    total = (own - largest).exp()
    dist.all_reduce(total, group=group)
    return (largest + total.log()).split([int(columns.sum()) for columns in which])


def _potentials(problems: Sequence[_Problem], group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor]:
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


# ---- numbers -------------------------------------------------------------------------------------------------------


def _beyond(update: Tensor, before: Tensor, over: float) -> Tensor:
    """Scales beyond their update: update (update / before)^over to first order."""
    if over == 0:
        return update
    ratio = (update / before).clamp(1 / _FARTHEST, _FARTHEST)
    return update * (1 + over * (ratio - 1))


def _least_tol(dtype: torch.dtype, epsilon: float) -> float:
    """The L1 error of the marginals that can be reached."""
    return max(2e-6, 4e-8 / epsilon) if dtype == torch.float32 else 1e-13 + 1e-16 / epsilon


def _are_masses(masses: Tensor) -> bool:
    total = masses.sum()
    return bool((masses >= 0).all() & (total > 0) & total.isfinite())


def _uniform_unless_given(masses: Tensor | None, cost: Tensor, count: int) -> Tensor:
    """(pairs, count)."""
    shape = (cost.shape[0], count)
    return cost.new_full(shape, 1 / count) if masses is None else masses.to(cost.dtype).expand(shape)
