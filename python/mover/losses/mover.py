"""The transport-weighted volume, MOVER eq. 8: matched groups are pulled to a small volume."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mover import ops
from mover.config import TransportConfig
from mover.errors import UserError
from mover.losses.embeddings import anchor_first, check_embeddings
from mover.losses.transport import transport_pairs

MOST_MODALITIES = 3


class MoverLoss(nn.Module):
    """sum over all groups of pi(i_1, ..., i_k) Vol(i_1, ..., i_k), for k = 2 or 3 modalities.

    pi is the star coupling of the entropic plans from the anchor to the other modalities: the plan itself for k = 2,
    plan12[i,j] plan13[i,l] / a_i for k = 3 with uniform masses a_i = 1/B. It is a true coupling and sums to 1, so the
    loss is a mean volume, in [0, 1].
    """

    def __init__(self, modalities: Sequence[str], anchor: str, config: TransportConfig) -> None:
        """Raises UserError for an unknown anchor or more than 3 modalities."""
        super().__init__()
        self.modalities = anchor_first(modalities, anchor)
        self.config = config
        if len(self.modalities) > MOST_MODALITIES:
            raise UserError(
                f"The mover term sums over all groups of at most {MOST_MODALITIES} modalities, got "
                f"{len(self.modalities)}: {self.modalities}. Set objective.mover to 0 or train fewer modalities."
            )

    def forward(self, z: Mapping[str, Tensor]) -> Tensor:
        """z: unit rows (B, d) of every modality -> scalar. Raises UserError for embeddings that do not fit."""
        rows = dict(zip(self.modalities, check_embeddings(z, self.modalities), strict=True))
        result = transport_pairs(rows, self.modalities, self.config)
        plan = result.plan.detach() if self.config.plan_gradient == "detached" else result.plan
        if len(self.modalities) == 2:
            anchor, other = rows.values()
            return (plan[0] * ops.volume_scores(anchor, other.unsqueeze(1))).sum()
        c12, c13, c23 = result.cost
        return ops.expected_volume(c12, c13, c23, plan[0], plan[1] * plan.shape[-1], None)
