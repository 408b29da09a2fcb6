"""OTT-JAX (https://ott-jax.readthedocs.io), jitted, a pair at a time, on the matrix of costs.

That is its fastest form here: `vmap` over pairs and `PointCloud`, which computes costs anew, take longer. It stops at
the L1 error, which it tests every ten iterations (its default; every five takes longer). Gradients are unrolled or by
its implicit differentiation, with its default linear solver.
"""

from __future__ import annotations

import torch
from problems import Problem
from torch import Tensor

from peers import Contender


def unrolled(problem: Problem) -> Contender:
    return _contender(problem, None)


def implicit(problem: Problem, ridge: float = 0.0) -> Contender:
    """`ridge`: of both kinds, added to its linear system."""
    from ott.solvers.linear.implicit_differentiation import ImplicitDiff

    options = {"ridge_kernel": ridge, "ridge_identity": ridge} if ridge else None
    return _contender(problem, ImplicitDiff(solver_kwargs=options))


def _contender(problem: Problem, implicit_diff: object) -> Contender:
    import jax
    import jax.numpy as jnp
    import numpy as np
    from ott.geometry import costs, geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    solver = sinkhorn.Sinkhorn(threshold=problem.tol, max_iterations=1000, implicit_diff=implicit_diff)

    def plan(x, y):
        matrix = geometry.Geometry(costs.SqEuclidean().all_pairs(x, y), epsilon=problem.epsilon)
        return solver(linear_problem.LinearProblem(matrix)).matrix

    def loss(x, y, weight):
        return (plan(x, y) * weight).sum()

    forward, both = jax.jit(plan), jax.jit(jax.value_and_grad(loss, (0, 1)))
    x, y, weight = (jnp.asarray(tensor.cpu().numpy()) for tensor in (problem.x, problem.y, problem.weight))
    on_cpu = problem.x.device.type == "cpu"

    def tensors(arrays: list) -> Tensor:
        arrays = jax.block_until_ready(arrays)
        if on_cpu:
            return torch.stack([torch.from_numpy(np.array(array)) for array in arrays])
        return torch.stack([torch.from_dlpack(array) for array in arrays])

    def gradients() -> tuple[Tensor, Tensor]:
        pairs = [both(a, b, w)[1] for a, b, w in zip(x, y, weight, strict=True)]
        return tensors([grads[0] for grads in pairs]), tensors([grads[1] for grads in pairs])

    return Contender(lambda: tensors([forward(a, b) for a, b in zip(x, y, strict=True)]), gradients, compiles=True)
