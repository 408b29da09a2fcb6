"""What the towers have in common: a stack of layers, of which some or none may learn."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MethodType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mover.config import TowerConfig
from mover.errors import UserError


class Tower(nn.Module):
    """An encoder whose body, the part that checkpoints hold, is embeddings, then a stack of layers.

    width: of the vectors it gives. Subclasses with a body call `set_up` at the end of their constructor. What they hold
    beside the body is new in every run: it always learns, and counts as a head.

    `tower(**inputs)` is `tower.finish(tower.body_output(**inputs))`. The body's output is all that the rest needs, so
    that of a frozen body can be kept instead of the inputs.
    """

    width: int
    body_output: Callable[..., Tensor]
    """What the body gives for the inputs of `forward`: float32 (B, *output_shape)."""

    def __init__(self) -> None:
        super().__init__()
        self._depths: dict[nn.Parameter, int] = {}
        self._frozen: list[nn.Module] = []
        self._layers: tuple[nn.Module, ...] = ()

    def finish(self, output: Tensor) -> Tensor:
        """From the body's output, float32 (B, *output_shape), to the tower's, float (B, width)."""
        return output

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the body's output for one row."""
        return (self.width,)

    def fingerprint(self) -> str:
        """Hexadecimal digest of what the body's output depends on beside its inputs: weights, sizes and constants.

        What changes the output by no more than rounding does not count: the device, the attention's kernels.
        """
        digest = hashlib.blake2b(json.dumps([type(self).__name__, self.architecture()], sort_keys=True).encode())
        for name, tensor in sorted(self._body[0].state_dict().items()):
            content = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {content.dtype} {tuple(content.shape)};".encode())
            digest.update(content.view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def architecture(self) -> dict[str, Any]:
        """JSON values that decide, with the weights, what the body computes: sizes, numbers of heads, scales, …

        With them and the configuration the tower is built again without the files of its checkpoint.
        """
        return {}

    def set_up(
        self, field: str, config: TowerConfig, body: nn.Module, layers: nn.ModuleList, above: Sequence[nn.Module] = ()
    ) -> None:
        """Freeze what is not to learn, and prepare layers to be computed again in the backward pass.

        Args:
            field: section of the configuration, for the message.
            config: that section.
            body: the part with the weights of a checkpoint.
            layers: of the body, from the first to the last.
            above: modules of the body behind its last layer; they learn with it.

        Raises:
            UserError: more layers are to learn than there are.
        """
        count = len(layers)
        trained = config.trained_layers
        if trained is not None and trained > count:
            raise UserError(
                f"{field}.trained_layers: the tower has {count} layers, got {trained}. "
                "Give at most as many, or none to train the whole tower."
            )
        self._layers = tuple(layers)
        depths = dict.fromkeys(body.parameters(), count)
        for depth, layer in enumerate(reversed(layers)):
            depths.update(dict.fromkeys(layer.parameters(), depth))
        uses = Counter(parameter for layer in layers for parameter in layer.parameters())
        depths.update({parameter: count for parameter, layers_with_it in uses.items() if layers_with_it > 1})
        depths.update({parameter: 0 for module in above for parameter in module.parameters()})
        self._depths = depths
        self._body = (body,)  # in a tuple: a second name for a module would be a second set of parameters
        if trained is not None:
            for parameter, depth in depths.items():
                parameter.requires_grad_(depth < trained)
            self._frozen = list(_without_gradient(body))
        if config.gradient_checkpointing:
            for layer in layers:
                layer.forward = MethodType(_compute_again, layer)  # a method: copies of the tower get their own
        self.train(self.training)

    def depths(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Every parameter of the body, and how many layers lie above it.

        0: the last layer and what is behind it. The number of layers: embeddings, and what several layers share.
        """
        yield from self._depths.items()

    def layers_apart(self) -> tuple[nn.Module, ...]:
        """The layers of the body whose parameters nothing else reads, from the first to the last."""
        return self._layers

    def exchange_parameters(self, new: Mapping[nn.Parameter, nn.Parameter]) -> None:
        """Know the parameters that have taken the place of others, as when they were put into shards."""
        self._depths = {new[parameter]: depth for parameter, depth in self._depths.items()}

    def train(self, mode: bool = True) -> Self:
        """As for any module, but what is frozen stays in evaluation mode: it has no dropout."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


def folder_architecture(config: Any) -> dict[str, Any]:
    """Of the configuration of a transformers model, what can change its output."""
    neutral = (
        "transformers_version", "dtype", "torch_dtype", "architectures", "hidden_dropout_prob",
        "attention_probs_dropout_prob", "initializer_range",
    )  # fmt: skip
    return {k: v for k, v in config.to_dict().items() if k not in neutral and not k.startswith("_")}


def _without_gradient(module: nn.Module) -> Iterator[nn.Module]:
    """The largest modules below `module`, itself included, that have parameters and none that learns."""
    learns = [parameter.requires_grad for parameter in module.parameters()]
    if learns and not any(learns):
        yield module
    elif learns:
        for child in module.children():
            yield from _without_gradient(child)


def _compute_again(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The forward of a layer that keeps its inputs only; the backward pass computes the rest again, dropout and all."""
    forward = type(layer).forward
    if layer.training and torch.is_grad_enabled():
        return checkpoint(forward, layer, *args, use_reentrant=False, **kwargs)
    return forward(layer, *args, **kwargs)
