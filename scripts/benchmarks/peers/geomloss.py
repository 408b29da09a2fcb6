"""GeomLoss (https://www.kernel-operations.io/geomloss) without KeOps: `SamplesLoss` potentials and `geomloss.ot`.

Both average symmetric updates and anneal epsilon; neither tests for convergence, so the number of iterations is given.
They differentiate the last step alone: right for the cost, wrong for the plan, which is what the gradient errors show.
"""

from __future__ import annotations

import math

from measure import fewest_iterations
from problems import Problem, gradients, l1_error
from torch import Tensor

from peers import Contender


def samples_loss(problem: Problem) -> Contender:
    """The old interface. Its cost is |x - y|^2 / 2, so blur = sqrt(epsilon / 2); iterations follow from `scaling`.
    Annealing starts at 1.5 blur, which takes fewer iterations than the diameter of the points that is its default."""
    from geomloss import SamplesLoss

    n, blur = problem.rows, math.sqrt(problem.epsilon / 2)
    start = 1.5 * blur
    mass = problem.x.new_full(problem.x.shape[:2], 1 / n)

    def plans(x: Tensor, y: Tensor, iterations: int) -> Tensor:
        potentials = SamplesLoss(
            "sinkhorn",
            p=2,
            blur=blur,
            diameter=start,
            scaling=(blur / start) ** (1 / iterations),
            debias=False,
            potentials=True,
            backend="tensorized",
        )
        f, g = potentials(mass, x, mass, y)
        cost = _squared_distances(x, y) / 2
        return ((f[..., :, None] + g[..., None, :] - cost) / blur**2).exp() / n**2

    return _counted(plans, problem)


def solve(problem: Problem) -> Contender:
    import geomloss.ot

    def plans(x: Tensor, y: Tensor, iterations: int) -> Tensor:
        return geomloss.ot.solve_batch(_squared_distances(x, y), reg=problem.epsilon, max_iter=iterations).plan

    return _counted(plans, problem)


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    return (x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * x @ y.mT).clamp_min(0)


def _counted(plans, problem: Problem) -> Contender:
    count = fewest_iterations(lambda n: l1_error(plans(problem.x, problem.y, n)), problem.tol)

    def run(x: Tensor, y: Tensor) -> Tensor:
        return plans(x, y, count)

    return Contender(lambda: run(problem.x, problem.y), lambda: gradients(run, problem), f"{count} iterations")
