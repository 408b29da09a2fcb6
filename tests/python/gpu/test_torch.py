"""What every operator owes torch, on a GPU: opcheck, compile, export, autocast and half precision."""

import warnings

import pytest
import torch
from torch._dynamo.utils import counters

from cases.on_device import assert_same_bits, moved
from cases.operators import (
    ALL_OPERATORS,
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


@pytest.fixture
def _fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALL_OPERATORS)
def test_opcheck(name, dtype, device):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.library.opcheck(operator(name), with_gradients(moved(ALL_OPERATORS[name](dtype), device)))


@pytest.mark.parametrize("name", ALL_OPERATORS)
def test_fake_agrees_with_the_kernel(name, device):
    """Shape, type, strides and device, for inputs whose own strides are odd."""
    arguments = moved(ALL_OPERATORS[name](torch.float32), device)
    odd = [v.mT.contiguous().mT if isinstance(v, torch.Tensor) and v.dim() > 1 else v for v in arguments]
    real = outputs_of(operator(name)(*odd))
    with torch._subclasses.FakeTensorMode() as mode:
        faked = [mode.from_tensor(v) if isinstance(v, torch.Tensor) else v for v in odd]
        fake = outputs_of(operator(name)(*faked))
    for one, other in zip(real, fake, strict=True):
        assert (one.shape, one.dtype, one.stride(), one.device) == (
            other.shape,
            other.dtype,
            other.stride(),
            other.device,
        )


def loss_of(name, arguments):
    """A scalar function of the floating-point tensors of an operator's arguments."""

    def function(*tensors):
        remaining = iter(tensors)
        result = operator(name)(*map_floating(lambda _: next(remaining), arguments))
        return torch.stack([output.square().sum() for output in differentiable_outputs(name, result)]).sum()

    return function


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("name", OPERATORS)
def test_compile_of_an_operator(name, device):
    arguments = moved(OPERATORS[name](torch.float32), device)
    function = loss_of(name, arguments)
    compiled = torch.compile(function, fullgraph=True)
    inputs = tensors_of(with_gradients(arguments))
    eager, traced = function(*inputs), compiled(*inputs)
    torch.testing.assert_close(traced, eager)
    for one, other in zip(torch.autograd.grad(traced, inputs), torch.autograd.grad(eager, inputs), strict=True):
        torch.testing.assert_close(one, other)


def step(x, y, z, mask, scale, rows, jitter):
    """Every function of mover.ops once, as a training step would use them."""
    n = x.shape[0]
    result = ops.transport(torch.stack([x, x, y]), torch.stack([y, z, z]), epsilon=0.2)
    group = torch.stack([x, y, z], dim=1)
    scores = ops.volume_scores(x, group[:, 1:])
    return (
        ops.expected_volume(*result.cost.unbind(), result.plan[0], result.plan[1] * n)
        + ops.group_volume(result.cost, rows[:, None].expand(n, 3)).mean()
        + ops.contrast(scores, scale, label_smoothing=0.1)
        + (ops.volume_rank(x, group[:, 1:], rows).better * scores.mean(1)).sum()
        + ops.sinkhorn(result.cost, epsilon=0.1, solver="newton").plan.square().mean()
        + scores.gather(1, ops.volume_topk(x, group[:, 1:], 2).indices).sum()
        + ops.volume_scores(x, group[:, 1:], mask, score="span").mean()
        + ops.transport_value(x, y)
        + ops.sinkhorn(ops.cost(x, y)).plan.square().sum()
        + ops.volume(group, 1e-3).mean()
        + ops.logdet(ops.gram(group) + jitter).logdet.mean()
    )


def embeddings(n, device):
    return [unit_rows(n, 16, dtype=torch.float32, seed=seed).to(device).requires_grad_() for seed in range(3)]


def constants(n, device):
    mask = torch.arange(2) != torch.arange(n)[:, None] % 3
    return moved((mask, torch.tensor(-4.0), torch.arange(n), 1e-6 * torch.eye(3)), device)


