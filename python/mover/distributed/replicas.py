"""One model on several processes: replicated (DDP) or in shards (FSDP2), and the proof that replicas stay equal.

Either adds the gradients of all processes up and divides by their number. The objective is that of the whole batch, on
every process the same, and a process sends back the gradient of its own rows only: what is wanted is the sum. So the
gradients of rows are multiplied by the number of processes before they go into the towers.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from mover.config import Parallel
from mover.distributed.world import World
from mover.errors import UserError
from mover.models.model import MoverModel
from mover.models.tower import Tower


def replicate(model: MoverModel, world: World, parallel: Parallel, device: torch.device) -> nn.Module:
    """What a training step calls in place of the model; with `fsdp` the parameters of the model itself are in shards
    from here on."""
    if not world.several:
        return model
    if parallel == "fsdp":
        _shard(model, world, device)
        return model
    # Unused: a batch may lack a modality on one process and not on another. Looking for them also keeps the buckets of
    # the first step for the whole run, so that sums are taken in the same order after a resume.
    devices = [device] if device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the last argument, whose successor older versions lack
        return DistributedDataParallel(
            model,
            device_ids=devices,
            find_unused_parameters=True,
            broadcast_buffers=False,
            bucket_cap_mb=25,  # the default, of which the first bucket would be one of its own: an exchange more
            gradient_as_bucket_view=True,  # no second copy of the gradients
        )


def _shard(model: MoverModel, world: World, device: torch.device) -> None:
    # Towers may give views, and nothing is done to what they give in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view", category=UserWarning)
    mesh = init_device_mesh(device.type, (world.size,))
    before = dict(model.named_parameters())
    for module in _units(model):
        fully_shard(module, mesh=mesh)
    after = dict(model.named_parameters())
    for tower in model.towers.values():
        cast(Tower, tower).exchange_parameters({parameter: after[name] for name, parameter in before.items()})


def _units(model: MoverModel) -> Iterator[nn.Module]:
    """What is gathered at once, parts before the whole: layers, towers, heads."""
    for tower in model.towers.values():
        yield from cast(Tower, tower).layers_apart()
        yield tower
    yield from model.heads.values()


@contextmanager
def without_exchange(model: nn.Module) -> Iterator[None]:
    """Gradients within stay with this process; those of the next backward pass outside are exchanged with them."""
    if isinstance(model, DistributedDataParallel):
        with model.no_sync():
            yield
        return
    shards = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in shards:
        module.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        for module in shards:
            module.set_requires_gradient_sync(True)


def agree(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Give all processes the same gradients of parameters that each computed by itself, those of the first, to the last
    bit, also where their processors round differently."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not (world.several and gradients):
        return
    together = torch.cat([gradient.flatten() for gradient in gradients])
    world.take_of_first(together)
    for gradient, first in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(first.view_as(gradient))


def whole(tensor: Tensor) -> Tensor:
    """The tensor, gathered where it is in shards; then all processes have to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def check_equal(model: nn.Module, world: World, step: int) -> None:
    """Raise on all processes unless all have the same parameters, bit for bit. Shards have no counterpart."""
    if not world.several or any(isinstance(p, DTensor) for p in model.parameters()):
        return
    digest = hashlib.blake2b(digest_size=16)
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    found = world.collect(digest.hexdigest())
    other = next((rank for rank, text in enumerate(found) if text != found[0]), None)
    if other is not None:
        raise UserError(
            f"Step {step}: the weights of process {other} differ from those of process 0, and the checkpoint of this "
            "step was not written. Memory or a processor may be at fault: go on from the last one with --resume."
        )
