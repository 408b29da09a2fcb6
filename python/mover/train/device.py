"""Where a run computes."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from mover.distributed.world import World
from mover.errors import UserError


def pick_device(name: str, world: World | None = None) -> torch.device:
    """The device of that name; "auto" is the first GPU, or the CPU where the operators run on none.

    Where a machine has several processes of `world`, "auto" and "cuda" are a GPU for each.

    Raises:
        UserError: not a device, not on this machine, fewer GPUs than processes, or one for which the operators were
            not built.
    """
    if world is not None and world.several and name in ("auto", "cuda"):
        return _own_gpu(name, world)
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


def _own_gpu(name: str, world: World) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto" and (count == 0 or not operators_run_on(torch.device("cuda", world.local_rank % count))):
        return torch.device("cpu")
    if count < world.local_size:
        raise UserError(
            f"This machine has {world.local_size} processes and {count} usable GPUs: start torchrun with "
            f"--nproc-per-node {max(1, count)}, or set train.device to cpu."
        )
    return pick_device(f"cuda:{world.local_rank}")


def operators_run_on(device: torch.device) -> bool:
    """Whether mover's operators were built for this kind of device, found out by running one."""
    from mover.ops import volume_scores

    row = torch.eye(1, 2, device=device)
    try:
        volume_scores(row, row.unsqueeze(0))
    except RuntimeError:
        return False
    return True


def usable_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory(device: torch.device) -> float:
    """MiB at the highest so far: of what torch allocated on a GPU, else of what the process had in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; on macOS bytes
    return most / (2**20 if sys.platform == "darwin" else 2**10)


KEPT_BYTES = 256 * 2**20
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD = -1, -3, 32 * 2**20  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Have glibc keep up to `KEPT_BYTES` that tensors gave back, rather than return them to the system in one step to
    take them again, page by page, in the next; those above 32 MiB still go back at once.

    Does nothing with another C library, or where the environment has its own word on malloc.
    """
    told = any(name.startswith("MALLOC_") for name in os.environ)
    if told or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_TRIM_THRESHOLD, KEPT_BYTES)


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


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of torch's generators, on the CPU and on `device`, as `restore_random_state` takes it."""
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Set torch's generators; that of a GPU only where one had a state when it was saved."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"][0], device)


@contextmanager
def seeded(key: int, device: torch.device) -> Iterator[None]:
    """Within, torch's generators start from `key`; they go on as before afterwards."""
    before = random_state(device)
    torch.manual_seed(key)
    try:
        yield
    finally:
        restore_random_state(before, device)
