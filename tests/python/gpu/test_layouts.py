"""Any memory layout, the same bits every time, and a batch that is the loop over it."""

import pytest
import torch

from cases.on_device import assert_same_bits, moved, upstream_of
from cases.operators import (
    OPERATORS,
    differentiable_outputs,
    map_floating,
    operator,
    outputs_of,
    tensors_of,
    unit_rows,
    with_gradients,
)
from mover import ops

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.float64]


def transposed(tensor):
    return tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor


def strided(tensor):
    wide = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1]), torch.nan)
    wide[..., ::2] = tensor
    return wide[..., ::2]


def misaligned(tensor):
    storage = tensor.new_full((tensor.numel() + 1,), torch.nan)
    storage[1:] = tensor.reshape(-1)
    return storage[1:].view(tensor.shape)


def run(name, arguments):
    outputs = outputs_of(operator(name)(*arguments))
    ends = differentiable_outputs(name, outputs)
    gradients = torch.autograd.grad(ends, tensors_of(arguments), upstream_of(ends))
    return [*(output.detach() for output in outputs), *gradients]


@pytest.mark.parametrize("layout", [transposed, strided, misaligned])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATORS)
def test_layout_of_inputs(name, dtype, layout, device):
    dense = with_gradients(moved(OPERATORS[name](dtype), device))
    odd = map_floating(lambda v: layout(v.detach()).requires_grad_() if v.dim() > 0 else v, dense)
    before = [tensor.detach().clone() for tensor in tensors_of(odd)]
    tolerance = 0 if layout is not misaligned else 16 * torch.finfo(dtype).eps  # a product may sum in another order
    for one, other in zip(run(name, odd), run(name, dense), strict=True):
        torch.testing.assert_close(one, other, rtol=20 * tolerance, atol=tolerance)
    assert_same_bits([tensor.detach() for tensor in tensors_of(odd)], before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [64, 63])
def test_misaligned_rows_at_sizes_that_are_read_in_vectors(d, dtype, device):
    x, y = unit_rows(130, d, dtype=dtype).to(device), unit_rows(129, d, dtype=dtype, seed=1).to(device)
    others = unit_rows(129, 2, d, dtype=dtype, seed=2).to(device)
    cost, v = ops.cost(x, y), unit_rows(77, 3, d, dtype=dtype).to(device)
    functions = {
        "cost": (ops.cost, x, y),
        "sinkhorn": (lambda c: ops.sinkhorn(c, epsilon=0.2, max_iter=20).plan, cost),
        "gram": (ops.gram, v),
        "volume": (ops.volume, v),
        "logdet": (lambda v: ops.logdet(ops.gram(v)).logdet, v),
        "volume_scores": (ops.volume_scores, x, others),
        "contrast": (lambda s: ops.contrast(s * 1), cost[:, :129][:129]),
    }
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for name, (function, *tensors) in functions.items():
        found, expected = function(*(misaligned(t) for t in tensors)), function(*tensors)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def test_expanded_inputs(device):
    x = unit_rows(1, 1, 7).to(device).expand(3, 4, 7)
    y = unit_rows(1, 5, 7, seed=1).to(device)
    assert torch.equal(ops.cost(x, y.expand(3, 5, 7)), ops.cost(x.contiguous(), y.expand(3, 5, 7).contiguous()))
    leaf = y.clone().requires_grad_()
    ops.transport(x, leaf.expand(3, 5, 7), epsilon=0.3).plan.square().sum().backward()
    assert leaf.grad.shape == (1, 5, 7)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_upstream_of_any_layout(name, device):
    arguments = with_gradients(moved(OPERATORS[name](torch.float64), device))
    output = differentiable_outputs(name, operator(name)(*arguments))[0]
    upstream = torch.rand(output.shape, dtype=torch.float64).to(device)
    axes = tuple(reversed(range(upstream.dim())))
    for odd in (upstream.new_ones(()).expand(output.shape), upstream.permute(axes).contiguous().permute(axes)):
        grads, again = (
            torch.autograd.grad(output, tensors_of(arguments), u, retain_graph=True, allow_unused=True)
            for u in (odd, odd.contiguous().clone())
        )
        assert all(torch.equal(one, other) for one, other in zip(grads, again, strict=True))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 0)])
