"""What torch lends to the library: threads, and products in full precision."""

import pytest
import torch

from cases.operators import ALL_OPERATORS, operator, outputs_of, unit_rows


@pytest.fixture
def _matmul_precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("_matmul_precision")
@pytest.mark.parametrize("name", ["cost", "transport", "transport_value", "volume_scores"])
def test_the_matmul_precision_of_torch_does_not_reach_the_operators(name):
    x, y = unit_rows(70, 96, dtype=torch.float32), unit_rows(70, 96, dtype=torch.float32, seed=1)
    arguments = {
        "cost": (x, y),
        "transport": (x, y, None, None, 0.1, 20, 0.0),
        "transport_value": (x, y, None, None, 0.1, 20, 0.0),
        "volume_scores": (x, torch.stack([y, x.flip(0)], dim=1)),
    }[name]
    torch.set_float32_matmul_precision("highest")
    full = outputs_of(operator(name)(*arguments))
    torch.set_float32_matmul_precision("medium")
    medium = outputs_of(operator(name)(*arguments))
    assert all(torch.equal(one, other) for one, other in zip(full, medium, strict=True))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lent_products_are_right_for_every_orientation(dtype, transposed):
    # cost uses X Y^T, its gradients D Y and D^T X; sizes that no two of are equal
    x, y = unit_rows(37, 53, dtype=dtype), unit_rows(41, 53, dtype=dtype, seed=1)
    if transposed:
        x, y = x.mT.contiguous().mT, y.mT.contiguous().mT
    exact = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    result = operator("cost")(x, y)
    assert (result - exact).abs().max() < 20 * torch.finfo(dtype).eps
    upstream = torch.rand(37, 41, dtype=dtype)
    grad_x, grad_y = operator("cost_backward")(upstream, x, y, "float32", [True, True])
    d = upstream.double()
    exact_x = 2 * (d.sum(1, keepdim=True) * x.double() - d @ y.double())
    exact_y = 2 * (d.sum(0)[:, None] * y.double() - d.T @ x.double())
    assert (grad_x - exact_x).abs().max() < 100 * torch.finfo(dtype).eps
    assert (grad_y - exact_y).abs().max() < 100 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", ALL_OPERATORS)
def test_two_threads_agree_with_one(name):
    arguments = ALL_OPERATORS[name](torch.float64)
    torch.set_num_threads(1)
    alone = outputs_of(operator(name)(*arguments))
    torch.set_num_threads(2)
    shared = outputs_of(operator(name)(*arguments))
    for one, other in zip(alone, shared, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_large_problems_use_the_threads_and_agree():
    x, y = unit_rows(2, 300, 64, dtype=torch.float32), unit_rows(2, 257, 64, dtype=torch.float32, seed=1)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(operator("transport")(x, y, None, None, 0.1, 30, 0.0))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-6)
