"""Entropic optimal transport: for given costs, and for given rows (cost and Sinkhorn in one call)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mover.ops.inputs import at_least_float32
from mover.ops.registration import Context, Gradients, gradient_shape, register_operator
from mover.results import SinkhornResult, TransportResult


def sinkhorn(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float = 0.1,
    max_iter: int = 100,
    tol: float = 1e-3,
    solver: str = "auto",
) -> SinkhornResult:
    """The entropic plan, argmin of <P, cost> + epsilon KL(P | a b^T) over P >= 0 with P 1 = a and P^T 1 = b.

    Args:
        cost: (..., n, m), any unit.
        a: masses of the rows, (n) or (..., n), >= 0; None is uniform, 1/n. A row of mass 0 gets a plan of 0.
        b: masses of the columns, (m) or (..., m), with the same sums as a; None is uniform, 1/m.
        epsilon: entropic weight, > 0, in the unit of the cost.
        max_iter: bound on the iterations and Newton steps, >= 1.
        tol: the L1 error of the marginals to stop at, >= 0; raised to what the type reaches
            (float32: max(2e-6, 4e-8/epsilon)).
        solver: how the plan, always the same, is found. "sinkhorn": alternating updates. "newton": five of them, then
            Newton steps with conjugate gradients on the dual. "auto": over-relaxed alternating updates (a fraction of
            the iterations), and Newton steps where many more of them would be needed, as at a small epsilon or tol.

    Returns:
        SinkhornResult. The gradient of the plan is that of the converged plan, by one linear solve (conjugate
        gradients); no iteration is recorded. It flows to cost, a and b, not to epsilon. The gradients of a and b are
        defined up to a constant on the simplex and returned centred.

    Raises:
        RuntimeError: shapes, types, devices or values that do not fit.

    Source: MOVER, eq. 5; Cuturi, "Sinkhorn distances" (2013); over-relaxation: Thibault et al., "Overrelaxed
    Sinkhorn-Knopp algorithm for regularized optimal transport" (2021); Newton on the dual: Brauer et al., "A
    Sinkhorn-Newton method for entropic optimal transport" (2017).
    """
    outputs = torch.ops.mover.sinkhorn(
        at_least_float32(cost), at_least_float32(a), at_least_float32(b), epsilon, max_iter, tol, solver
    )
    return SinkhornResult(*outputs)


def transport(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float = 0.1,
    max_iter: int = 100,
    tol: float = 1e-3,
    solver: str = "auto",
    precision: str = "float32",
) -> TransportResult:
    """`cost` and `sinkhorn` in one call, for all problems of a batch at once.

    Args:
        x: rows (..., n, d).
        y: rows (..., m, d).
        a, b, epsilon, max_iter, tol, solver: as in `sinkhorn`; epsilon in the squared unit of the rows.
        precision: as in `cost`.

    Returns:
        TransportResult. The gradient flows to x, y, a and b, from the plan and from the cost; where the loss uses
        `plan.detach()` no linear solve is done.

    Raises:
        RuntimeError: as `cost` and `sinkhorn`.

    Source: MOVER, eq. 4-5.
    """
    outputs = torch.ops.mover.transport(
        at_least_float32(x),
        at_least_float32(y),
        at_least_float32(a),
        at_least_float32(b),
        epsilon,
        max_iter,
        tol,
        solver,
        precision,
    )
    return TransportResult(*outputs)


def transport_value(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float = 0.1,
    max_iter: int = 100,
    tol: float = 1e-3,
    solver: str = "auto",
    precision: str = "float32",
) -> Tensor:
    """The optimal value OT(x, y) = <P, C> + epsilon KL(P | a b^T) = <f, a> + <g, b>, without returning the plan.

    Args:
        as in `transport`.

    Returns:
        (...), in the squared unit of the rows. Its gradient is that of the envelope theorem (dOT/dC = P, dOT/da = f,
        dOT/db = g, the last two returned centred): exact at convergence and without a linear solve. Stop at a small
        `tol` where the gradient has to be accurate.

    Raises:
        RuntimeError: as `transport`.
    """
    value, _, _ = torch.ops.mover.transport_value(
        at_least_float32(x),
        at_least_float32(y),
        at_least_float32(a),
        at_least_float32(b),
        epsilon,
        max_iter,
        tol,
        solver,
        precision,
    )
    return value


def _rows_to_marginals(x: Tensor, y: Tensor, needs: Sequence[bool]) -> tuple[Tensor, Tensor]:
    grad_a = x.new_empty(x.shape[:-1] if needs[0] else (0,))
    grad_b = x.new_empty(y.shape[:-1] if needs[1] else (0,))
    return grad_a, grad_b


def _fake_sinkhorn(
    cost: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    epsilon: float,
    max_iter: int,
    tol: float,
    solver: str = "auto",
) -> tuple[Tensor, ...]:
    leading, n, m = cost.shape[:-2], cost.shape[-2], cost.shape[-1]
    return (
        cost.new_empty(cost.shape),
        cost.new_empty((*leading, n)),
        cost.new_empty((*leading, m)),
        cost.new_empty(leading, dtype=torch.int32),
        cost.new_empty(leading),
    )


def _fake_sinkhorn_backward(
    grad_plan: Tensor, plan: Tensor, epsilon: float, needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    leading, n, m = plan.shape[:-2], plan.shape[-2], plan.shape[-1]
    return (
        gradient_shape(plan, needs[0]),
        plan.new_empty((*leading, n) if needs[1] else (0,)),
        plan.new_empty((*leading, m) if needs[2] else (0,)),
    )


def _setup_sinkhorn(ctx: Context, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
    ctx.epsilon = inputs[3]
    ctx.save_for_backward(outputs[0])
    ctx.mark_non_differentiable(*outputs[1:])


def _sinkhorn_backward(ctx: Context, needs: Sequence[bool], grad_plan: Tensor, *_: Tensor | None) -> Gradients:
    (plan,) = ctx.saved_tensors
    # masses shared by all problems, (n), get a gradient (..., n), which autograd sums over the problems
    grad_cost, grad_a, grad_b = torch.ops.mover.sinkhorn_backward(grad_plan, plan, ctx.epsilon, needs[:3])
    return (grad_cost, grad_a, grad_b, *(None,) * 4)


register_operator(
    "sinkhorn",
    fake=_fake_sinkhorn,
    fake_backward=_fake_sinkhorn_backward,
    setup_context=_setup_sinkhorn,
    backward=_sinkhorn_backward,
)


def _fake_transport(
    x: Tensor,
    y: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    epsilon: float,
    max_iter: int,
    tol: float,
    solver: str = "auto",
    precision: str = "float32",
) -> tuple[Tensor, ...]:
    leading = x.shape[:-2]
    return (
        x.new_empty((*x.shape[:-1], y.shape[-2])),
        x.new_empty((*x.shape[:-1], y.shape[-2])),
        x.new_empty(x.shape[:-1]),
        x.new_empty(y.shape[:-1]),
        x.new_empty(leading, dtype=torch.int32),
        x.new_empty(leading),
    )


def _fake_transport_backward(
    grad_plan: Tensor | None,
    grad_cost: Tensor | None,
    x: Tensor,
    y: Tensor,
    plan: Tensor,
    epsilon: float,
    precision: str,
    needs: Sequence[bool],
) -> tuple[Tensor, ...]:
    return gradient_shape(x, needs[0]), gradient_shape(y, needs[1]), *_rows_to_marginals(x, y, needs[2:])


def _setup_transport(ctx: Context, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
    x, y, _, _, ctx.epsilon, _, _, _, ctx.precision = inputs
    ctx.save_for_backward(x, y, outputs[0])
    ctx.mark_non_differentiable(*outputs[2:])


def _transport_backward(
    ctx: Context, needs: Sequence[bool], grad_plan: Tensor | None, grad_cost: Tensor | None, *_: Tensor | None
) -> Gradients:
    x, y, plan = ctx.saved_tensors
    grad_x, grad_y, grad_a, grad_b = torch.ops.mover.transport_backward(
        grad_plan, grad_cost, x, y, plan, ctx.epsilon, ctx.precision, needs[:4]
    )
    return (grad_x, grad_y, grad_a, grad_b, *(None,) * 5)


register_operator(
    "transport",
    fake=_fake_transport,
    fake_backward=_fake_transport_backward,
    setup_context=_setup_transport,
    backward=_transport_backward,
)


def _fake_value(
    x: Tensor,
    y: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    epsilon: float,
    max_iter: int,
    tol: float,
    solver: str = "auto",
    precision: str = "float32",
) -> tuple[Tensor, ...]:
    return x.new_empty(x.shape[:-2]), x.new_empty(x.shape[:-1]), x.new_empty(y.shape[:-1])


def _fake_value_backward(
    grad_value: Tensor,
    x: Tensor,
    y: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    f: Tensor,
    g: Tensor,
    epsilon: float,
    precision: str,
    needs: Sequence[bool],
) -> tuple[Tensor, ...]:
    return gradient_shape(x, needs[0]), gradient_shape(y, needs[1]), *_rows_to_marginals(x, y, needs[2:])


def _setup_value(ctx: Context, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
    x, y, a, b, ctx.epsilon, _, _, _, ctx.precision = inputs
    _, f, g = outputs
    ctx.save_for_backward(x, y, a, b, f, g)
    ctx.mark_non_differentiable(f, g)


def _value_backward(ctx: Context, needs: Sequence[bool], grad_value: Tensor, *_: Tensor | None) -> Gradients:
    x, y, a, b, f, g = ctx.saved_tensors
    grad_x, grad_y, grad_a, grad_b = torch.ops.mover.transport_value_backward(
        grad_value, x, y, a, b, f, g, ctx.epsilon, ctx.precision, needs[:4]
    )
    return (grad_x, grad_y, grad_a, grad_b, *(None,) * 5)


register_operator(
    "transport_value",
    fake=_fake_value,
    fake_backward=_fake_value_backward,
    setup_context=_setup_value,
    backward=_value_backward,
)
