"""What can be said of an embedding space without classes: where modalities lie, how far they fill it, what they match.

All functions take unit rows in float64, (n, d); docs/analysis.md has the formulas. None: not defined for these rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

TEMPERATURE = 2.0
"""t of the uniformity."""

_BLOCK = 1024
_NO_DIRECTION = 1e-9


def pair(x: np.ndarray, y: np.ndarray) -> dict[str, float | int | None]:
    """How two modalities of the same n clips lie to each other, row i with row i.

    Returns:
        clips; gap: the distance between the two centroids; angle: between them, in degrees, None where one is 0;
        matched, unmatched: the mean cosine of rows of one clip, and of two different clips; alignment: the mean squared
        distance of rows of one clip.

    Source: the gap, Liang et al. 2022; the alignment, Wang & Isola 2020, eq. 1 with exponent 2.
    """
    n = len(x)
    mine, yours = x.mean(0), y.mean(0)
    matched = float(np.einsum("nd,nd->n", x, y).mean())
    unmatched = (n * float(mine @ yours) - matched) / (n - 1) if n > 1 else None
    return {
        "clips": n,
        "gap": float(np.linalg.norm(mine - yours)),
        "angle": _angle(mine, yours),
        "matched": matched,
        "unmatched": unmatched,
        "alignment": float(np.square(x - y).sum(1).mean()),
    }


def _angle(x: np.ndarray, y: np.ndarray) -> float | None:
    lengths = np.linalg.norm(x), np.linalg.norm(y)
    if min(lengths) < _NO_DIRECTION:
        return None
    x, y = x / lengths[0], y / lengths[1]
    return math.degrees(2 * math.atan2(float(np.linalg.norm(x - y)), float(np.linalg.norm(x + y))))


def uniformity(x: np.ndarray) -> float | None:
    """Logarithm of the mean over pairs i < j of exp(-2 |x_i - x_j|²): 0 where all rows are one, lower when spread out.

    Source: Wang & Isola 2020, eq. 2.
    """
    n = len(x)
    if n < 2:
        return None
    total = 0.0
    for start in range(0, n, _BLOCK):
        block = x[start : start + _BLOCK]
        squared = np.maximum(2 - 2 * (block @ x[start:].T), 0)  # (b, n - start)
        later = np.arange(len(block))[:, None] < np.arange(n - start)
        total += float(np.exp(-TEMPERATURE * squared[later]).sum())
    return math.log(total / (n * (n - 1) / 2))


def effective_rank(x: np.ndarray) -> float:
    """exp(entropy of the singular values, taken as shares): 1 where all rows are parallel, at most min(n, d).

    Source: Roy & Vetterli 2007; of rows that are not centred, as in Garrido et al. 2023.
    """
    gram = x.T @ x if x.shape[0] > x.shape[1] else x @ x.T
    squares = np.linalg.eigvalsh(gram)
    values = np.sqrt(squares[squares > squares[-1] * 1e-13])  # below: rounding of the products
    shares = values / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def volumes(groups: Sequence[np.ndarray], seed: int) -> dict[str, float | int | None]:
    """The volume that the rows of a clip span, and that of rows of as many different clips.

    Args:
        groups: two to eight modalities of the same n clips, each (n, d).
        seed: of the order in which clips lend each other their rows.

    Returns:
        clips; matched, unmatched: mean volumes; unmatched is None for fewer clips than modalities.
    """
    n = len(groups[0])
    matched = _volumes(np.stack(groups, axis=1))
    order = np.random.default_rng(seed).permutation(n)
    shifted = [rows[order[(np.arange(n) + place) % n]] for place, rows in enumerate(groups)]
    unmatched = float(_volumes(np.stack(shifted, axis=1)).mean()) if n >= len(groups) else None
    return {"clips": n, "matched": float(matched.mean()), "unmatched": unmatched}


def _volumes(groups: np.ndarray) -> np.ndarray:
    """float64 (n,): volumes of n groups of vectors, (n, k, d)."""
    import torch

    from mover.ops import volume

    return np.asarray(volume(torch.from_numpy(np.ascontiguousarray(groups))))
