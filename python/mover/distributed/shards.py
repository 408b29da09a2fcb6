"""What a model in shards (FSDP2) leaves in a checkpoint: its weights as those of a whole model, for all that reads
checkpoints, and the state of the optimiser by torch's distributed checkpoint, each process its own part.

It can be resumed by another number of processes, but only in shards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from mover.errors import UserError
from mover.models.model import MoverModel


class Shards:
    """A model in shards with its objective and optimiser. All processes call each method at once."""

    def __init__(self, model: MoverModel, objective: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._model, self._optimizer = model, optimizer
        self._learning = nn.ModuleDict({"model": model, "objective": objective})

    def weights(self) -> dict[str, Tensor]:
        """The state of the whole model on the CPU, on the first process; nothing on the others."""
        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return dict(get_model_state_dict(self._model, options=whole))  # type: ignore[arg-type]

    def save_optimizer(self, folder: Path) -> None:
        """Write the state of the optimiser into `folder`.

        Raises:
            OSError: a process could not write its part; on all of them.
        """
        try:
            dcp.save(self._state(), checkpoint_id=folder)
        except dcp.api.CheckpointException as error:
            cause, _ = next(iter(error.failures.values()))
            raise cause if isinstance(cause, OSError) else OSError(str(cause)) from None

    def load_optimizer(self, folder: Path) -> None:
        """Take it from there.

        Raises:
            UserError: it is not there, damaged, or of another model.
        """
        state = self._state()
        try:
            dcp.load(state, checkpoint_id=folder)
        except (dcp.api.CheckpointException, OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{folder} does not hold the optimiser of these shards ({reason[:200]}): resume with the "
                "train.parallel that it was trained with, or begin with its weights (train.start_from)."
            ) from None
        set_optimizer_state_dict(self._learning, self._optimizer, state["optimizer"])

    def _state(self) -> dict[str, Any]:
        return {"optimizer": get_optimizer_state_dict(self._learning, self._optimizer)}
