"""Rows of a batch by the towers, and their gradient: at once, or in parts, each encoded a second time.

In parts, no more than one part's activations are in memory. The first pass gives the rows; once the objective of the
whole batch has given their gradient, the second pass encodes each part again, with the same dropout, and takes that
part's gradient back through the towers. Gao, Zhang, Han, Callan, "Scaling deep contrastive learning batch size under
memory limited setup" (2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mover.distributed.replicas import without_exchange
from mover.ops.inputs import at_least_float32
from mover.train.device import autocast, random_state, restore_random_state


class Encoding:
    """The rows of a batch.

    rows: modality to float32 (B, d), without gradient; to be given one in `backward`.
    """

    def __init__(
        self, model: nn.Module, batch: Mapping[str, Any], part: int, precision: str, device: torch.device
    ) -> None:
        """
        Args:
            model: of the forward of `MoverModel`.
            batch: B clips, on `device`.
            part: clips encoded at once; 0 for all.
        """
        self._model, self._precision, self._device = model, precision, device
        size = len(next(iter(batch["present"].values())))
        self._parts = [_part(batch, start, start + part) for start in range(0, size, part)] if part else [batch]
        self._states: list[dict[str, Any]] = []
        found = []
        if len(self._parts) == 1:
            self._encoded = self._encode(batch)
            found.append(self._encoded)
        else:
            with torch.no_grad():
                for own in self._parts:
                    self._states.append(random_state(device))
                    found.append(self._encode(own))
        self.rows = {m: torch.cat([rows[m].detach() for rows in found]) for m in found[0]}

    def backward(self, gradients: Mapping[str, Tensor]) -> None:
        """Add to the gradients of the parameters what `gradients`, modality to (B, d), make of them."""
        if len(self._parts) == 1:
            _backward(self._encoded, gradients)
            return
        after = random_state(self._device)
        start = 0
        for number, (own, state) in enumerate(zip(self._parts, self._states, strict=True), 1):
            restore_random_state(state, self._device)
            if number < len(self._parts):
                with without_exchange(self._model):
                    stop = self._again(own, gradients, start)
            else:
                stop = self._again(own, gradients, start)
            start = stop
        restore_random_state(after, self._device)

    def _again(self, part: Mapping[str, Any], gradients: Mapping[str, Tensor], start: int) -> int:
        rows = self._encode(part)
        stop = start + len(next(iter(rows.values())))
        _backward(rows, {m: gradient[start:stop] for m, gradient in gradients.items()})
        return stop

    def _encode(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        with autocast(self._precision, self._device):
            return {m: at_least_float32(rows) for m, rows in self._model(batch).items()}


def _backward(rows: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
    learning = [m for m, found in rows.items() if found.requires_grad]
    torch.autograd.backward([rows[m] for m in learning], [gradients[m] for m in learning])


def _part(batch: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
    """Clips `start` to `stop` of what a model reads of a batch."""
    modalities = batch["present"]
    inputs = {m: {name: tensor[start:stop] for name, tensor in batch[m].items()} for m in modalities}
    return {"present": {m: flags[start:stop] for m, flags in modalities.items()}, **inputs}
