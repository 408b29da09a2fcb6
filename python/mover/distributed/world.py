"""The processes of a run, as torchrun starts them, and the exchanges that keep them in step.

A process that torchrun did not start, or the only one that it started, is a world of its own: nothing is exchanged.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from mover.errors import Told, UserError

PATIENCE = timedelta(days=1)
"""How long the others wait while one process fills a cache. A process that dies is noticed at once, by its sockets."""


@dataclass(frozen=True)
class World:
    """The processes of a run.

    rank: of this process, from 0 to size - 1; the first one writes and tells. local_rank: among those of its machine,
    where there are local_size.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    _words: Any = field(default=None, repr=False)  # the group for objects and flags, on the CPU

    @classmethod
    def announced(cls) -> World:
        """The world that torchrun's environment describes; nothing is connected yet.

        Raises:
            UserError: the environment names more than one process, and not all that torchrun sets.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        names = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        absent = [name for name in names if name not in os.environ]
        if absent:
            raise UserError(
                f"The environment says WORLD_SIZE={size}, and not {', '.join(absent)}: start the processes with "
                "torchrun, or unset WORLD_SIZE."
            )
        return cls(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    @contextmanager
    def connected(self, device: torch.device) -> Iterator[World]:
        """This world with its processes connected: by NCCL between GPUs, by gloo between CPUs; and parted again.

        Raises:
            UserError: in place of the error of an exchange that another process did not take part in.
        """
        if not self.several:
            yield self
            return
        try:
            meeting: dict[str, Any] = {"store": self._store(), "rank": self.rank, "world_size": self.size}
            if device.type == "cuda":
                torch.cuda.set_device(device)
                dist.init_process_group("nccl", device_id=device, **meeting)
            else:
                dist.init_process_group("gloo", **meeting)
            words = dist.new_group(backend="gloo", timeout=PATIENCE)
            yield World(self.rank, self.size, self.local_rank, self.local_size, words)
        except RuntimeError as error:
            if not _is_of_an_exchange(error):
                raise
            lines = [*str(error).strip().splitlines(), type(error).__name__]
            raise UserError(
                f"process {self.rank} of {self.size}, on {socket.gethostname()}, lost another one ({lines[0][:200]}): "
                "see what that one said. The run goes on from its last checkpoint with --resume, and by itself under "
                "torchrun --max-restarts."
            ) from None
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()

    def _store(self) -> dist.Store:
        """Where processes leave their addresses. torchrun keeps one through all its restarts, so those of each start
        are kept apart: a process could else look for another where the one that died has been."""
        store, _, _ = next(iter(dist.rendezvous("env://", self.rank, self.size)))
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return dist.PrefixStore(f"start {start} of {self.size}", store)

    def shares(self, count: int) -> list[int]:
        """How many of `count` rows each process has: as many as the others, or one more for the first ones."""
        return [count // self.size + (rank < count % self.size) for rank in range(self.size)]

    def share(self, count: int) -> slice:
        """The rows of this process: processes have consecutive rows, in their order."""
        shares = self.shares(count)
        start = sum(shares[: self.rank])
        return slice(start, start + shares[self.rank])

    def collect(self, value: Any) -> list[Any]:
        """The values of all processes, by rank, on all."""
        if not self.several:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self._words)
        return found

    def wait(self) -> None:
        """Until all are here."""
        if self.several:
            dist.barrier(group=self._words)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process, then the first of each other machine, then the rest: what the earlier ones leave on disk
        is there for the later ones."""
        turn = 0 if self.leads else 1 if self.local_rank == 0 else 2
        for _ in range(turn):
            self.wait()
        try:
            yield
        finally:
            for _ in range(3 - turn):
                self.wait()

    def gather(self, own: torch.Tensor, shares: Sequence[int]) -> torch.Tensor:
        """The rows of all processes, (sum of shares, …), in their order, of the own ones (shares[rank], …).

        On the device of the rows; without gradient. All get the same bits.
        """
        if not self.several:
            return own
        most = max(shares)
        padded = own if len(own) == most else torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])])
        found = own.new_empty(self.size * most, *own.shape[1:])
        group = self._words if own.device.type == "cpu" else None
        dist.all_gather_into_tensor(found, padded.contiguous(), group=group)
        if min(shares) == most:
            return found
        return torch.cat([found[rank * most : rank * most + count] for rank, count in enumerate(shares)])

    def add_up(self, tensor: torch.Tensor) -> None:
        """The sum over all processes, in place; all get the same bits."""
        if self.several:
            dist.all_reduce(tensor, group=self._words if tensor.device.type == "cpu" else None)

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Where one process raises UserError within, all do; who has nothing of its own to say, `Told`.

        Raises:
            UserError.
        """
        try:
            yield
        except UserError as error:
            told = self.collect(str(error))
            if not self.leads and told[0] == str(error):
                raise Told from None
            raise
        if any(text is not None for text in self.collect(None)):
            raise Told


def restarted() -> bool:
    """Whether torchrun has started this process in place of one that failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def _is_of_an_exchange(error: RuntimeError) -> bool:
    """Whether it comes from torch.distributed: its own types, or gloo's, which are plain."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error)
    return any(word in text for word in ("gloo", "Connection closed by peer", "Connection reset", "NCCL"))
