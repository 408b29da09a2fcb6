"""libmover on NumPy arrays, without torch. Docstrings of the functions give the shapes; errors are ValueErrors."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
Counts = NDArray[np.int32]
Indices = NDArray[np.int64]

__version__: str

def cost(x: ArrayLike, y: ArrayLike) -> Floats: ...
def cost_backward(x: ArrayLike, y: ArrayLike, grad_cost: ArrayLike) -> tuple[Floats, Floats]: ...
def sinkhorn(
    cost: ArrayLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    epsilon: float = 0.1,
    max_iter: int = 100,
    tol: float = 0.001,
    solver: str = "auto",
) -> tuple[Floats, Floats, Floats, Counts, Floats]: ...
def sinkhorn_backward(plan: ArrayLike, grad_plan: ArrayLike, *, epsilon: float) -> tuple[Floats, Floats, Floats]: ...
def transport(
    x: ArrayLike,
    y: ArrayLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    epsilon: float = 0.1,
    max_iter: int = 100,
    tol: float = 0.001,
    solver: str = "auto",
) -> tuple[Floats, Floats, Floats, Floats, Counts, Floats]: ...
def transport_backward(
    x: ArrayLike,
    y: ArrayLike,
    plan: ArrayLike,
    grad_plan: ArrayLike | None,
    grad_cost: ArrayLike | None,
    *,
    epsilon: float,
) -> tuple[Floats, Floats, Floats, Floats]: ...
def transport_value(
    x: ArrayLike,
    y: ArrayLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    epsilon: float = 0.1,
    max_iter: int = 100,
    tol: float = 0.001,
    solver: str = "auto",
) -> tuple[Floats, Floats, Floats]: ...
def transport_value_backward(
    x: ArrayLike,
    y: ArrayLike,
    a: ArrayLike | None,
    b: ArrayLike | None,
    f: ArrayLike,
    g: ArrayLike,
    grad_value: ArrayLike,
    *,
    epsilon: float,
) -> tuple[Floats, Floats, Floats, Floats]: ...
def gram(v: ArrayLike) -> Floats: ...
def gram_backward(v: ArrayLike, grad_gram: ArrayLike) -> Floats: ...
def logdet(gram: ArrayLike) -> tuple[Floats, Counts]: ...
def logdet_backward(gram: ArrayLike, grad_logdet: ArrayLike) -> Floats: ...
def volume(v: ArrayLike, *, eps: float = 0.0) -> Floats: ...
def volume_backward(v: ArrayLike, grad_volume: ArrayLike, *, eps: float = 0.0) -> Floats: ...
def group_volume(costs: ArrayLike, groups: ArrayLike) -> Floats: ...
def group_volume_backward(costs: ArrayLike, groups: ArrayLike, grad_volume: ArrayLike) -> Floats: ...
def expected_volume(
    c12: ArrayLike,
    c13: ArrayLike,
    c23: ArrayLike,
    p12: ArrayLike | None = None,
    p13: ArrayLike | None = None,
    p23: ArrayLike | None = None,
) -> Floats: ...
def expected_volume_backward(
    c12: ArrayLike,
    c13: ArrayLike,
    c23: ArrayLike,
    p12: ArrayLike | None,
    p13: ArrayLike | None,
    p23: ArrayLike | None,
    grad_value: ArrayLike,
) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]: ...
def volume_scores(
    anchor: ArrayLike, others: ArrayLike, mask: ArrayLike | None = None, *, score: str = "volume"
) -> Floats: ...
def volume_scores_with_alphas(
    anchor: ArrayLike, others: ArrayLike, mask: ArrayLike | None = None, *, score: str = "volume"
) -> tuple[Floats, Floats]: ...
def volume_scores_backward(
    anchor: ArrayLike,
    others: ArrayLike,
    mask: ArrayLike | None,
    alphas: ArrayLike,
    grad_scores: ArrayLike,
    *,
    score: str = "volume",
) -> tuple[Floats, Floats]: ...
def contrast(
    scores: ArrayLike, scale: ArrayLike | None = None, *, label_smoothing: float = 0.0, denominator: str = "all"
) -> tuple[Floats, Floats, Floats]: ...
def contrast_backward(
    scores: ArrayLike,
    scale: ArrayLike | None,
    rows: ArrayLike,
    columns: ArrayLike,
    grad_loss: ArrayLike,
    *,
    label_smoothing: float = 0.0,
    denominator: str = "all",
) -> tuple[Floats, Floats]: ...
def volume_topk(
    anchor: ArrayLike, others: ArrayLike, topk: int, mask: ArrayLike | None = None, *, score: str = "volume"
) -> tuple[Floats, Indices]: ...
def volume_rank(
    anchor: ArrayLike, others: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None, *, score: str = "volume"
) -> tuple[Indices, Indices]: ...