def check_step(function, inputs, fixed):
    """Value and gradients of the function against the eager step."""
    eager, traced = step(*inputs, *fixed), function(*inputs, *fixed)
    torch.testing.assert_close(traced, eager)
    traced_gradients = [gradient.clone() for gradient in torch.autograd.grad(traced, inputs)]
    for one, other in zip(traced_gradients, torch.autograd.grad(eager, inputs), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("dynamic", [None, True])
def test_compile_of_a_training_step(dynamic, device):
    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for n in (8, 11, 6):  # without `dynamic` the second size makes the graph dynamic
        check_step(compiled, embeddings(n, device), constants(n, device))


@pytest.mark.usefixtures("_fresh_compiler")
def test_compile_into_cuda_graphs(device):
    """mode="reduce-overhead": the compiled step is captured, and replayed with other inputs."""
    compiled = torch.compile(step, fullgraph=True, mode="reduce-overhead")
    fixed = constants(12, device)
    for turn in range(4):
        torch.compiler.cudagraph_mark_step_begin()
        inputs = [torch.roll(row.detach(), turn, 0).requires_grad_() for row in embeddings(12, device)]
        check_step(compiled, inputs, fixed)
    assert counters["inductor"]["cudagraph_skips"] == 0


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("name", ALL_OPERATORS)
def test_compile_of_an_operator_into_a_cuda_graph(name, device):
    arguments = moved(ALL_OPERATORS[name](torch.float32), device)

    def function(*tensors):
        remaining = iter(tensors)
        return outputs_of(operator(name)(*map_floating(lambda _: next(remaining), arguments)))

    compiled = torch.compile(function, fullgraph=True, mode="reduce-overhead")
    tensors = tensors_of(arguments)
    with torch.no_grad():
        for _ in range(4):
            torch.compiler.cudagraph_mark_step_begin()
            tensors = [tensor * 1.01 for tensor in tensors]
            found = [output.clone() for output in compiled(*tensors)]
            for one, other in zip(found, function(*tensors), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, equal_nan=True)
    assert counters["inductor"]["cudagraph_skips"] == 0


def test_export_of_every_function(device):
    class Step(torch.nn.Module):
        def forward(self, x, y, z, mask, scale, rows, jitter):
            return step(x, y, z, mask, scale, rows, jitter)

    n = torch.export.Dim("n", min=2, max=512)
    shapes = ({0: n}, {0: n}, {0: n}, {0: n}, None, {0: n}, None)
    program = torch.export.export(Step(), (*embeddings(8, device), *constants(8, device)), dynamic_shapes=shapes)
    check_step(program.module(), embeddings(5, device), constants(5, device))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ALL_OPERATORS)
def test_autocast_runs_in_single(name, half, device):
    arguments = map_floating(lambda v: v.to(half), moved(ALL_OPERATORS[name](torch.float32), device))
    expected = operator(name)(*map_floating(torch.Tensor.float, arguments))
    wide_arguments = moved(ALL_OPERATORS[name](torch.float64), device)
    with torch.autocast("cuda", dtype=half):
        under = operator(name)(*arguments)
        wide = operator(name)(*wide_arguments)
    assert_same_bits(outputs_of(under), outputs_of(expected))
    assert outputs_of(wide)[0].dtype == (torch.int64 if name == "volume_rank" else torch.float64)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_functions_raise_half_precision_to_single(half, device):
    x, y = unit_rows(4, 6).to(device, half).requires_grad_(), unit_rows(5, 6, seed=1).to(device, half)
    cost = ops.cost(x, y)
    assert cost.dtype == torch.float32
    assert torch.equal(cost, ops.cost(x.float(), y.float()))
    cost.sum().backward()
    assert x.grad.dtype == half
    assert ops.transport(x, y).plan.dtype == ops.transport_value(x, y).dtype == torch.float32
    assert ops.gram(x).dtype == ops.volume(x[:2]).dtype == torch.float32
    assert ops.volume_scores(x, y.unsqueeze(1)).dtype == torch.float32
    assert ops.contrast(x[:, :4]).dtype == torch.float32


@pytest.mark.parametrize("name", OPERATORS)
def test_refusals_are_those_of_the_cpu(name, device):
    """Double backward and forward mode: the same sentences."""
    arguments = with_gradients(moved(OPERATORS[name](torch.float64), device))
    output = differentiable_outputs(name, operator(name)(*arguments))[0]
    (grad, *_) = torch.autograd.grad(output.square().sum(), tensors_of(arguments), create_graph=True)
    with pytest.raises(RuntimeError, match=f"mover::{name}: double backward is not supported"):
        grad.square().sum().backward()
    with torch.autograd.forward_ad.dual_level():
        primal = arguments[0].detach()
        dual = torch.autograd.forward_ad.make_dual(primal, torch.ones_like(primal))
        with pytest.raises(RuntimeError, match=f"mover::{name}: forward-mode differentiation"):
            operator(name)(dual, *arguments[1:])
