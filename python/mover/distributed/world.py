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
    _words: Any = field(default=None, repr=False)  # the group for what is on the CPU; None: that of the rest

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
            words = None
            if device.type == "cuda":
                torch.cuda.set_device(device)
                dist.init_process_group("nccl", device_id=device, **meeting)
                words = dist.new_group(backend="gloo", timeout=PATIENCE)
            else:  # one group for all: each has threads that wake a hundred times a second
                dist.init_process_group("gloo", timeout=PATIENCE, **meeting)
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

    def gather(self, own: Sequence[torch.Tensor], shares: Sequence[int]) -> list[torch.Tensor]:
        """The rows of all processes, (sum of shares, …), in their order, of each tensor of own ones (shares[rank], …).

        In one exchange, on the device of the first; each comes back on its own. Without gradient. All get the same
        bits, whatever they mean: what travels are bytes.
        """
        if not self.several:
            return list(own)
        most, device = max(shares), own[0].device
        flat = [t.detach().to(device).unsqueeze(-1).flatten(1).contiguous().view(torch.uint8) for t in own]
        lines = torch.cat(flat, dim=1)
        padded = torch.cat([lines, lines.new_zeros(most - len(lines), lines.shape[1])])
        found = lines.new_empty(self.size * most, lines.shape[1])
        dist.all_gather_into_tensor(found, padded, group=self._group(device))
        found = torch.cat([found[rank * most : rank * most + count] for rank, count in enumerate(shares)])
        columns = found.split([t.shape[1] for t in flat], dim=1)
        parts = [part.clone(memory_format=torch.contiguous_format) for part in columns]
        return [part.view(t.dtype).view(-1, *t.shape[1:]).to(t.device) for part, t in zip(parts, own, strict=True)]

    def take_of_first(self, tensor: torch.Tensor) -> None:
        """The values of the first process, in place, on all."""
        if self.several:
            dist.broadcast(tensor, 0, group=self._group(tensor.device))

    def add_up(self, tensor: torch.Tensor) -> None:
        """The sum over all processes, in place; all get the same bits."""
        if self.several:
            dist.all_reduce(tensor, group=self._group(tensor.device))

    def _group(self, device: torch.device) -> Any:
        """That exchanges what is on a device."""
        return self._words if device.type == "cpu" else None

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
