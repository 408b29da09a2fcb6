"""Any memory layout, and the same bits every time."""

import pytest
import torch

from cases.operators import OPERATORS, map_floating, operator, outputs_of, tensors_of, unit_rows, with_gradients
from mover import ops

DTYPES = [torch.float32, torch.float64]


def transposed(tensor):
    return tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor


def strided(tensor):
    wide = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1]), torch.nan, dtype=tensor.dtype)
    wide[..., ::2] = tensor
    return wide[..., ::2]


def misaligned(tensor):
    storage = torch.full((tensor.numel() + 1,), torch.nan, dtype=tensor.dtype)
    storage[1:] = tensor.reshape(-1)
    return storage[1:].view(tensor.shape)


def reversed_(tensor):
    return tensor.flip(0).contiguous().flip(0)


@pytest.mark.parametrize("layout", [transposed, strided, misaligned, reversed_])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATORS)
def test_layout_of_inputs(name, dtype, layout):
    def run(arguments):
        outputs = outputs_of(operator(name)(*arguments))
        grads = torch.autograd.grad(outputs[0].sum(), tensors_of(arguments))
        return [*outputs, *grads]

    dense = with_gradients(OPERATORS[name](dtype))
    odd = map_floating(lambda v: layout(v.detach()).requires_grad_() if v.dim() > 0 else v, dense)
    before = [tensor.detach().clone() for tensor in tensors_of(odd)]
    tolerance = 0 if layout is not misaligned else 16 * torch.finfo(dtype).eps  # BLAS may sum in another order
    for one, other in zip(run(odd), run(dense), strict=True):
        torch.testing.assert_close(one, other, rtol=20 * tolerance, atol=tolerance)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors_of(odd), before, strict=True))


def test_expanded_inputs():
    x, y = unit_rows(1, 1, 7).expand(3, 4, 7), unit_rows(1, 5, 7, seed=1).expand(3, 5, 7)
    assert torch.equal(ops.cost(x, y), ops.cost(x.contiguous(), y.contiguous()))
    leaf = unit_rows(1, 5, 7, seed=1).requires_grad_()
    ops.transport(x, leaf.expand(3, 5, 7), epsilon=0.3).plan.square().sum().backward()
    assert leaf.grad.shape == (1, 5, 7)


def test_negative_and_lazy_views():
    z = torch.complex(unit_rows(4, 6), unit_rows(4, 6, seed=1))
    negated = z.conj().imag  # a view with the negative bit
    assert negated.is_neg()
    assert torch.equal(ops.cost(negated, z.real), ops.cost(negated.clone(), z.real.clone()))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 0)])
def test_leading_sizes(shape):
    x, y, v = unit_rows(*shape, 4, 5), unit_rows(*shape, 6, 5, seed=1), unit_rows(*shape, 3, 5)
    assert ops.cost(x, y).shape == (*shape, 4, 6)
    result = ops.transport(x, y)
    assert [tuple(out.shape) for out in result] == [(*shape, 4, 6)] * 2 + [(*shape, 4), (*shape, 6), shape, shape]
    assert ops.transport_value(x, y).shape == shape
    assert ops.gram(v).shape == (*shape, 3, 3)
    assert ops.logdet(ops.gram(v)).info.shape == shape
    assert ops.volume(v).shape == shape


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATORS)
def test_twice_the_same_bits(name, dtype):
    arguments = with_gradients(OPERATORS[name](dtype))
    runs = []
    for _ in range(2):
        outputs = outputs_of(operator(name)(*arguments))
        runs.append([*outputs, *torch.autograd.grad(outputs[0].square().sum(), tensors_of(arguments))])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m", "d"), [(8, 8, 8), (33, 31, 17), (65, 70, 48)])
def test_a_batch_is_the_loop_over_it(n, m, d, dtype):
    x, y = unit_rows(3, n, d, dtype=dtype), unit_rows(3, m, d, dtype=dtype, seed=1)
    upstream = torch.rand(3, n, m, dtype=dtype, generator=torch.Generator().manual_seed(2))

    def run(x, y, upstream):
        x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
        result = ops.transport(x, y, epsilon=0.1, max_iter=40)
        grads = torch.autograd.grad([result.plan, result.cost], (x, y), [upstream, upstream])
        value = ops.transport_value(x, y, epsilon=0.1)
        return [*result, value, *grads, *torch.autograd.grad(value.sum(), (x, y)), ops.cost(x, y)]

    batch = run(x, y, upstream)
    for i in range(3):
        for whole, single in zip(batch, run(x[i], y[i], upstream[i]), strict=True):
            assert torch.equal(whole[i], single)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_of_groups_is_the_loop_over_it(dtype):
    v = unit_rows(37, 4, 19, dtype=dtype)
    for function in (ops.gram, ops.volume, lambda v: ops.logdet(ops.gram(v)).logdet):
        assert torch.equal(function(v), torch.stack([function(group) for group in v]))
