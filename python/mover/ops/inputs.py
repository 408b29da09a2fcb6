"""The types that operators accept: float32 and float64 as they are, half precision raised to float32."""

from typing import overload

import torch
from torch import Tensor


@overload
def at_least_float32(tensor: Tensor) -> Tensor: ...


@overload
def at_least_float32(tensor: None) -> None: ...


def at_least_float32(tensor: Tensor | None) -> Tensor | None:
    """The tensor in float32 where it is float16 or bfloat16 (differentiably), else itself."""
    if tensor is not None and tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor.float()
    return tensor
