"""Log-determinants: in registers, by cuSOLVER, and by torch agree."""

import pytest
import torch

from cases.on_device import assert_same_bits
from cases.operators import unit_rows
from mover import ops

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.float64]


def matrices(batch, k, dtype, device, seed=0):
    """Symmetric positive definite (batch, k, k), of moderate condition."""
    generator = torch.Generator(device).manual_seed(seed)
    v = torch.randn(batch, k, k + 4, generator=generator, device=device, dtype=torch.float64)
    return (v @ v.mT / (k + 4) + 0.1 * torch.eye(k, device=device)).to(dtype)


def with_gradient(g, backend):
    leaf = g.detach().clone().requires_grad_()
    result = ops.logdet(leaf, backend=backend)
    upstream = torch.linspace(-1, 2, result.logdet.numel(), device=g.device, dtype=g.dtype).view(result.logdet.shape)
    return result.logdet.detach(), result.info, torch.autograd.grad(result.logdet, leaf, upstream)[0]


def check(found, exact, dtype):
    logdet, info, gradient = found
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    assert not info.any()
    assert (logdet.double() - exact[0]).abs().max() <= tolerance * max(1, float(exact[0].abs().max()))
    assert (gradient.double() - exact[1]).abs().max() <= tolerance * float(exact[1].abs().max())


def by_torch(g):
    """In float64: the logarithm, and the gradient for the upstream of `with_gradient`."""
    g = g.double()
    upstream = torch.linspace(-1, 2, g.shape[:-2].numel(), device=g.device, dtype=torch.float64).view(g.shape[:-2])
    return torch.linalg.slogdet(g).logabsdet, upstream[..., None, None] * torch.linalg.inv(g)


@pytest.mark.parametrize("backend", ["auto", "registers", "cusolver"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", range(1, 9))
def test_small(k, dtype, backend, device):
    g = matrices(1000, k, dtype, device)
    check(with_gradient(g, backend), by_torch(g), dtype)


@pytest.mark.parametrize("backend", ["auto", "cusolver"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [*range(9, 34, 4), 16, 32, 64, 100])
def test_large(k, dtype, backend, device):
    g = matrices(50, k, dtype, device)
    check(with_gradient(g, backend), by_torch(g), dtype)


@pytest.mark.parametrize(("k", "backend"), [(9, "auto"), (3, "cusolver"), (8, "registers"), (33, "cusolver")])
def test_more_matrices_than_cusolver_takes_at_once(k, backend, device):
    g = matrices(70_000, k, torch.float32, device)
    logdet, info, gradient = with_gradient(g, backend)
    check((logdet, info, gradient), by_torch(g), torch.float32)
    few = ops.logdet(g[65_530:65_545], backend=backend).logdet
    assert_same_bits([few], [logdet[65_530:65_545]])


@pytest.mark.parametrize("backend", ["auto", "registers", "cusolver"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_backends_agree_on_gram_matrices(dtype, backend, device):
    v = unit_rows(500, 5, 64, dtype=dtype).to(device)
    g = ops.gram(v)
    check(with_gradient(g, backend), by_torch(g), dtype)


@pytest.mark.parametrize("backend", ["auto", "registers", "cusolver"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [2, 5, 8, 12])
def test_matrices_that_are_not_positive_definite(k, dtype, backend, device):
    """Data never raise: -inf, info > 0, gradient 0; the other matrices are as without them."""
    if backend == "registers" and k > 8:
        pytest.skip("registers hold k <= 8")
    good = matrices(7, k, dtype, device)
    g = good.clone()
    g[2, -1, -1] = -1.0
    g[4] = 0.0
    g[5, 0, 0] = torch.nan
    logdet, info, gradient = with_gradient(g, backend)
    expected_logdet, _, expected_gradient = with_gradient(good, backend)
    for i in (2, 4):
        assert logdet[i] == -torch.inf and info[i] > 0 and not gradient[i].any()
    assert not torch.isfinite(logdet[5])
    kept = [0, 1, 3, 6]
    assert not info[kept].any()
    assert_same_bits([logdet[kept], gradient[kept]], [expected_logdet[kept], expected_gradient[kept]])


@pytest.mark.parametrize("backend", ["auto", "registers", "cusolver"])
def test_only_the_lower_triangle_is_read(backend, device):
    g = matrices(20, 6, torch.float64, device)
    spoiled = g + torch.triu(torch.full_like(g, torch.nan), 1)
    assert_same_bits([ops.logdet(spoiled, backend=backend).logdet], [ops.logdet(g, backend=backend).logdet])


def test_registers_are_too_small_for_large_matrices(device):
    with pytest.raises(RuntimeError, match=r"mover::logdet: .*registers"):
        ops.logdet(matrices(2, 9, torch.float32, device), backend="registers")
    assert ops.logdet(torch.eye(9, device=device)).logdet == 0
