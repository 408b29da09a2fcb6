"""Products in TF32 where they are asked for by name, and nowhere else."""

import pytest
import torch

from cases.on_device import assert_same_bits
from cases.operators import operator, outputs_of, unit_rows
from mover import ops

pytestmark = pytest.mark.gpu


@pytest.fixture
def _settings():
    before = torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cuda.matmul.allow_tf32 = before[1]


def rows(device, n=500, d=512):
    x, y = (unit_rows(n, d, dtype=torch.float32, seed=seed).to(device) for seed in range(2))
    return x.requires_grad_(), y.requires_grad_()


FUNCTIONS = {
    "cost": lambda x, y, **options: ops.cost(x, y, **options),
    "transport": lambda x, y, **options: ops.transport(x, y, max_iter=20, tol=0.0, solver="sinkhorn", **options).plan,
    "transport_value": lambda x, y, **options: ops.transport_value(
        x, y, max_iter=20, tol=0.0, solver="sinkhorn", **options
    ),
    "volume_scores": lambda x, y, **options: ops.volume_scores(x, torch.stack([y, x.flip(0)], 1), **options),
}


def value_and_gradients(name, x, y, **options):
    value = FUNCTIONS[name](x, y, **options)
    return [value.detach(), *torch.autograd.grad(value.square().sum(), (x, y))]


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_settings_of_torch_do_not_reach_float32(name, device):
    x, y = rows(device)
    torch.set_float32_matmul_precision("highest")
    full = value_and_gradients(name, x, y)
    torch.set_float32_matmul_precision("medium")
    assert_same_bits(value_and_gradients(name, x, y), full)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = True
    assert_same_bits(value_and_gradients(name, x, y), full)
    product = x.detach() @ y.detach().T  # the setting itself is left as it was
    assert torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    assert (product - x.detach() @ y.detach().T).abs().max() > 1e-6


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize("name", ["volume_topk", "volume_rank"])
def test_settings_of_torch_do_not_reach_ranks(name, device):
    x, y = (tensor.detach() for tensor in rows(device))
    others = torch.stack([y, x.flip(0)], 1)
    last = 7 if name == "volume_topk" else torch.arange(500, device=device)
    torch.set_float32_matmul_precision("highest")
    full = outputs_of(operator(name)(x, others, last))
    torch.set_float32_matmul_precision("medium")
    assert_same_bits(outputs_of(operator(name)(x, others, last)), full)


@pytest.mark.parametrize("n", [33, 500])
@pytest.mark.parametrize("name", ["cost", "volume_scores"])
def test_tf32_by_name(name, n, device):
    """Less exact than float32, as exact as ten bits of mantissa are."""
    x, y = (tensor.detach() for tensor in rows(device, n))
    exact = FUNCTIONS[name](x.double(), y.double())
    single, fast = FUNCTIONS[name](x, y), FUNCTIONS[name](x, y, precision="tf32")
    error, fast_error = ((found.double() - exact).abs().max() for found in (single, fast))
    assert fast_error <= 5e-3
    assert error <= 1e-5
    assert fast_error > error


def test_tf32_plans_by_name(device):
    x, y = (tensor.detach() for tensor in rows(device))
    exact, fast = FUNCTIONS["transport"](x.double(), y.double()), FUNCTIONS["transport"](x, y, precision="tf32")
    assert (fast.double() - exact).norm() / exact.norm() <= 2e-2
    value, fast_value = ops.transport_value(x.double(), y.double()), ops.transport_value(x, y, precision="tf32")
    torch.testing.assert_close(fast_value.double(), value, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_tf32_gradients_by_name(name, device):
    x, y = rows(device)
    _, *exact = value_and_gradients(name, x.detach().double().requires_grad_(), y.detach().double().requires_grad_())
    _, *fast = value_and_gradients(name, x, y, precision="tf32")
    for found, truth in zip(fast, exact, strict=True):
        assert (found.double() - truth).norm() / truth.norm() <= 5e-2


def test_float64_is_not_made_coarser_by_the_name(device):
    x, y = (tensor.detach().double() for tensor in rows(device, 100))
    torch.testing.assert_close(ops.cost(x, y, precision="tf32"), ops.cost(x, y), rtol=1e-12, atol=1e-12)


def test_unknown_precision(device):
    x, y = rows(device, 4)
    with pytest.raises(RuntimeError, match=r"mover::cost: precision must be 'float32' or 'tf32', got 'fast'"):
        ops.cost(x, y, precision="fast")
