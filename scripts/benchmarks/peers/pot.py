"""POT (https://pythonot.github.io) on torch tensors: `ot.bregman.sinkhorn_log` a pair at a time, and `ot.batch`.

Both are differentiated through their iterations. They test a 2-norm every ten iterations; the number of iterations is
given instead.
"""

from __future__ import annotations

import warnings

import torch
from measure import fewest_iterations
from problems import Problem, gradients, l1_error
from torch import Tensor

from peers import Contender


def loop(problem: Problem) -> Contender:
    import ot

    mass = problem.x.new_full((problem.rows,), 1 / problem.rows)

    def plans(x: Tensor, y: Tensor, iterations: int) -> Tensor:
        return torch.stack(
            [
                ot.bregman.sinkhorn_log(
                    mass, mass, ot.dist(a, b), problem.epsilon, numItermax=iterations, stopThr=0.0, warn=False
                )
                for a, b in zip(x, y, strict=True)
            ]
        )

    return _counted(plans, problem)


def batch(problem: Problem, grad: str = "autodiff") -> Contender:
    """`grad`: "autodiff" or "last_step", as `ot.batch.solve_batch` names them; its default gives the plan none."""
    import ot.batch

    def plans(x: Tensor, y: Tensor, iterations: int) -> Tensor:
        cost = ot.batch.dist_batch(x, y)
        return ot.batch.solve_batch(
            cost, problem.epsilon, max_iter=iterations, tol=0.0, method="log_sinkhorn", grad=grad
        ).plan

    return _counted(plans, problem)


def _counted(plans, problem: Problem) -> Contender:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count = fewest_iterations(lambda n: l1_error(plans(problem.x, problem.y, n)), problem.tol)

    def run(x: Tensor, y: Tensor) -> Tensor:
        return plans(x, y, count)

    return Contender(lambda: run(problem.x, problem.y), lambda: gradients(run, problem), f"{count} iterations")
