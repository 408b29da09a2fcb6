"""How the rows of two modalities are matched, softly: by the entropic plan, or by a softmax of their cosines."""

from typing import NamedTuple

import torch
from torch import Tensor

from mover.config import Coupling, TransportConfig
from mover.errors import UserError
from mover.losses.embeddings import Clips
from mover.losses.transport import Pairs, pair_costs, pair_masses, solve, transport_pairs


class Coupled(NamedTuple):
    """What `couple` returns, one problem per pair of modalities."""

    plans: Tensor  # (pairs, B, B) masses, 0 where either row is not there
    costs: Tensor  # (pairs, B, B) squared distances, of which no pair is lowered


def couple(
    clips: Clips, pairs: Pairs, config: TransportConfig, coupling: Coupling = "transport", aligned: int | None = None
) -> Coupled:
    """Plans of the first modality of each pair to the second; masses a, b uniform over the rows that are there.

    coupling "transport": the entropic plan. "softmax": a_i softmax over the rows j that are there of
    cos_ij / (epsilon / 2), the first half-iteration of the same solution: rows have their masses, columns have not.
    config.guide: pairs that are known, row i with row i for i < `aligned` (None: all rows), have their cost lowered
    by so much before plans are made. `costs` are the true ones.
    The plans have a gradient, the exact one, where config.plan_gradient is "implicit".

    Every modality has to have a row. Raises UserError where `aligned` is not a number of rows of the batch.
    """
    detached = config.plan_gradient == "detached"
    if coupling == "transport" and config.guide == 0:
        solved = transport_pairs(clips, pairs, config)
        return Coupled(solved.plan.detach() if detached else solved.plan, solved.cost)
    costs = pair_costs(clips, pairs)
    lowered = costs.detach() if detached else costs
    if config.guide > 0:
        lowered = lowered - config.guide * _known(costs, aligned)
    a, b = pair_masses(clips, pairs)
    if coupling == "transport":
        return Coupled(solve(lowered, a, b, config).plan, costs)
    return Coupled(_row_softmax(-lowered / config.epsilon, a, b), costs)


def _known(costs: Tensor, aligned: int | None) -> Tensor:
    """(B, B): 1 at (i, i) for the first `aligned` rows, None all; 0 elsewhere."""
    size = costs.shape[-1]
    count = size if aligned is None else aligned
    if not 0 <= count <= size:
        raise UserError(f"Of a batch of {size} clips, expected 0 to {size} to be aligned, got {count}.")
    return torch.diag((torch.arange(size, device=costs.device) < count).to(costs.dtype))


def _row_softmax(logits: Tensor, a: Tensor | None, b: Tensor | None) -> Tensor:
    """logits (pairs, B, B), masses (pairs, B), None uniform -> (pairs, B, B), rows summing to a, 0 where b is 0."""
    if a is None or b is None:
        return torch.softmax(logits, dim=-1) / logits.shape[-1]
    there = (b > 0).unsqueeze(-2)
    return a.unsqueeze(-1) * torch.softmax(logits.masked_fill(~there, -torch.inf), dim=-1)
