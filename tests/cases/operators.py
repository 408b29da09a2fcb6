"""Valid arguments of every operator of torch.ops.mover, by name."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Arguments = tuple[Any, ...]


def unit_rows(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Random unit rows along the last dimension."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=generator), dim=-1).to(dtype)


def masses(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Random positive masses that sum to 1 along the last dimension."""
    generator = torch.Generator().manual_seed(seed)
    values = 0.2 + torch.rand(*shape, dtype=torch.float64, generator=generator)
    return (values / values.sum(-1, keepdim=True)).to(dtype)


def _rows(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return unit_rows(2, 5, 7, dtype=dtype, seed=1), unit_rows(2, 6, 7, dtype=dtype, seed=2)


def _costs(dtype: torch.dtype) -> Tensor:
    x, y = _rows(torch.float64)
    return torch.cdist(x, y).square().to(dtype)


def _cost(dtype: torch.dtype) -> Arguments:
    return (*_rows(dtype), "float32")


def _sinkhorn(dtype: torch.dtype) -> Arguments:
    return (_costs(dtype), masses(5, dtype=dtype, seed=3), masses(2, 6, dtype=dtype, seed=4), 0.3, 2000, 1e-13, "auto")


def _transport(dtype: torch.dtype) -> Arguments:
    x, y = _rows(dtype)
    return x, y, masses(2, 5, dtype=dtype, seed=3), masses(6, dtype=dtype, seed=4), 0.3, 2000, 1e-13, "auto", "float32"


def _gram(dtype: torch.dtype) -> Arguments:
    return (unit_rows(3, 4, 6, dtype=dtype, seed=5),)


def _logdet(dtype: torch.dtype) -> Arguments:
    v = unit_rows(3, 4, 6, seed=5)
    return (v @ v.mT).to(dtype), "auto"


def _volume(dtype: torch.dtype) -> Arguments:
    return unit_rows(3, 4, 6, dtype=dtype, seed=6), 0.0


def _group_volume(dtype: torch.dtype) -> Arguments:
    sets = [unit_rows(3, 7, seed=m) for m in range(4)]
    costs = torch.stack([torch.cdist(sets[i], sets[j]).square() for i in range(4) for j in range(i + 1, 4)])
    groups = torch.tensor([[0, 1, 2, 0], [1, 1, 0, 2], [0, 1, 2, 0], [2, 0, 1, 1], [0, 2, 2, 1]])
    return costs.to(dtype), groups


def _expected_volume(dtype: torch.dtype) -> Arguments:
    sets = [unit_rows(n, 7, seed=n) for n in (4, 5, 3)]
    costs = [torch.cdist(sets[i], sets[j]).square().to(dtype) for i, j in ((0, 1), (0, 2), (1, 2))]
    weights = [masses(*cost.shape, dtype=dtype, seed=i) for i, cost in enumerate(costs)]
    return (*costs, *weights)


def _anchor_and_others(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return unit_rows(5, 7, dtype=dtype, seed=7), unit_rows(4, 2, 7, dtype=dtype, seed=8)


_MASK = torch.tensor([[True, True], [False, True], [True, False], [True, True]])


def _volume_scores(dtype: torch.dtype) -> Arguments:
    return *_anchor_and_others(dtype), None, "volume", "float32"


def _span_scores(dtype: torch.dtype) -> Arguments:
    return *_anchor_and_others(dtype), _MASK, "span", "float32"


def _contrast(dtype: torch.dtype) -> Arguments:
    scores = unit_rows(2, 5, 5, seed=9).to(dtype)
    return scores, torch.tensor(-4.0, dtype=dtype), 0.1, "all"


def _volume_topk(dtype: torch.dtype) -> Arguments:
    return *_anchor_and_others(dtype), 3, _MASK, "span"


def _volume_rank(dtype: torch.dtype) -> Arguments:
    return *_anchor_and_others(dtype), torch.tensor([3, 0, 1, 2, 0]), _MASK, "volume"


OPERATORS: dict[str, Callable[[torch.dtype], Arguments]] = {
    "cost": _cost,
    "sinkhorn": _sinkhorn,
    "transport": _transport,
    "transport_value": _transport,
    "gram": _gram,
    "logdet": _logdet,
    "volume": _volume,
    "group_volume": _group_volume,
    "expected_volume": _expected_volume,
    "volume_scores": _volume_scores,
    "contrast": _contrast,
}


def _with_gradients(dtype: torch.dtype) -> Arguments:
    return *_expected_volume(dtype), [True] * 6


# Operators without a backward operator of their own.
FORWARD_OPERATORS: dict[str, Callable[[torch.dtype], Arguments]] = {
    "expected_volume_with_gradients": _with_gradients,
    "volume_scores_with_alphas": _span_scores,
    "volume_topk": _volume_topk,
    "volume_rank": _volume_rank,
}

ALL_OPERATORS = OPERATORS | FORWARD_OPERATORS

# Operators whose gradient is an operator, <name>_backward. That of expected_volume is made with its value.
WITH_BACKWARD = [name for name in OPERATORS if name != "expected_volume"]

# Which outputs carry a gradient.
DIFFERENTIABLE = {"sinkhorn": 1, "transport": 2, "transport_value": 1, "logdet": 1}


def operator(name: str) -> Any:
    """torch.ops.mover.<name>, its only overload."""
    import mover.ops  # noqa: F401  (defines the operators)

    return getattr(torch.ops.mover, name).default


def outputs_of(result: Any) -> tuple[Tensor, ...]:
    """The outputs as a tuple, also where there is one."""
    return (result,) if isinstance(result, Tensor) else tuple(result)


def differentiable_outputs(name: str, result: Any) -> tuple[Tensor, ...]:
    """The outputs that carry a gradient."""
    return outputs_of(result)[: DIFFERENTIABLE.get(name, 1)]


def map_floating(function: Callable[[Tensor], Tensor], arguments: Arguments) -> Arguments:
    """The same arguments with the function applied to every floating-point tensor."""
    return tuple(function(v) if isinstance(v, Tensor) and v.is_floating_point() else v for v in arguments)


def with_gradients(arguments: Arguments) -> Arguments:
    """The same arguments, fresh, every floating-point tensor asking for its gradient."""
    return map_floating(lambda tensor: tensor.detach().clone().requires_grad_(), arguments)


def tensors_of(arguments: Arguments) -> list[Tensor]:
    """The floating-point tensors among the arguments: those that may ask for a gradient."""
    return [value for value in arguments if isinstance(value, Tensor) and value.is_floating_point()]
