"""Where a run computes."""

from __future__ import annotations

import resource
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from mover.errors import UserError


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first GPU, or the CPU where the operators run on none.

    Raises:
        UserError: not a device, not on this machine, or one for which the operators were not built.
    """
    if name == "auto":
        gpu = torch.device("cuda")
        return gpu if torch.cuda.is_available() and operators_run_on(gpu) else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"The device must be auto, cpu, cuda or cuda:N, got '{name}'.") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"The device must be auto, cpu, cuda or cuda:N, got '{name}'.")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise UserError(f"The device '{name}' is not on this machine, which has {count} usable GPUs; use auto or cpu.")
    if device.type == "cuda" and not operators_run_on(device):
        raise UserError(f"The device '{name}' is here, but mover's operators were built for the CPU only; use cpu.")
    return device


def operators_run_on(device: torch.device) -> bool:
    """Whether mover's operators were built for this kind of device, found out by running one."""
    from mover.ops import volume_scores

    row = torch.eye(1, 2, device=device)
    try:
        volume_scores(row, row.unsqueeze(0))
    except RuntimeError:
        return False
    return True


def peak_memory(device: torch.device) -> float:
    """MiB at the highest so far: of what torch allocated on a GPU, else of what the process had in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; on macOS bytes
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def to_device(value: Any, device: torch.device) -> Any:
    """A batch with all its tensors on `device`; other values as they are."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(entry, device) for key, entry in value.items()}
    return value


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context the towers run in: bfloat16 autocast, or nothing for float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
