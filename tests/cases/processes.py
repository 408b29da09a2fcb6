"""Functions on several processes that are connected by gloo, and commands under torchrun."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from mover.distributed.world import World


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def on_processes(size: int, function: Callable[..., None], *given: Any) -> None:
    """Call `function(world, *given)` on `size` connected processes; raises where one of them does."""
    torch.multiprocessing.spawn(_process, (size, free_port(), function, given), nprocs=size)


def _process(rank: int, size: int, port: int, function: Callable[..., None], given: Sequence[Any]) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    with World.announced().connected(torch.device("cpu")) as world:
        function(world, *given)


def torchrun(count: int, *words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`torchrun --standalone --nproc-per-node count words…`, run in `folder`, with what it said."""
    return subprocess.run(
        torchrun_command(count, *words), cwd=folder, env=torchrun_environment(**environment), text=True,
        capture_output=True, timeout=600,
    )  # fmt: skip


def torchrun_command(count: int, *words: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", *words]


def torchrun_environment(**more: str) -> dict[str, str]:
    """One thread for each process."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}
