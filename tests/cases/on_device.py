"""Operators run on a device, to be compared with the CPU: arguments moved, outputs, gradients, captured graphs."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cases.operators import Arguments, differentiable_outputs, operator, outputs_of, tensors_of, with_gradients

ITERATED = ("sinkhorn", "transport")  # whose last outputs are n_iter and marginal_error, which may differ


def moved(arguments: Sequence[Any], device: torch.device | str) -> Arguments:
    """The arguments with every tensor on the device."""
    return tuple(value.to(device) if isinstance(value, Tensor) else value for value in arguments)


def upstream_of(outputs: Sequence[Tensor]) -> list[Tensor]:
    """A gradient for every output, the same numbers on every device and in every type."""
    generator = torch.Generator().manual_seed(11)
    return [torch.rand(o.shape, dtype=torch.float64, generator=generator).to(o.device, o.dtype) for o in outputs]


def outputs_and_gradients(name: str, arguments: Arguments) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs of torch.ops.mover.<name> without n_iter and marginal_error, and the gradients of the arguments."""
    leaves = with_gradients(arguments)
    outputs = outputs_of(operator(name)(*leaves))
    ends = differentiable_outputs(name, outputs)
    gradients = torch.autograd.grad(ends, tensors_of(leaves), upstream_of(ends))
    kept = outputs[:-2] if name in ITERATED else outputs
    return [output.detach() for output in kept], list(gradients)


def assert_same_bits(ones: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Equal in every bit, NaN in the same places."""
    for i, (one, other) in enumerate(zip(ones, others, strict=True)):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True, msg=lambda text, i=i: f"[{i}] {text}")


def assert_agree(found: Sequence[Tensor], cpu: Sequence[Tensor], exact: Sequence[Tensor], solved: bool) -> None:
    """What a device returned against the CPU in the same type and in float64 (`exact`).

    float64: to 1e-10. float32: at most twice the CPU's error, and 1e-6 of the largest entry; 1e-5 where an iteration
    or a linear solve ends at a tolerance.
    """
    for i, (ours, theirs, truth) in enumerate(zip(found, cpu, exact, strict=True)):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, i
        ours, theirs = ours.cpu(), theirs.cpu()
        if not ours.is_floating_point():
            assert torch.equal(ours, theirs), f"output {i}"
            continue
        if ours.numel() == 0:
            continue
        truth = truth.cpu().double()
        scale = max(float(truth.abs().max()), 1e-300)
        error = float((ours.double() - truth).abs().max())
        if ours.dtype == torch.float64:
            allowed = 1e-10 * max(scale, 1)
        else:
            allowed = 2 * float((theirs.double() - truth).abs().max()) + (1e-5 if solved else 1e-6) * scale
        assert error <= allowed, f"output {i}: error {error:.3g}, allowed {allowed:.3g}, largest {scale:.3g}"


def captured(function: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """The function as a CUDA graph: new inputs -> its outputs, which the next call overwrites."""
    static = [tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in inputs]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):  # what is made once, such as handles and their memory, may not be made in a capture
            function(*static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = outputs_of(function(*static))

    def replay(*new: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            for tensor, values in zip(static, new, strict=True):
                tensor.copy_(values)
        graph.replay()
        return outputs

    return replay
