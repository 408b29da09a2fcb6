"""Arguments that do not fit: the message names the operator, the argument, what was expected and what came."""

import pytest
import torch

from cases.operators import ALL_OPERATORS, operator, unit_rows

FLOAT = torch.float32
X, Y = unit_rows(2, 5, 7, dtype=FLOAT), unit_rows(2, 6, 7, dtype=FLOAT, seed=1)
C = torch.rand(2, 5, 6)
V = unit_rows(3, 4, 6, dtype=FLOAT)
ANCHOR, OTHERS = unit_rows(5, 7, dtype=FLOAT), unit_rows(4, 2, 7, dtype=FLOAT)
COSTS, GROUPS = torch.rand(3, 4, 4), torch.tensor([[0, 3, 1], [2, 2, 3]])
MASK, TARGET = torch.ones(4, 2, dtype=torch.bool), torch.arange(5) % 4
SOLVE = (0.1, 10, 1e-3)
NEEDS = [True, True]

REFUSED = {
    # cost
    "cost: x must be float32 or float64, got int64": ("cost", X.long(), Y),
    "cost: x must be float32 or float64, got bfloat16": ("cost", X.bfloat16(), Y),
    "cost: y must have the dtype of x (float32), got float64": ("cost", X, Y.double()),
    "cost: x must have the shape (..., n, d), got (7)": ("cost", X[0, 0], Y),
    "cost: y must have the shape (..., m, d), got ()": ("cost", X, Y[0, 0, 0]),
    "cost: x (..., n, d) and y (..., m, d) must agree in all sizes but n and m, got (2, 5, 7) and (2, 6, 3)": (
        "cost",
        X,
        Y[..., :3],
    ),
    "cost: x (..., n, d) and y (..., m, d) must agree in all sizes but n and m, got (2, 5, 7) and (6, 7)": (
        "cost",
        X,
        Y[0],
    ),
    "cost: precision 'tf32' needs a CUDA device; on the CPU use 'float32'": ("cost", X, Y, "tf32"),
    "cost: precision must be 'float32', got 'fast'": ("cost", X, Y, "fast"),
    "cost_backward: grad_cost must have the shape (2, 5, 6), got (5, 6)": (
        "cost_backward",
        C[0],
        X,
        Y,
        "float32",
        NEEDS,
    ),
    "cost_backward: needs must have 2 entries, got 1": ("cost_backward", C, X, Y, "float32", [True]),
    # sinkhorn
    "sinkhorn: epsilon must be > 0, got -0.1": ("sinkhorn", C, None, None, -0.1, 10, 1e-3),
    "sinkhorn: epsilon must be > 0, got 0": ("sinkhorn", C, None, None, 0.0, 10, 1e-3),
    "sinkhorn: epsilon must be > 0, got nan": ("sinkhorn", C, None, None, float("nan"), 10, 1e-3),
    "sinkhorn: epsilon must be > 0 and finite, got inf": ("sinkhorn", C, None, None, float("inf"), 10, 1e-3),
    "sinkhorn: tol must be >= 0, got -1": ("sinkhorn", C, None, None, 0.1, 10, -1.0),
    "sinkhorn: tol must be >= 0, got nan": ("sinkhorn", C, None, None, 0.1, 10, float("nan")),
    "sinkhorn: max_iter must be from 1 to 2147483647, got 0": ("sinkhorn", C, None, None, 0.1, 0, 1e-3),
    "sinkhorn: max_iter must be from 1 to 2147483647, got 4294967297": ("sinkhorn", C, None, None, 0.1, 2**32 + 1, 0.0),
    "sinkhorn: solver must be 'auto', 'sinkhorn' or 'newton', got 'lbfgs'": (
        "sinkhorn",
        C,
        None,
        None,
        *SOLVE,
        "lbfgs",
    ),
    "sinkhorn: cost must have the shape (..., n, m), got (6)": ("sinkhorn", C[0, 0], None, None, *SOLVE),
    "sinkhorn: a must have the shape (5) or (2, 5), got (6)": ("sinkhorn", C, torch.ones(6), None, *SOLVE),
    "sinkhorn: a must have the shape (5), got (6)": ("sinkhorn", C[0], torch.ones(6), None, *SOLVE),
    "sinkhorn: b must have the shape (6) or (2, 6), got (1, 6)": ("sinkhorn", C, None, torch.ones(1, 6), *SOLVE),
    "sinkhorn: b must have the dtype of cost (float32), got float64": (
        "sinkhorn",
        C,
        None,
        torch.ones(6).double(),
        *SOLVE,
    ),
    # transport
    "transport: epsilon must be > 0, got -1": ("transport", X, Y, None, None, -1.0, 10, 1e-3),
    "transport: a must have the shape (5) or (2, 5), got (7)": ("transport", X, Y, torch.ones(7), None, *SOLVE),
    "transport: precision 'tf32' needs a CUDA device": ("transport", X, Y, None, None, *SOLVE, "auto", "tf32"),
    "transport_backward: grad_plan and grad_cost must not both be None": (
        "transport_backward",
        None,
        None,
        X,
        Y,
        C,
        0.1,
        "float32",
        NEEDS * 2,
    ),
    "transport_value: solver must be 'auto', 'sinkhorn' or 'newton', got 'Newton'": (
        "transport_value",
        X,
        Y,
        None,
        None,
        *SOLVE,
        "Newton",
    ),
    "transport: there must be at least one row on either side, got n = 0 and m = 6": (
        "transport",
        X[:, :0],
        Y,
        None,
        None,
        *SOLVE,
    ),
    "sinkhorn: there must be at least one row on either side, got n = 5 and m = 0": (
        "sinkhorn",
        C[..., :0],
        None,
        None,
        *SOLVE,
    ),
    # gram
    "gram: v must have the shape (..., k, d), got (6)": ("gram", V[0, 0]),
    "gram: v must have at least one vector per group, got the shape (3, 0, 6)": ("gram", V[:, :0]),
    "logdet: g must have the shape (..., k, k) with k >= 1, got (3, 4, 6)": ("logdet", V),
    "logdet: g must have the shape (..., k, k) with k >= 1, got (3, 0, 0)": ("logdet", torch.ones(3, 0, 0)),
    "logdet: backend 'cusolver' needs a CUDA device": ("logdet", V @ V.mT, "cusolver"),
    "logdet: backend must be 'auto' or 'registers', got 'lapack'": ("logdet", V @ V.mT, "lapack"),
    # volume
    "volume: a group must have 1 to 8 vectors, got k = 9 in v of the shape (9, 12)": ("volume", torch.rand(9, 12)),
    "volume: a group must have 1 to 8 vectors, got k = 0": ("volume", torch.rand(2, 0, 12)),
    "volume: eps must be >= 0, got -1": ("volume", V, -1.0),
    "group_volume: costs must be float32 or float64, got int64": ("group_volume", C.long(), GROUPS),
    "group_volume: groups must be int64, got int32": ("group_volume", COSTS, GROUPS.int()),
    "group_volume: groups must be int64, got float32": ("group_volume", COSTS, GROUPS.float()),
    "group_volume: groups must have the shape (T, k), got (3)": ("group_volume", COSTS, GROUPS[0]),
    "group_volume: a group must have 2 to 8 rows, got k = 1 in groups of the shape (2, 1)": (
        "group_volume",
        COSTS,
        GROUPS[:, :1],
    ),
    "group_volume: a group must have 2 to 8 rows, got k = 9": ("group_volume", COSTS, torch.zeros(2, 9).long()),
    "group_volume: costs must have the shape (3, B, B) for the 3 pairs of k = 3 sets, got (1, 4, 4)": (
        "group_volume",
        COSTS[:1],
        GROUPS,
    ),
    "group_volume: costs must have the shape (3, B, B) for the 3 pairs of k = 3 sets, got (3, 4, 3)": (
        "group_volume",
        COSTS[..., :3],
        GROUPS,
    ),
    "group_volume: mover_group_volume_forward: groups[1, 2] must be a row number from 0 to 3, got 4": (
        "group_volume",
        COSTS,
        torch.tensor([[0, 3, 1], [2, 2, 4]]),
    ),
    "group_volume_backward: mover_group_volume_backward: groups[0, 0] must be a row number from 0 to 3, got -1": (
        "group_volume_backward",
        torch.ones(2),
        COSTS,
        torch.tensor([[-1, 3, 1], [2, 2, 3]]),
    ),
    "group_volume_backward: grad_volume must have the shape (2), got (3)": (
        "group_volume_backward",
        torch.ones(3),
        COSTS,
        GROUPS,
    ),
    "expected_volume: c12, c13, c23 must have the shapes (n1, n2), (n1, n3), (n2, n3), got (2, 3), (2, 4), (2, 4)": (
        "expected_volume",
        torch.rand(2, 3),
        torch.rand(2, 4),
        torch.rand(2, 4),
    ),
    "expected_volume: p13 must have the shape (2, 4), got (4, 2)": (
        "expected_volume",
        torch.rand(2, 3),
        torch.rand(2, 4),
        torch.rand(3, 4),
        None,
        torch.rand(4, 2),
    ),
    # scores
    "volume_scores: anchor and others must have the shapes (n, d) and (m, k-1, d), got (5, 7) and (4, 7)": (
        "volume_scores",
        ANCHOR,
        OTHERS[:, 0],
    ),
    "volume_scores: a group must have k = 2 to 8 members with the anchor, got k = 9": (
        "volume_scores",
        ANCHOR,
        torch.rand(4, 8, 7),
    ),
    "volume_scores: a group must have k = 2 to 8 members with the anchor, got k = 1": (
        "volume_scores",
        ANCHOR,
        OTHERS[:, :0],
    ),
    "volume_scores: mask must be bool, got float32": ("volume_scores", ANCHOR, OTHERS, torch.ones(4, 2)),
    "volume_scores: mask must have the shape (4, 2), got (4, 3)": ("volume_scores", ANCHOR, OTHERS, MASK[:, [0, 0, 1]]),
    "volume_scores: score must be 'volume' or 'span', got 'cosine'": ("volume_scores", ANCHOR, OTHERS, None, "cosine"),
    "volume_scores: precision 'tf32' needs a CUDA device": ("volume_scores", ANCHOR, OTHERS, None, "span", "tf32"),
    "volume_scores_backward: alphas must have the shape (5, 4, 2), got (5, 4)": (
        "volume_scores_backward",
        torch.rand(5, 4),
        ANCHOR,
        OTHERS,
        None,
        torch.rand(5, 4),
        "volume",
        "float32",
        NEEDS,
    ),
    "volume_topk: topk must be from 1 to the number of groups, 4, got 0": ("volume_topk", ANCHOR, OTHERS, 0),
    "volume_topk: topk must be from 1 to the number of groups, 4, got 5": ("volume_topk", ANCHOR, OTHERS, 5),
    "volume_topk: score must be 'volume', 'span' or 'cosine', got 'angle'": (
        "volume_topk",
        ANCHOR,
        OTHERS,
        2,
        None,
        "angle",
    ),
    "volume_topk: mask must have the shape (4, 2), got (2, 4)": ("volume_topk", ANCHOR, OTHERS, 2, MASK.T),
    "volume_rank: target must be int64, got float32": ("volume_rank", ANCHOR, OTHERS, torch.ones(5)),
    "volume_rank: target must have the shape (5), got (4)": ("volume_rank", ANCHOR, OTHERS, TARGET[:4]),
    "volume_rank: mover_volume_rank: target[3] must be a group from 0 to 3, got 4": (
        "volume_rank",
        ANCHOR,
        OTHERS,
        torch.tensor([0, 3, 2, 4, 9]),
    ),
    "volume_rank: mover_volume_rank: target[0] must be a group from 0 to 3, got -1": (
        "volume_rank",
        ANCHOR,
        OTHERS,
        TARGET - 1,
    ),
    # contrast
    "contrast: scores must have the shape (..., B, B), got (2, 5, 6)": ("contrast", C),
    "contrast: there must be at least one row, got scores of the shape (0, 0)": ("contrast", torch.ones(0, 0)),
    "contrast: scale must have the shape (), got (1)": ("contrast", COSTS, torch.ones(1)),
    "contrast: label_smoothing must be from 0 to 1, got 1.5": ("contrast", COSTS, None, 1.5),
    "contrast: label_smoothing must be from 0 to 1, got nan": ("contrast", COSTS, None, float("nan")),
    "contrast: denominator must be 'all' or 'negatives', got 'none'": ("contrast", COSTS, None, 0.0, "none"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message):
    name, *arguments = REFUSED[message]
    with pytest.raises(RuntimeError) as error:
        operator(name)(*arguments)
    assert str(error.value).startswith(f"mover::{message}")


@pytest.mark.parametrize("name", ALL_OPERATORS)
def test_tensors_of_two_types_are_refused(name):
    arguments = list(ALL_OPERATORS[name](torch.float32))
    tensors = [i for i, value in enumerate(arguments) if isinstance(value, torch.Tensor) and value.is_floating_point()]
    for i in tensors[1:]:
        mixed = [value.double() if j == i else value for j, value in enumerate(arguments)]
        called = name.removesuffix("_with_alphas")  # the name that a caller knows
        with pytest.raises(
            RuntimeError, match=rf"mover::{called}: \w+ must have the dtype of \w+ \(float32\), got float64"
        ):
            operator(name)(*mixed)


@pytest.mark.parametrize("name", ["cost", "transport", "volume_scores"])
def test_more_than_the_memory_holds(name):
    """One sentence with the size, before anything is asked of the system; later calls are fine."""
    x = torch.ones(1, 3).expand(3_000_000, 3)  # costs of 36 TB
    others = x[:, None] if name == "volume_scores" else x
    with pytest.raises(RuntimeError) as caught:
        operator(name)(x, others, *((None, None, *SOLVE) if name == "transport" else ()))
    assert str(caught.value).startswith(
        f"mover::{name}: a result of shape (3000000, 3000000) needs 36000.0 GB, and the device has "
    )
    assert "make the batch smaller" in str(caught.value)
    assert torch.isfinite(operator("cost")(X, Y)).all()
