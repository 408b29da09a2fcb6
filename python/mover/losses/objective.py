"""The total objective: weighted terms, and the late start of those that rest on transport. MOVER eq. 11."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from mover.config import MatchedBy, ObjectiveConfig
from mover.errors import UserError
from mover.losses.embeddings import Present, anchor_first, check_embeddings, pairs_of
from mover.losses.gate import trusted_rows
from mover.losses.matching import matched_shares, units_of
from mover.losses.mover import MoverLoss
from mover.losses.rows import Rows
from mover.losses.terms import build_terms
from mover.losses.transport import transport_pairs
from mover.presets import OF_MATCHES, PRESETS, TERMS


def resolve_weights(config: ObjectiveConfig) -> dict[str, float]:
    """The final weight of every term: that of the preset, unless the configuration sets its own."""
    preset = PRESETS[config.preset]
    explicit = {name: getattr(config, name) for name in TERMS}
    return {name: getattr(preset, name) if weight is None else weight for name, weight in explicit.items()}


def build_objective(
    config: ObjectiveConfig, modalities: Sequence[str], pool: tuple[int, int] | None = None
) -> "Objective":
    """The objective of a run. Raises UserError where its settings do not fit each other.

    pool: how many clips there are to train on, and the width of the embeddings; the pool term needs it.
    """
    return Objective(config, modalities, pool)


class Objective(nn.Module):
    """Weighted sum of the terms in TERMS; a term of weight 0 does not exist.

    Contrasts are of the aligned rows of a batch, terms of transport and contrasts of matched positives of all its
    rows, and those of matches of the rows that are not aligned.
    """

    def __init__(self, config: ObjectiveConfig, modalities: Sequence[str], pool: tuple[int, int] | None = None) -> None:
        """Raises UserError if all weights are 0, and what the terms raise."""
        super().__init__()
        self.config = config
        self.modalities = list(modalities)
        self.weights = {name: weight for name, weight in resolve_weights(config).items() if weight > 0}
        if not self.weights:
            raise UserError(f"All weights of the objective are 0. Set one of objective.{', '.join(TERMS)}.")
        self.terms = build_terms(config, self.modalities, self.weights, pool)

    def weight(self, name: str, progress: float) -> float:
        """The weight of a term when the share `progress` of the run is done, in [0, 1].

        The mover term has weight 0 up to `mover_start` and rises linearly over the share `mover_warmup` after it;
        ot_loop and ot_barycenter do so by `ot_start` and `ot_warmup`, those of matches by `matching`.
        """
        full, config = self.weights.get(name, 0.0), self.config
        if name == "mover":
            start, warmup = config.mover_start, config.mover_warmup
        elif name in ("ot_loop", "ot_barycenter"):
            start, warmup = config.ot_start, config.ot_warmup
        elif name in OF_MATCHES:
            start, warmup = config.matching.start, config.matching.warmup
        else:
            return full
        since = progress - start
        if warmup == 0:
            return full if since >= 0 else 0.0
        return full * min(max(since / warmup, 0.0), 1.0)

    def check_batch(self, size: int) -> None:
        """Raises UserError, with the count, where a batch of so many clips makes more groups than memory may hold."""
        for term in self.terms.values():
            if isinstance(term, MoverLoss):
                term.check_batch(size)

    def forward(
        self,
        z: Mapping[str, Tensor],
        progress: float = 1.0,
        present: Present | None = None,
        *,
        step: int = 0,
        aligned: int | None = None,
        together: Collection[str] = (),
        owner: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Every term that has a weight now, unweighted, under its name, and their weighted sum as "total".

        z: unit rows (B, d) of every modality. progress: share of the run that is done, in [0, 1].
        present: which clips have a modality, bool (B,) for each, None all; the other rows may hold anything, and
        their gradient is exactly 0. A term that finds too few rows is 0, with gradient 0.
        step: that of the run, for anchors that rotate.
        aligned: the first so many rows are known to belong together across modalities, None all; of the others
        the order is not used.
        together: modalities whose rows are of one clip everywhere.
        owner: the place of each row among those of its modality in the training set, int64 (B,); for the pool.
        Raises UserError for embeddings that do not fit.
        """
        clips = check_embeddings(z, self.modalities, present)
        present = present if clips.present is not None else None
        size = clips.rows[0].shape[0]
        self.check_batch(size)  # at the first step, also where the term starts late
        rows = Rows(clips, z, present, size if aligned is None else aligned, together, owner)
        by = self.config.gate_by
        if by != "none" and progress >= self.config.gate.start and rows.aligned >= 2:
            self._gate(rows, by)
        active = [name for name in self.weights if self.weight(name, progress) > 0]
        if "pool" in self.weights and "pool" not in active:
            self._pool(rows, step, active=False)
        terms = {name: self._value(name, rows, step) for name in active}
        if not terms:  # before the start of the only term: gradients of 0 rather than none
            return {"total": clips.zero()}
        total = torch.stack([self.weight(name, progress) * term for name, term in terms.items()]).sum()
        return {**terms, "total": total}

    def _value(self, name: str, rows: Rows, step: int) -> Tensor:
        if name == "pool":
            return self._pool(rows, step)
        term = self.terms[name]
        if name in OF_MATCHES:
            enough = rows.size - rows.aligned >= 2
            value: Tensor = term(*rows.unaligned(), together=rows.together) if enough else rows.zero()
        elif name == "pairwise" and rows.together:
            value = term(*rows.trusted(rows.size), aligned=rows.aligned, together=rows.together)
        elif name == "pairwise":
            value = term(*rows.trusted(rows.aligned)) if rows.aligned >= 2 else rows.zero()
        elif name == "volume_contrastive":
            value = term(*rows.trusted(rows.size), step=step, aligned=rows.aligned)
        elif name == "mover":
            value = term(rows.z, rows.present, step=step, aligned=rows.aligned)
        else:
            value = term(rows.z, rows.present)
        return value

    def _pool(self, rows: Rows, step: int, active: bool = True) -> Tensor:
        if rows.size - rows.aligned < 2:
            return rows.zero()
        if rows.owner is None:
            raise ValueError("Expected `owner` for objective.pool.")
        owner = {name: places[rows.aligned :] for name, places in rows.owner.items()}
        z, present = rows.unaligned()
        value: Tensor = self.terms["pool"](z, present, owner=owner, step=step, active=active, together=rows.together)
        return value

    def _gate(self, rows: Rows, by: MatchedBy) -> None:
        """Leave anchors out of the contrasts that the other modalities of their clips do not bear out."""
        names = anchor_first(self.modalities, self.config.anchor)
        z, present = rows.trusted(rows.aligned)
        rows.leave_out(names[0], ~trusted_rows(check_embeddings(z, names, present), by, self.config.gate))

    @torch.no_grad()
    def plans(
        self, z: Mapping[str, Tensor], present: Present | None = None, *, together: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """The plans (B, B) that the objective trains on, each with a sum of 1, or `matching.mass`; no gradient.

        With terms of matches they are those of the matching, from the anchor to each other modality or to those that
        are together, under "text-video+audio": of the shares that it compares with its threshold, 1/B. Otherwise they
        are the entropic plans of every pair of modalities, under "first-second".

        present: which clips have a modality, bool (B,) for each, None all. Masses are uniform over the rows that are
        there, the plan is 0 elsewhere; a modality that no clip has is left out.
        Raises UserError for embeddings that do not fit.
        """
        there = [m for m in self.modalities if present is None or m not in present or bool(present[m].any())]
        if len(there) < 2:
            return {}
        matched = any(name in self.weights for name in OF_MATCHES) and self.config.anchor in there
        names = anchor_first(there, self.config.anchor) if matched else there
        clips = check_embeddings(z, names, present)
        if not matched:
            pairs = pairs_of(range(len(names)))
            plans = transport_pairs(clips, pairs, self.config.transport).plan
            return {f"{names[p]}-{names[q]}": plan for (p, q), plan in zip(pairs, plans, strict=True)}
        units = units_of(names, together)
        shares = matched_shares(clips, self.config.matching, units)
        first, *others = ("+".join(names[m] for m in unit) for unit in units)
        return {f"{first}-{other}": share / len(share) for other, share in zip(others, shares, strict=True)}
