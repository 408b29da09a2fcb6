"""How an operator of libmover_torch becomes differentiable, traceable and safe under autocast.

The shared object brings schemas and kernels; each stage of `mover.ops` adds the rest with one call per operator:
`register_operator`, or `register_without_gradient`. The gradient is an `autograd.Function` below the operator itself,
so `loss.backward()` works through `torch.ops.mover` whoever calls it. (`torch.library.register_autograd` would do, but
it lets forward-mode differentiation pass through and return zeros.)
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from mover._load import load_cuda_library, load_library

load_library()
_no_cuda_because = load_cuda_library()
_library = torch.library.Library("mover", "FRAGMENT")

Gradients = tuple[Tensor | None, ...]


class Context(Protocol):
    """The part of autograd's `ctx` that rules use; they may add attributes of their own."""

    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None: ...

    def mark_non_differentiable(self, *outputs: Tensor) -> None: ...

    def __setattr__(self, name: str, value: Any) -> None: ...

    def __getattr__(self, name: str) -> Any: ...


SetupContext = Callable[[Context, tuple[Any, ...], Any], None]
# (ctx, which inputs want a gradient, gradient of each output or None) -> gradient of each input or None
BackwardRule = Callable[..., Gradients]


def register_operator(
    name: str,
    *,
    fake: Callable[..., Any],
    setup_context: SetupContext,
    backward: BackwardRule,
    fake_backward: Callable[..., Any] | None = None,
    keeping: str | None = None,
) -> None:
    """Registers the rules of `mover::<name>` and of `mover::<name>_backward`.

    `fake` and `fake_backward` return empty tensors of the shapes, types and strides that the kernels return.
    `setup_context(ctx, inputs, outputs)` keeps what `backward(ctx, needs, *gradients)` uses. Under autocast the
    operator runs in float32 (in float64 where its inputs are).

    `keeping` names the operator that runs instead where a gradient is wanted: it takes the same inputs, and `needs`
    where its schema ends with that, and returns the outputs of this one followed by what else `setup_context` is to
    keep. Without `fake_backward` there is no operator
    of the name `<name>_backward`: the rule uses another.
    """
    _register_forward(name, fake)
    _register_gradient(name, setup_context, backward, keeping)
    if fake_backward is None:
        return
    torch.library.register_fake(f"mover::{name}_backward", fake_backward)

    def no_double_backward(ctx: Context, needs: Sequence[bool], *gradients: Tensor | None) -> Gradients:
        refuse_double_backward(name)
        return ()

    _register_gradient(f"{name}_backward", _no_context, no_double_backward)


def register_without_gradient(name: str, *, fake: Callable[..., Any]) -> None:
    """Registers the rules of an operator whose outputs carry no gradient, whatever its inputs ask for."""
    _register_forward(name, fake)

    def none_differentiable(ctx: Context, inputs: tuple[Any, ...], outputs: Any) -> None:
        ctx.mark_non_differentiable(*((outputs,) if isinstance(outputs, Tensor) else outputs))

    def unreachable(ctx: Context, needs: Sequence[bool], *gradients: Tensor | None) -> Gradients:
        raise RuntimeError(f"mover::{name} has no gradient")

    _register_gradient(name, none_differentiable, unreachable)


def _no_context(ctx: Context, inputs: tuple[Any, ...], outputs: Any) -> None:
    pass


def _register_forward(name: str, fake: Callable[..., Any]) -> None:
    """What an operator needs besides its gradient: fake, autocast, a sentence where there is no kernel."""
    torch.library.register_fake(f"mover::{name}", fake)
    for device_type in ("cpu", "cuda"):
        torch.library.register_autocast(f"mover::{name}", device_type, torch.float32)
    _refuse_cuda(name)


def _refuse_cuda(name: str) -> None:
    """A sentence in place of the dispatcher's page, where there are no CUDA kernels."""
    if not _no_cuda_because:
        return

    def refuse(*inputs: Any) -> None:
        raise RuntimeError(f"mover::{name}: the inputs are on a CUDA device, but {_no_cuda_because}.")

    _library.impl(name, refuse, "CUDA")


def _register_gradient(
    name: str, setup_context: SetupContext, backward: BackwardRule, keeping: str | None = None
) -> None:
    operator = getattr(torch.ops.mover, name).default
    recorded = getattr(torch.ops.mover, keeping).default if keeping else operator
    outputs_count = len(operator._schema.returns)
    takes_needs = len(recorded._schema.arguments) > len(operator._schema.arguments)
    defaults = [argument.default_value for argument in operator._schema.arguments]

    def refuse_forward_mode() -> None:
        raise RuntimeError(
            f"mover::{name}: forward-mode differentiation (torch.func.jvp, dual tensors) is not supported. "
            "Use reverse mode: torch.autograd.grad or backward()."
        )

    def below_autograd(target: Any, keyset: Any, inputs: tuple[Any, ...]) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return target.redispatch(keyset & torch._C._after_autograd_keyset, *inputs)

    class Gradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, keyset: Any, *inputs: Any) -> Any:
            needs = (list(ctx.needs_input_grad[1:]),) if takes_needs else ()
            outputs = below_autograd(recorded, keyset, inputs + needs)
            ctx.set_materialize_grads(False)
            setup_context(ctx, inputs, outputs)
            if keeping is None:
                return outputs
            return outputs[0] if outputs_count == 1 else outputs[:outputs_count]

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor | None) -> Gradients:
            needs = ctx.needs_input_grad[1:]
            if all(gradient is None for gradient in gradients):
                return (None,) * (len(needs) + 1)
            computed = backward(ctx, needs, *gradients)
            wanted = (gradient if need else None for gradient, need in zip(computed, needs, strict=True))
            return (None, *wanted)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            refuse_forward_mode()

    Gradient.__name__ = Gradient.__qualname__ = f"{name}_gradient"

    def kernel(keyset: Any, *inputs: Any) -> Any:
        inputs += tuple(defaults[len(inputs) :])  # the dispatcher drops arguments that equal their default
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
            refuse_forward_mode()
        if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in tensors):
            return below_autograd(operator, keyset, inputs)
        if torch._C._are_functorch_transforms_active():
            raise RuntimeError(
                f"mover::{name}: torch.func.grad, vjp and jacrev are not supported. "
                "Use torch.autograd.grad or backward()."
            )
        return Gradient.apply(keyset, *inputs)

    _library.impl(name, kernel, "Autograd", with_keyset=True)


class _Once(torch.autograd.Function):
    """The tensor itself; a sentence where it is differentiated."""

    @staticmethod
    def forward(ctx: Any, name: str, gradient: Tensor) -> Tensor:
        ctx.name = name
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        refuse_double_backward(ctx.name)


def once_differentiable(name: str, gradient: Tensor) -> Tensor:
    """A gradient made by torch operations in the rule of `mover::<name>`, which must not be differentiated again."""
    return _Once.apply(name, gradient) if torch.is_grad_enabled() else gradient


def refuse_double_backward(name: str) -> None:
    """Raises the sentence of all operators."""
    raise RuntimeError(
        f"mover::{name}: double backward is not supported. Call backward or torch.autograd.grad without "
        "create_graph, or take the second derivative of mover.reference."
    )


def gradient_shape(like: Tensor, needed: bool) -> Tensor:
    """What a backward operator returns for an input: its gradient, or the shape (0) where it is not needed."""
    return like.new_empty(like.shape if needed else (0,))
