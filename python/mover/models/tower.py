"""What the three towers have in common: a stack of layers, of which some or none may learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from types import MethodType
from typing import Any, Self

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mover.config import TowerConfig
from mover.errors import UserError


class Tower(nn.Module):
    """An encoder whose body, the part that checkpoints hold, is embeddings, then a stack of layers.

    width: of the vectors it gives. Subclasses call `set_up` at the end of their constructor. What they hold beside the
    body is new in every run: it always learns, and counts as a head.
    """

    width: int

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
        depths = dict.fromkeys(body.parameters(), count)
        for depth, layer in enumerate(reversed(layers)):
            depths.update(dict.fromkeys(layer.parameters(), depth))
        uses = Counter(parameter for layer in layers for parameter in layer.parameters())
        depths.update({parameter: count for parameter, layers_with_it in uses.items() if layers_with_it > 1})
        depths.update({parameter: 0 for module in above for parameter in module.parameters()})
        self._depths = depths
        self._frozen: list[nn.Module] = []
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

    def train(self, mode: bool = True) -> Self:
        """As for any module, but what is frozen stays in evaluation mode: it has no dropout."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


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
