"""Contrast of the groups that a matching is sure of, as if they were known to belong together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn
from torch.nn.functional import embedding

from mover.config import MatchingConfig
from mover.losses.embeddings import Present, anchor_first, check_embeddings
from mover.losses.matching import match_groups, units_of


class ConfidentContrast(nn.Module):
    """share · sum of weight · contrast, over the groups (i, j_2(i), …, j_k(i)) that `match_groups` keeps.

    The matches j are those of the plans from the anchor, without gradient; share is that of the anchor's rows that are
    in a group. So with every row matched right, the term is the contrast of aligned rows, and with none it is 0.

    contrasts: those of the aligned rows with their weights; the term has no parameters of its own.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        anchor: str,
        matching: MatchingConfig,
        contrasts: Sequence[tuple[float, nn.Module]],
    ) -> None:
        """Raises UserError for an unknown anchor."""
        super().__init__()
        self.modalities = anchor_first(modalities, anchor)
        self.matching = matching
        self._contrasts = list(contrasts)  # a plain list: their parameters are not of this module

    def forward(
        self, z: Mapping[str, Tensor], present: Present | None = None, *, together: Collection[str] = ()
    ) -> Tensor:
        """z: unit rows (n, d) of every modality, in any order; present: which are there, bool (n,), None all -> scalar.

        together: modalities in the same order as each other.
        Raises UserError for embeddings that do not fit.
        """
        clips = check_embeddings(z, self.modalities, present)
        if clips.fewest() < 2:
            return clips.zero()
        found = match_groups(clips, self.matching, units_of(self.modalities, together))
        # torch.nn.functional.embedding sums the gradients of rows that repeat in a fixed order
        groups = {name: embedding(found.members[:, m], clips.rows[m]) for m, name in enumerate(self.modalities)}
        kept = dict.fromkeys(self.modalities, found.kept)
        if clips.present is not None:  # of modalities that are together, a group may lack some
            kept = {name: found.kept & clips.present[m][found.members[:, m]] for m, name in enumerate(self.modalities)}
        return contrast_matches(self._contrasts, groups, kept, clips.share(0, found.kept))


def contrast_matches(
    contrasts: Sequence[tuple[float, nn.Module]], groups: Mapping[str, Tensor], there: Present, share: Tensor
) -> Tensor:
    """share · sum of weight · contrast of the groups, rows (n, d) of every modality; there: which of them count."""
    terms = [weight * contrast(groups, there) for weight, contrast in contrasts]
    return share * sum(terms[1:], start=terms[0])
