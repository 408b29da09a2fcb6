"""What every operator owes torch: opcheck, fakes, autocast, compile, export, and clear refusals."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from cases.operators import (
    ALL_OPERATORS,
    FORWARD_OPERATORS,
    OPERATORS,
    WITH_BACKWARD,
    differentiable_outputs,
    map_floating,
    operator,
    outputs_of,
    tensors_of,
    unit_rows,
    with_gradients,
)
from mover import ops

DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALL_OPERATORS)
def test_opcheck(name, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.library.opcheck(operator(name), with_gradients(ALL_OPERATORS[name](dtype)))


def test_opcheck_without_marginals():
    x, y = unit_rows(4, 3, dtype=torch.float32).requires_grad_(), unit_rows(5, 3, dtype=torch.float32, seed=1)
    for name in ("transport", "transport_value"):
        torch.library.opcheck(operator(name), (x, y, None, None, 0.1, 10, 1e-3))
    torch.library.opcheck(operator("sinkhorn"), (ops.cost(x, y).detach().requires_grad_(), None, None, 0.1, 10, 1e-3))


def backward_arguments(name):
    """Valid arguments of every backward operator, with every second gradient unwanted."""
    arguments = OPERATORS[name](torch.float32)
    outputs = outputs_of(operator(name)(*arguments))
    grads = [torch.rand_like(output) for output in differentiable_outputs(name, outputs)]
    if name == "sinkhorn":
        return grads[0], outputs[0], 0.3, [True, False, True]
    if name == "transport":
        return *grads, *arguments[:2], outputs[0], 0.3, "float32", [True, False, True, False]
    if name == "transport_value":
        return *grads, *arguments[:4], *outputs[1:], 0.3, "float32", [False, True, False, True]
    if name == "volume_scores":
        anchor, others, mask, *options = arguments
        alphas = operator("volume_scores_with_alphas")(*arguments)[1]
        return *grads, anchor, others, mask, alphas, *options, [False, True]
    if name == "contrast":
        scores, scale, *options = arguments
        return *grads, scores, scale, *outputs[1:], *options, [True, False]
    if name == "cost":
        return *grads, *arguments, [False, True]
    return *grads, *arguments


@pytest.mark.parametrize("name", WITH_BACKWARD)
def test_opcheck_backward(name):
    torch.library.opcheck(operator(f"{name}_backward"), backward_arguments(name))


@pytest.mark.parametrize("name", [*ALL_OPERATORS, *(f"{name}_backward" for name in WITH_BACKWARD)])
def test_fake_agrees_with_the_kernel(name):
    """Shape, type and strides, for inputs whose own strides are odd."""
    forward = name.removesuffix("_backward")
    arguments = backward_arguments(forward) if name != forward else ALL_OPERATORS[name](torch.float32)
    odd = [v.mT.contiguous().mT if isinstance(v, torch.Tensor) and v.dim() > 1 else v for v in arguments]
    real = outputs_of(operator(name)(*odd))
    with torch._subclasses.FakeTensorMode() as mode:
        faked = [mode.from_tensor(v) if isinstance(v, torch.Tensor) else v for v in odd]
        fake = outputs_of(operator(name)(*faked))
    for one, other in zip(real, fake, strict=True):
        assert (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride())


@pytest.mark.parametrize("name", OPERATORS)
def test_gradcheck(name):
    """Through the raw operators: masses and symmetric matrices enter through a parametrisation."""
    arguments = OPERATORS[name](torch.float64)
    tensors = [tensor.clone().requires_grad_() for tensor in tensors_of(arguments)]

    def function(*values):
        values = list(values)
        if name in ("sinkhorn", "transport", "transport_value"):
            first = 1 if name == "sinkhorn" else 2
            values[first:] = [torch.softmax(value, dim=-1) for value in values[first:]]
        if name == "logdet":
            values = [(values[0] + values[0].mT) / 2]
        if name == "volume_scores":
            values = [F.normalize(value, dim=-1) for value in values]
        remaining = iter(values)
        full = map_floating(lambda _: next(remaining), arguments)
        return differentiable_outputs(name, operator(name)(*full))

    assert torch.autograd.gradcheck(function, tensors)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_upstream_of_any_layout(name):
    """Expanded and transposed gradients give what dense ones give."""
    arguments = with_gradients(OPERATORS[name](torch.float64))
    output = differentiable_outputs(name, operator(name)(*arguments))[0]
    upstream = torch.rand(output.shape, dtype=torch.float64)
    axes = tuple(reversed(range(upstream.dim())))
    transposed = upstream.permute(axes).contiguous().permute(axes)
    for odd in (torch.ones((), dtype=torch.float64).expand(output.shape), transposed):
        grads = torch.autograd.grad(output, tensors_of(arguments), odd, retain_graph=True, allow_unused=True)
        again = torch.autograd.grad(
            output, tensors_of(arguments), odd.contiguous().clone(), retain_graph=True, allow_unused=True
        )
        assert all(torch.equal(one, other) for one, other in zip(grads, again, strict=True))


@pytest.mark.parametrize("name", ["volume_topk", "volume_rank"])
def test_operators_without_a_gradient(name):
    """They take inputs that ask for one, and what they return does not."""
    arguments = with_gradients(FORWARD_OPERATORS[name](torch.float64))
    outputs = outputs_of(operator(name)(*arguments))
    assert not any(output.requires_grad for output in outputs)
    plain = outputs_of(operator(name)(*FORWARD_OPERATORS[name](torch.float64)))
    assert all(torch.equal(one, other) for one, other in zip(outputs, plain, strict=True))


@pytest.mark.parametrize("name", OPERATORS)
def test_double_backward_is_refused(name):
    arguments = with_gradients(OPERATORS[name](torch.float64))
    output = differentiable_outputs(name, operator(name)(*arguments))[0]
    (grad, *_) = torch.autograd.grad(output.square().sum(), tensors_of(arguments), create_graph=True)
    with pytest.raises(RuntimeError, match=f"mover::{name}: double backward is not supported"):
        grad.square().sum().backward()


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", ALL_OPERATORS)
def test_forward_mode_is_refused(name, requires_grad):
    arguments = ALL_OPERATORS[name](torch.float64)
    with forward_ad.dual_level():
        primal = arguments[0].clone().requires_grad_(requires_grad)
        dual = forward_ad.make_dual(primal, torch.ones_like(primal))
        with pytest.raises(RuntimeError, match=f"mover::{name}: forward-mode differentiation"):
            operator(name)(dual, *arguments[1:])


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev])
@pytest.mark.parametrize("name", OPERATORS)
def test_function_transforms_are_refused(name, transform):
    arguments = OPERATORS[name](torch.float64)

    def function(first):
        return differentiable_outputs(name, operator(name)(first, *arguments[1:]))[0].sum()

    with pytest.raises(RuntimeError, match=f"mover::{name}: torch.func.grad, vjp and jacrev are not supported"):
        transform(function)(arguments[0])
    with pytest.raises(RuntimeError, match=f"mover::{name}: forward-mode differentiation"):
        torch.func.jvp(function, (arguments[0],), (arguments[0],))


@pytest.mark.parametrize("name", ALL_OPERATORS)
def test_autocast_runs_in_single(name):
    single = ALL_OPERATORS[name](torch.float32)
    half = map_floating(torch.Tensor.bfloat16, single)
    expected = operator(name)(*map_floating(torch.Tensor.float, half))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = operator(name)(*half)
        wide = operator(name)(*ALL_OPERATORS[name](torch.float64))
    for one, other in zip(outputs_of(under), outputs_of(expected), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    assert outputs_of(wide)[0].dtype == (torch.int64 if name == "volume_rank" else torch.float64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_functions_raise_half_precision_to_single(dtype):
    x, y = unit_rows(4, 6).to(dtype).requires_grad_(), unit_rows(5, 6, seed=1).to(dtype)
    cost = ops.cost(x, y)
    assert cost.dtype == torch.float32
    assert torch.equal(cost, ops.cost(x.float(), y.float()))
    cost.sum().backward()
    assert x.grad.dtype == dtype
    assert ops.transport(x, y).plan.dtype == torch.float32
    assert ops.sinkhorn(torch.ones(3, 3, dtype=dtype)).plan.dtype == torch.float32
    assert ops.transport_value(x, y).dtype == torch.float32
    assert ops.gram(x).dtype == ops.volume(x[:2]).dtype == torch.float32
    assert ops.logdet(torch.eye(3, dtype=dtype)).logdet.dtype == torch.float32
    assert ops.volume_scores(x, y.unsqueeze(1)).dtype == torch.float32
    assert ops.group_volume(torch.ones(1, 2, 2, dtype=dtype), torch.zeros(3, 2).long()).dtype == torch.float32
    assert ops.expected_volume(*[torch.ones(2, 2, dtype=dtype)] * 3).dtype == torch.float32


@pytest.mark.parametrize("name", ALL_OPERATORS)
def test_no_gradient_no_graph(name):
    arguments = with_gradients(ALL_OPERATORS[name](torch.float32))
    with torch.no_grad():
        assert not any(output.requires_grad for output in outputs_of(operator(name)(*arguments)))
    with torch.inference_mode():
        assert outputs_of(operator(name)(*arguments))[0].is_inference()


def step(x, y, z):
    """Every function of mover.ops once, as a training step would use them."""
    n = x.shape[0]
    result = ops.transport(torch.stack([x, x, y]), torch.stack([y, z, z]), epsilon=0.2)
    group = torch.stack([x, y, z], dim=1)
    scores = ops.volume_scores(x, group[:, 1:])
    log_volume = ops.logdet(ops.gram(group) + 1e-6 * torch.eye(3)).logdet
    return (
        ops.expected_volume(*result.cost.unbind(), result.plan[0], result.plan[1] * n)
        + ops.group_volume(result.cost, torch.arange(n)[:, None].expand(n, 3)).mean()
        + F.cross_entropy(-scores, torch.arange(n))
        + ops.contrast(scores, torch.tensor(-4.0), label_smoothing=0.1)
        + (ops.volume_rank(x, group[:, 1:], torch.arange(n)).better * scores.mean(1)).sum()
        + ops.sinkhorn(result.cost, epsilon=0.1, solver="newton").plan.square().mean()
        + scores.gather(1, ops.volume_topk(x, group[:, 1:], 2).indices).sum()
        + ops.volume_scores(x, group[:, 1:], torch.arange(2) != torch.arange(n)[:, None] % 3, score="span").mean()
        + ops.transport_value(x, y)
        + ops.sinkhorn(ops.cost(x, y)).plan.square().sum()
        + ops.volume(group, 1e-3).mean()
        + log_volume.mean()
    )


def embeddings(n):
    return [unit_rows(n, 16, dtype=torch.float32, seed=seed).requires_grad_() for seed in range(3)]


@pytest.mark.parametrize("dynamic", [None, True])
def test_compile_without_graph_breaks(dynamic):
    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for n in (8, 11, 6):  # without `dynamic` the second size makes the graph dynamic
        inputs = embeddings(n)
        eager, traced = step(*inputs), compiled(*inputs)
        torch.testing.assert_close(traced, eager)
        for one, other in zip(torch.autograd.grad(traced, inputs), torch.autograd.grad(eager, inputs), strict=True):
            torch.testing.assert_close(one, other)


def test_export_of_every_operator():
    class Step(torch.nn.Module):
        def forward(self, x, y, z):
            return step(x, y, z)

    n = torch.export.Dim("n", min=2, max=512)
    program = torch.export.export(Step(), tuple(embeddings(8)), dynamic_shapes=({0: n}, {0: n}, {0: n}))
    inputs = embeddings(5)
    exported, eager = program.module()(*inputs), step(*inputs)
    assert torch.equal(exported, eager)
    for one, other in zip(torch.autograd.grad(exported, inputs), torch.autograd.grad(eager, inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_export_with_a_dynamic_batch():
    class Step(torch.nn.Module):
        def forward(self, x, y):
            result = ops.transport(x, y, epsilon=0.2)
            rank = ops.volume_rank(x, y.unsqueeze(1), torch.zeros(x.shape[0], dtype=torch.int64))
            return result.plan, ops.volume_scores(x, y.unsqueeze(1)), ops.transport_value(x, y), *rank

    n, m = torch.export.Dim("n", min=2, max=512), torch.export.Dim("m", min=2, max=512)
    x, y = unit_rows(8, 16, dtype=torch.float32), unit_rows(9, 16, dtype=torch.float32, seed=1)
    program = torch.export.export(Step(), (x, y), dynamic_shapes=({0: n}, {0: m}))
    x, y = unit_rows(5, 16, dtype=torch.float32), unit_rows(7, 16, dtype=torch.float32, seed=1)
    for one, other in zip(program.module()(x, y), Step()(x, y), strict=True):
        assert torch.equal(one, other)
