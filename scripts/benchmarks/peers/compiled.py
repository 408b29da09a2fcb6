"""Log-domain Sinkhorn with torch.compile: costs, one full iteration and the plan are compiled, the loop is not.

That is the fastest form: compiling the whole loop takes longer and runs slower, and so does a batch of pairs. The
number of iterations is given, so that no test interrupts it. Caches are off, so that the first calls show what
compiling costs; it is paid for every shape.
"""

from __future__ import annotations

import math

from measure import fewest_iterations
from problems import Problem, gradients, l1_error
from torch import Tensor

from peers import Contender


def loop(problem: Problem, iterations: int | None = None) -> Contender:
    """`iterations`: so many; else the fewest that reach the problem's L1 error."""
    import torch._inductor.config

    torch._inductor.config.force_disable_caches = True
    torch._dynamo.reset()
    mass = -math.log(problem.rows)
    epsilon = problem.epsilon

    def scaled_cost(x: Tensor, y: Tensor) -> Tensor:
        return -(x.square().sum(-1)[:, None] + y.square().sum(-1) - 2 * x @ y.T).clamp_min(0) / epsilon

    def iteration(scaled: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        f = mass - torch.logsumexp(scaled + g, 1)
        return f, mass - torch.logsumexp(scaled + f[:, None], 0)

    def plan_of(scaled: Tensor, f: Tensor, g: Tensor) -> Tensor:
        return (scaled + f[:, None] + g).exp()

    def plans(x: Tensor, y: Tensor, iterations: int, parts: tuple) -> Tensor:
        costs_part, iteration_part, plan_part = parts
        out = []
        for a, b in zip(x, y, strict=True):
            scaled = costs_part(a, b)
            g = scaled.new_zeros(scaled.shape[1])
            for _ in range(iterations):
                f, g = iteration_part(scaled, g)
            out.append(plan_part(scaled, f, g))
        return torch.stack(out)

    eager = (scaled_cost, iteration, plan_of)
    count = iterations or fewest_iterations(lambda n: l1_error(plans(problem.x, problem.y, n, eager)), problem.tol)
    compiled = tuple(torch.compile(part, dynamic=False) for part in eager)

    def run(x: Tensor, y: Tensor) -> Tensor:
        return plans(x, y, count, compiled)

    return Contender(
        lambda: run(problem.x, problem.y), lambda: gradients(run, problem), f"{count} iterations", compiles=True
    )
