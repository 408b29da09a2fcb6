"""Newton's steps for transport with its rows divided among processes: kernels/README.md, Newton.

With rows kept exact u is a function of v, and v minimises phi(v) = -<a, u(v)> - <b, v>, with the gradient c - b and
the Hessian diag c - P^T diag(1/a) P. A process applies its rows of P. A step of conjugate gradients takes an all-reduce
of m + 1 numbers, for its product, and two of two, for what it decides by.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor

from mover.distributed.rows import Rows

_MOST_CG = {torch.float32: 100, torch.float64: 300}
_MOST_HALVINGS, _MOST_POOR = 5, 3
_LONGEST = 20.0  # bound on a change of v: exponentials stay finite
_DESCENT = 1e-4
_POOR = 0.7  # a step that leaves more than this share of the error
_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 24}  # elements of the plan in one operation, which makes copies of them


class Newton:
    """Newton's steps of one problem, whose rows every process of the group has a part of."""

    def __init__(self, rows: Rows, group: dist.ProcessGroup | None) -> None:
        self.rows, self.group = rows, group
        self.block = max(1, _AT_ONCE.get(rows.kernel.device.type, 1 << 18) // max(1, rows.kernel.shape[1]))
        self.travelled = 0.0  # how far v has moved since the kernel was made from the costs
        self.diagonal, self.value = torch.ones_like(rows.b), 0.0  # of the Hessian; phi

    def run(self, max_iter: int, tol: float) -> None:
        """Steps until the error is at most `tol`, or they no longer help; rows are exact then, and scales 1."""
        rows = self.rows
        rows.absorb()
        rows.make_kernel()
        error, poor, moved = self._settle(), 0, True
        while moved and poor < _MOST_POOR and tol < error < math.inf and rows.iterations < max_iter:
            before = error
            error, moved = self._step(before)
            poor = poor + 1 if error > _POOR * before else 0
            rows.iterations += 1

    def _step(self, before: float) -> tuple[float, bool]:
        """The error after a step, and whether a length was found that helps; if not, all is as before."""
        value = self.value
        direction, slope = self._direction(before)
        longest = float(direction.abs().max())
        length, at, halvings = min(1.0, _LONGEST / longest) if longest > 0 else 1.0, 0.0, 0
        while slope > 0 and halvings <= _MOST_HALVINGS:
            error = self._go(direction, length - at, longest)
            at = length
            if error < before or self.value <= value - _DESCENT * length * slope:
                return error, True
            length, halvings = length / 2, halvings + 1
        self._go(direction, -at, longest)
        return before, False

    def _go(self, direction: Tensor, length: float, longest: float) -> float:
        """Move v along the direction; the error then."""
        rows = self.rows
        rows.v = rows.v + length * direction
        self.travelled += abs(length) * longest
        if self.travelled <= _LONGEST:
            rows.kernel *= (length * direction).exp()
        else:
            rows.make_kernel()
            self.travelled = 0.0
        return self._settle()

    def _settle(self) -> float:
        """Give rows their masses, and take column sums, the Hessian's diagonal and phi; the error of the marginals."""
        rows = self.rows
        factor = torch.where(rows.a > 0, rows.a / rows.kernel.sum(1), 0)
        rows.kernel *= factor.unsqueeze(1)
        rows.u = rows.u + factor.log()
        sums = torch.zeros(2, len(rows.b), dtype=rows.b.dtype, device=rows.b.device)
        for plan, a in zip(rows.kernel.split(self.block), rows.a.split(self.block), strict=True):
            sums[0] += plan.sum(0)
            sums[1] += (plan * (1 - plan / torch.where(a > 0, a, 1).unsqueeze(1))).sum(0)
        dist.all_reduce(sums, group=self.group)
        rows.column_sum, diagonal = sums
        least = torch.finfo(diagonal.dtype).eps * rows.column_sum
        self.diagonal = torch.maximum(diagonal, least)
        own = rows.columns
        of_rows = torch.where(rows.a > 0, rows.a * rows.u, 0).double().sum()
        of_columns = torch.where(rows.b > 0, rows.b * rows.v, 0)[own].double().sum()
        error, value = self._added((rows.column_sum - rows.b)[own].abs().double().sum(), -of_rows - of_columns)
        self.value = value
        return error

    def _direction(self, error: float) -> tuple[Tensor, float]:
        """The Newton direction, by conjugate gradients from 0, and its slope <b - c, direction>."""
        rows, there = self.rows, self.rows.b > 0
        gradient = torch.where(there, rows.b - rows.column_sum, 0)
        solution, residual = torch.zeros_like(gradient), gradient
        residual, step, rho, norm = self._preconditioned(residual, there)
        tolerance = min(0.5, math.sqrt(error)) * norm
        for _ in range(_MOST_CG[gradient.dtype]):
            if norm <= tolerance or rho <= 0:
                break
            product, curvature = self._product(step)
            if curvature <= 0:
                break
            solution = solution + rho / curvature * step
            residual, ready, next_rho, norm = self._preconditioned(residual - rho / curvature * product, there)
            step, rho = ready + next_rho / rho * step, next_rho
        (slope,) = self._added(self._dot(gradient, solution))
        return solution, slope

    def _product(self, x: Tensor) -> tuple[Tensor, float]:
        """The Hessian's product with x, and that with x again: sum_i P_ij (x_j - w_i), w = P x / a, which does not
        cancel near a permutation."""
        rows = self.rows
        w = torch.where(rows.a > 0, (rows.kernel @ x) / rows.a, 0)
        product = torch.zeros_like(x)
        for plan, share in zip(rows.kernel.split(self.block), w.split(self.block), strict=True):
            product += (plan * (x - share.unsqueeze(1))).sum(0)
        told = torch.cat([product, (x @ product).unsqueeze(0)])
        dist.all_reduce(told, group=self.group)
        return told[:-1], float(told[-1])

    def _preconditioned(self, residual: Tensor, there: Tensor) -> tuple[Tensor, Tensor, float, float]:
        """The residual without its mean, over the diagonal, their product, and its norm."""
        own = self.rows.columns
        total, count = self._added(residual[own].double().sum(), there[own].double().sum())
        residual = torch.where(there, residual - total / count, 0)
        ready = torch.where(there, residual / self.diagonal, 0)
        rho, square = self._added(self._dot(residual, ready), self._dot(residual, residual))
        return residual, ready, rho, math.sqrt(square)

    def _dot(self, x: Tensor, y: Tensor) -> Tensor:
        """The part of own columns."""
        own = self.rows.columns
        return x[own].double() @ y[own].double()

    def _added(self, *parts: Tensor) -> list[float]:
        """The sums of all processes."""
        told = torch.stack(parts)
        dist.all_reduce(told, group=self.group)
        found: list[float] = told.tolist()
        return found