def test_leading_sizes(shape, device):
    x, y = unit_rows(*shape, 4, 5).to(device).requires_grad_(), unit_rows(*shape, 6, 5, seed=1).to(device)
    v = unit_rows(*shape, 3, 5).to(device).requires_grad_()
    assert ops.cost(x, y).shape == (*shape, 4, 6)
    result = ops.transport(x, y)
    assert [tuple(out.shape) for out in result] == [(*shape, 4, 6)] * 2 + [(*shape, 4), (*shape, 6), shape, shape]
    value = ops.transport_value(x, y)
    assert value.shape == shape
    logdet = ops.logdet(ops.gram(v))
    assert logdet.info.shape == shape
    assert ops.volume(v).shape == shape
    (result.plan.square().sum() + value.sum()).backward()
    (logdet.logdet.sum() + ops.volume(v).sum()).backward()
    assert x.grad.shape == x.shape and v.grad.shape == v.shape
    torch.cuda.synchronize()


@pytest.mark.parametrize("shape", [((0, 3), (4, 3)), ((4, 3), (0, 3)), ((0, 4, 3), (0, 5, 3)), ((2, 4, 0), (2, 5, 0))])
def test_empty(shape, device):
    x, y = (torch.ones(size, device=device, requires_grad=True) for size in shape)
    cost = ops.cost(x, y)
    assert torch.equal(cost, torch.zeros_like(cost))
    cost.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x)) and torch.equal(y.grad, torch.zeros_like(y))
    none = torch.ones(0, 2, 3, device=device)
    assert ops.volume_scores(torch.ones(4, 3, device=device), none).shape == (4, 0)
    assert ops.volume_scores(torch.ones(0, 3, device=device), none[:0]).shape == (0, 0)
    assert ops.group_volume(
        torch.ones(1, 2, 2, device=device), torch.ones(0, 2, device=device, dtype=torch.int64)
    ).shape == (0,)
    torch.cuda.synchronize()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATORS)
def test_three_times_the_same_bits(name, dtype, device):
    runs = [run(name, with_gradients(moved(OPERATORS[name](dtype), device))) for _ in range(3)]
    assert_same_bits(runs[0], runs[1])
    assert_same_bits(runs[0], runs[2])


def test_large_problems_three_times_the_same_bits(device):
    """Of the sizes at which many blocks share a sum."""
    x = unit_rows(3, 1030, 96, dtype=torch.float32).to(device)
    groups = torch.randint(1030, (50_000, 3), generator=torch.Generator().manual_seed(0)).to(device)

    def once():
        leaf = x.clone().requires_grad_()
        result = ops.transport(leaf[[0, 0, 1]], leaf[[1, 2, 2]], epsilon=0.1, max_iter=30)
        volume = ops.expected_volume(*result.cost.unbind(), result.plan[0], result.plan[1] * 1030)
        scores = ops.volume_scores(leaf[0], leaf[1:].transpose(0, 1))
        total = volume + ops.contrast(scores) + ops.group_volume(result.cost, groups).mean()
        return [*result, volume, scores, total, *torch.autograd.grad(total, leaf)]

    first = [tensor.detach() for tensor in once()]
    for _ in range(2):
        assert_same_bits([tensor.detach() for tensor in once()], first)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m", "d"), [(8, 8, 8), (33, 31, 17), (65, 70, 48), (300, 257, 64)])
def test_a_batch_is_the_loop_over_it(n, m, d, dtype, device):
    x, y = unit_rows(3, n, d, dtype=dtype).to(device), unit_rows(3, m, d, dtype=dtype, seed=1).to(device)
    upstream = torch.rand(3, n, m, dtype=dtype, generator=torch.Generator().manual_seed(2)).to(device)

    def run(x, y, upstream):
        x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
        result = ops.transport(x, y, epsilon=0.1, max_iter=40)
        grads = torch.autograd.grad([result.plan, result.cost], (x, y), [upstream, upstream])
        value = ops.transport_value(x, y, epsilon=0.1)
        return [*result, value, *grads, *torch.autograd.grad(value.sum(), (x, y)), ops.cost(x, y)]

    batch = run(x, y, upstream)
    for i in range(3):
        assert_same_bits([whole[i] for whole in batch], run(x[i], y[i], upstream[i]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_of_groups_is_the_loop_over_it(dtype, device):
    v = unit_rows(37, 4, 19, dtype=dtype).to(device)
    for function in (ops.gram, ops.volume, lambda v: ops.logdet(ops.gram(v)).logdet):
        assert torch.equal(function(v), torch.stack([function(group) for group in v]))
