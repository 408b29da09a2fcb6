"""The embeddings that losses take: one (B, d) tensor of unit rows per modality, in the order of the run."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from torch import Tensor

from mover.errors import UserError
from mover.ops.inputs import at_least_float32


def check_embeddings(z: Mapping[str, Tensor], modalities: Sequence[str]) -> list[Tensor]:
    """The rows of every modality, in order, in float32 or float64.

    Raises UserError where a modality is missing, shapes differ or are not (B, d), or B < 2: losses compare clips
    with each other.
    """
    missing = [name for name in modalities if name not in z]
    if missing:
        raise UserError(f"The objective needs embeddings of {list(modalities)}; {missing} are missing from {list(z)}.")
    rows = [z[name] for name in modalities]
    shapes = {name: tuple(z[name].shape) for name in modalities}
    if rows[0].dim() != 2 or len(set(shapes.values())) != 1:
        raise UserError(f"Embeddings must have the same shape (B, d) in every modality, got {shapes}.")
    if rows[0].shape[0] < 2:
        raise UserError(
            f"The objective compares clips with each other and needs a batch of at least 2, got {rows[0].shape[0]}. "
            "Raise train.batch_size, or drop the last incomplete batch."
        )
    return [at_least_float32(tensor) for tensor in rows]


def anchor_first(modalities: Sequence[str], anchor: str) -> list[str]:
    """The modalities with the anchor in front, the others in their order. Raises UserError if it is not there."""
    if anchor not in modalities:
        raise UserError(f"The anchor '{anchor}' is not among the modalities {list(modalities)}.")
    return [anchor, *(name for name in modalities if name != anchor)]


def pairs_of(modalities: Sequence[str]) -> list[tuple[str, str]]:
    """All pairs in lexicographic order of position: (1, 2), (1, 3), ..., (k-1, k)."""
    return list(combinations(modalities, 2))
