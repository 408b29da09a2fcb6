"""What operators with several outputs return, in `mover.ops` and in `mover.reference`."""

from typing import NamedTuple

from torch import Tensor


class SinkhornResult(NamedTuple):
    """What `sinkhorn` returns. Only `plan` is differentiable in `mover.ops`."""

    plan: Tensor  # (..., n, m) masses
    f: Tensor  # (..., n) potentials, unit of the cost, <f, a> = <g, b>
    g: Tensor  # (..., m)
    n_iter: Tensor  # (...) int32, iterations and Newton steps; either updates both potentials
    marginal_error: Tensor  # (...) |P 1 - a|_1 + |P^T 1 - b|_1 of the returned plan


class TransportResult(NamedTuple):
    """What `transport` returns. Only `plan` and `cost` are differentiable in `mover.ops`."""

    plan: Tensor  # (..., n, m) masses
    cost: Tensor  # (..., n, m) squared distances
    f: Tensor  # (..., n) potentials, unit of the cost, <f, a> = <g, b>
    g: Tensor  # (..., m)
    n_iter: Tensor  # (...) int32, iterations and Newton steps; either updates both potentials
    marginal_error: Tensor  # (...) |P 1 - a|_1 + |P^T 1 - b|_1 of the returned plan


class LogdetResult(NamedTuple):
    """What `logdet` returns. Only `logdet` is differentiable in `mover.ops`."""

    logdet: Tensor  # (...) natural logarithm; -inf where the matrix is not positive definite
    info: Tensor  # (...) int32, 0, or the order (from 1) of the first leading minor that is not positive


class TopkResult(NamedTuple):
    """What `volume_topk` returns. Neither is differentiable."""

    values: Tensor  # (n, topk) scores, best first
    indices: Tensor  # (n, topk) int64, groups


class RankResult(NamedTuple):
    """What `volume_rank` returns. Neither is differentiable."""

    better: Tensor  # (n) int64, groups that score better than the target
    tied: Tensor  # (n) int64, other groups that score exactly as the target does
