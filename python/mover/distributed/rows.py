"""The rows of one problem of transport that a process has, and how far to go with them."""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor

_UNDERFLOW = 1e-30  # a column sum below is taken again, in log domain
_STRETCH = math.exp(20)  # beyond it a scale is taken into the kernel
_LEAST = {torch.float32: math.exp(-64), torch.float64: math.exp(-80)}  # a kernel below is 0: no denormal numbers
_FARTHEST = 2.0  # bound on the factor that is relaxed
_MOST_OVER, _GROWTH, _RETREAT = 0.9, 3.0, 0.7  # of over-relaxation
_WINDOW = 4  # iterations over which a rate is taken
_PATIENCE = 60  # iterations at the present rate that are waited for
_MOST_TURNS = 4  # to Newton's steps


class Rows:
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
        self.pace, self.over, self.turns = Pace(), 0.0, 0
        self.iterations, self.error = 0, math.nan

    def scale_rows(self) -> Tensor:
        """(m + 1): the column sums K^T U of own rows at their next scales, and the own part of the error before."""
        sums = self.kernel @ self.column_scale
        self.next_scale = torch.where(self.a > 0, _beyond(self.a / sums, self.row_scale, self.over), 0)
        of_rows = (self.row_scale * sums - self.a).abs().sum()
        of_columns = (self.column_scale * self.column_sum - self.b)[self.columns].abs().sum()
        error = of_rows + of_columns if self.valid else of_rows.new_tensor(math.nan)
        return torch.cat([self.next_scale @ self.kernel, error.unsqueeze(0)])

    def goes_on(self, error: float, max_iter: int, tol: float) -> bool:
        """Whether to `scale_columns`; if not, the scales are the last ones, and `error` that of their marginals."""
        self.error = error if math.isfinite(error) else math.nan
        return math.isfinite(error) and (self.iterations == 0 or (error > tol and self.iterations < max_iter))

    def chooses(self, error: float, tol: float, solver: str) -> bool:
        """How far to go beyond the next updates; and whether to turn to Newton's steps after this iteration."""
        if self.iterations == 0 or solver == "sinkhorn":
            return False
        if solver == "auto":
            self.over = self.pace.next_over(error)
        turn = self.pace.crawls(error, tol) if solver == "auto" else self.pace.count == _WINDOW
        self.pace.remember(error)
        if not turn or self.turns == _MOST_TURNS:
            return False
        self.turns, self.over, self.pace = self.turns + 1, 0.0, Pace()
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
            self.make_kernel()

    def underflowed(self) -> Tensor:
        """bool (m): the columns whose sums are of no use."""
        return (self.b > 0) & (self.column_sum < _UNDERFLOW)

    def set_columns(self, which: Tensor, log_sums: Tensor) -> None:
        """Give columns their mass whose sums of exp(u_i - C_ij / epsilon) are known by logarithm."""
        self.absorb()
        self.v[which] = self.b[which].log() - log_sums
        self.column_sum[which] = self.b[which]
        self.make_kernel()

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

    def make_kernel(self) -> None:
        """The kernel, from the costs; scales have been absorbed."""
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


class Pace:
    """How far scales go beyond their updates, from the errors so far: kernels/README.md, over-relaxation."""

    def __init__(self) -> None:
        self.over, self.most = 0.0, _MOST_OVER
        self.least = math.inf
        self.errors: deque[float] = deque(maxlen=_WINDOW)
        self.count = self.since = 0

    def next_over(self, error: float) -> float:
        """That of the coming iteration, after one that left `error`."""
        rate = error / self.errors[-1] if self.errors else 1.0
        self.since += 1
        if error > _GROWTH * self.least:
            self.most, self.over, self.least, self.since = _RETREAT * self.over, 0.0, error, -1
        elif self.count >= 2 and self.since >= 2 and self.over < rate < 1:
            rho = (rate + self.over) ** 2 / (rate * (1 + self.over) ** 2)
            best = min(self.most, 2 / (1 + math.sqrt(1 - rho)) - 1) if rho < 1 else 0.0
            if best > self.over:
                self.over, self.since = best, 0
        self.least = min(self.least, error)
        return self.over

    def crawls(self, error: float, tol: float) -> bool:
        """Whether more than _PATIENCE iterations remain at the rate of the last _WINDOW."""
        if self.count < _WINDOW or self.since < _WINDOW:
            return False
        rate = error / self.errors[0]
        return rate >= 1 or _WINDOW * math.log(tol / error) < _PATIENCE * math.log(rate)

    def remember(self, error: float) -> None:
        """That an iteration left `error`."""
        self.errors.append(error)
        self.count += 1


def _beyond(update: Tensor, before: Tensor, over: float) -> Tensor:
    """Scales beyond their update: update (update / before)^over to first order."""
    if over == 0:
        return update
    ratio = (update / before).clamp(1 / _FARTHEST, _FARTHEST)
    return update * (1 + over * (ratio - 1))


def _are_masses(masses: Tensor) -> bool:
    total = masses.sum()
    return bool((masses >= 0).all() & (total > 0) & total.isfinite())
