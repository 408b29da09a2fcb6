"""What a user would run for plans of pairs and their gradients without `mover`, each at its best.

A peer is a function from a problem to a `Contender`, in a file for each library, which it imports only when called.
The same convention for all: the cost is the full squared distance, epsilon its unit, masses uniform, float32. They stop
at the L1 error of the marginals; where a library tests something else, or only every ten iterations, the number of
iterations that first reaches that error is found before the timing and given to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from problems import Problem
from torch import Tensor


class Contender(NamedTuple):
    plan: Callable[[], Tensor]  # -> (pairs, B, B)
    gradients: Callable[[], tuple[Tensor, Tensor]]  # -> of sum(plan * weight) with respect to x and y; forward included
    note: str = ""
    compiles: bool = False  # the first calls compile


Peer = Callable[[Problem], Contender]


def transport_peers() -> dict[str, Peer]:
    """Those of the transport benchmark, fastest form of each."""
    from peers import compiled, eager, geomloss, ott, pot

    return {
        "eager torch, pair loop": eager.loop,
        "eager torch, batched": eager.batched,
        "torch.compile, pair loop": compiled.loop,
        "POT": pot.loop,
        "POT batch": pot.batch,
        "GeomLoss SamplesLoss": geomloss.samples_loss,
        "geomloss.ot": geomloss.solve,
        "OTT, unrolled": ott.unrolled,
        "OTT, implicit": ott.implicit,
    }


def gradient_peers() -> dict[str, Peer]:
    """Those of the gradients benchmark: every way that they offer to differentiate a plan."""
    from peers import eager, geomloss, ott, pot

    return {
        "eager torch, unrolled, 10 iterations": lambda problem: eager.fixed(problem, 10),
        "eager torch, unrolled, 50 iterations": lambda problem: eager.fixed(problem, 50),
        "eager torch, unrolled, 500 iterations": lambda problem: eager.fixed(problem, 500),
        "eager torch, unrolled": eager.loop,
        "POT, unrolled": pot.loop,
        "POT batch, autodiff": pot.batch,
        "POT batch, last step": lambda problem: pot.batch(problem, grad="last_step"),
        "GeomLoss SamplesLoss, potentials": geomloss.samples_loss,
        "geomloss.ot, plan": geomloss.solve,
        "OTT, unrolled": ott.unrolled,
        "OTT, implicit": ott.implicit,
        "OTT, implicit, ridge .01": lambda problem: ott.implicit(problem, ridge=0.01),
    }
