"""No call waits for the GPU: CUDA graphs, streams, and the device that the inputs are on."""

import pytest
import torch

from cases.on_device import assert_same_bits, captured, moved, outputs_and_gradients, upstream_of
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


def as_function(name, arguments):
    """The operator as a function of its floating-point tensors."""

    def function(*tensors):
        remaining = iter(tensors)
        return outputs_of(operator(name)(*map_floating(lambda _: next(remaining), arguments)))

    return function


def with_backward(name, arguments):
    """The same, followed by the gradients of its tensors."""
    function = as_function(name, arguments)

    def forward_and_backward(*tensors):
        outputs = function(*tensors)
        ends = differentiable_outputs(name, outputs)
        upstream = [torch.ones_like(end) for end in ends]
        return *(o.detach() for o in outputs), *torch.autograd.grad(ends, tensors, upstream)

    return forward_and_backward


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALL_OPERATORS)
def test_a_captured_call_follows_its_inputs(name, dtype, device):
    arguments = moved(ALL_OPERATORS[name](dtype), device)
    inputs = tensors_of(arguments)
    others = [tensor.flip(0) * 1.01 if tensor.dim() else tensor * 2 for tensor in inputs]
    function = as_function(name, arguments)
    replay = captured(function, inputs)
    for new in (inputs, others, inputs):
        assert_same_bits(replay(*new), function(*new))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATORS)
def test_a_captured_backward_follows_its_inputs(name, dtype, device):
    arguments = moved(OPERATORS[name](dtype), device)
    inputs = tensors_of(with_gradients(arguments))
    others = [tensor.detach() * 1.01 for tensor in inputs]
    function = with_backward(name, arguments)
    replay = captured(function, inputs)
    for new in (others, inputs):
        leaves = [tensor.detach().clone().requires_grad_() for tensor in new]
        assert_same_bits(replay(*leaves), function(*leaves))


def test_a_captured_transport_takes_as_many_iterations_as_new_inputs_need(device):
    """Captured where it stops at once, replayed where it has to go on, and back."""
    n = 200
    easy = torch.ones(n, 8, device=device), torch.ones(n, 8, device=device)
    x = unit_rows(n, 8, dtype=torch.float32).to(device)
    hard = x, torch.nn.functional.normalize(x + 0.1 * unit_rows(n, 8, dtype=torch.float32, seed=1).to(device), dim=-1)

    def function(x, y):
        return tuple(ops.transport(x, y, epsilon=0.05, max_iter=400, tol=1e-3))

    replay = captured(function, easy)
    counts = []
    for inputs in (hard, easy, hard):
        found = replay(*inputs)
        counts.append(int(found[4]))
        assert_same_bits(found, function(*inputs))
    assert counts[0] == counts[2] > counts[1]


def test_a_captured_training_step_learns(device):
    generator = torch.Generator(device).manual_seed(0)
    rows = [torch.randn(24, 16, device=device, generator=generator) for _ in range(3)]

    def step(*parameters):
        x, y, z = (torch.nn.functional.normalize(p, dim=-1) for p in parameters)
        result = ops.transport(torch.stack([x, x, y]), torch.stack([y, z, z]), epsilon=0.2)
        scores = ops.volume_scores(x, torch.stack([y, z], 1))
        volume = ops.expected_volume(*result.cost.unbind(), result.plan[0], result.plan[1] * len(x))
        loss = volume + ops.contrast(scores, scale)
        return loss.detach(), *torch.autograd.grad(loss, parameters)

    scale = torch.tensor(-5.0, device=device)
    leaves = [row.clone().requires_grad_() for row in rows]
    replay = captured(step, leaves)
    losses = []
    for _ in range(20):
        loss, *gradients = replay(*leaves)
        losses.append(float(loss))
        with torch.no_grad():
            for leaf, gradient in zip(leaves, gradients, strict=True):
                leaf -= 0.5 * gradient
    assert losses[-1] < losses[0] - 0.1


def test_cusolver_is_captured_or_says_that_it_cannot_be(device):
    """Which depends on the version of cuSOLVER; a capture that went through follows its inputs."""
    g = torch.eye(4, device=device).expand(3, 4, 4).contiguous()
    expected = ops.logdet(2 * g, backend="cusolver").logdet.clone()
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    refused = ""
    try:
        with torch.cuda.graph(graph):
            captured = ops.logdet(g, backend="cusolver").logdet
    except RuntimeError as error:
        refused = str(error)
    torch.cuda.synchronize()
    if refused:
        assert "mover::logdet: " in refused and "captur" in refused
    else:
        g *= 2
        graph.replay()
        torch.cuda.synchronize()
        torch.testing.assert_close(captured, expected)
    torch.testing.assert_close(ops.logdet(g, backend="cusolver").logdet, ops.logdet(g).logdet)


@pytest.fixture
def _no_synchronisation():
    """torch raises where it would wait for the GPU."""
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("_no_synchronisation")
@pytest.mark.parametrize("name", ALL_OPERATORS)
def test_no_call_waits(name, device):
    arguments = moved(ALL_OPERATORS[name](torch.float32), device)
    leaves = with_gradients(arguments)
    upstream = upstream_of(differentiable_outputs(name, operator(name)(*arguments)))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    operator(name)(*arguments)
    if name in OPERATORS:
        ends = differentiable_outputs(name, operator(name)(*leaves))
        torch.autograd.grad(ends, tensors_of(leaves), upstream)


@pytest.mark.parametrize("name", ALL_OPERATORS)
def test_another_stream(name, device):
    """The call runs on the current stream: behind what was queued there, and before what comes after."""
    arguments = moved(ALL_OPERATORS[name](torch.float32), device)
    expected = outputs_of(operator(name)(*arguments))
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        late = []
        for value in arguments:
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                empty = torch.full_like(value, torch.nan)
                torch.cuda._sleep(2_000_000)  # a call on another stream would see the NaN
                empty.copy_(value)
                value = empty
            late.append(value)
        found = [output.clone() for output in outputs_of(operator(name)(*late))]
    stream.synchronize()
    assert_same_bits(found, expected)


def test_two_streams_at_once(device):
    """Calls of two streams share no memory."""
    x, y = unit_rows(2, 300, 32, dtype=torch.float32).to(device), unit_rows(2, 300, 32, dtype=torch.float32, seed=1)
    y = y.to(device)
    expected = [ops.transport(x[i], y[i], epsilon=0.1, max_iter=50, tol=0.0) for i in range(2)]
    streams = [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    found = [[], []]
    for _ in range(10):
        for i, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                found[i].append(ops.transport(x[i], y[i], epsilon=0.1, max_iter=50, tol=0.0))
    torch.cuda.synchronize()
    for i in range(2):
        for result in found[i]:
            assert_same_bits(result, expected[i])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
@pytest.mark.parametrize("name", OPERATORS)
def test_the_device_of_the_inputs_not_the_present_one(name):
    second = torch.device("cuda", 1)
    with torch.cuda.device(0):
        found = outputs_and_gradients(name, moved(OPERATORS[name](torch.float32), second))
        assert torch.cuda.current_device() == 0
    with torch.cuda.device(1):
        expected = outputs_and_gradients(name, moved(OPERATORS[name](torch.float32), second))
    for ours, theirs in zip(found, expected, strict=True):
        assert all(tensor.device == second for tensor in ours)
        assert_same_bits(ours, theirs)
