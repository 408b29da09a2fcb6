"""The temperature of a contrast, learned as a logarithm."""

import math

import torch
from torch import Tensor, nn

from mover.errors import UserError

LEAST, MOST = 0.01, 1.0


class Temperature(nn.Module):
    """A scalar tau in [0.01, 1]; its logarithm is the parameter (or a buffer, where it is not learned).

    The parameter itself is moved back to the interval before use: a bound on the value alone would leave a parameter
    beyond it without a gradient.
    """

    log: Tensor

    def __init__(self, initial: float, learned: bool = True) -> None:
        """Raises UserError where the initial value lies outside [0.01, 1]."""
        super().__init__()
        if not LEAST <= initial <= MOST:
            raise UserError(f"A temperature must lie in [{LEAST}, {MOST}], got {initial}. Set objective.temperature.")
        log = torch.tensor(math.log(initial))
        if learned:
            self.log = nn.Parameter(log)
        else:
            self.register_buffer("log", log)

    def forward(self) -> Tensor:
        """tau, scalar."""
        if isinstance(self.log, nn.Parameter):
            with torch.no_grad():
                self.log.clamp_(math.log(LEAST), math.log(MOST))
        return self.log.exp()
