"""The total objective: weighted terms, and the late start of those that rest on transport. MOVER eq. 11."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from mover.config import ObjectiveConfig
from mover.errors import UserError
from mover.losses.confident import ConfidentContrast
from mover.losses.embeddings import Clips, Present, anchor_first, check_embeddings, pairs_of
from mover.losses.gate import trusted_rows
from mover.losses.matching import matched_shares, units_of
from mover.losses.mover import MoverLoss
from mover.losses.ot_barycenter import OTBarycenterLoss
from mover.losses.ot_loop import OTLoopLoss
from mover.losses.pairwise import PairwiseLoss
from mover.losses.plan_targets import PlanTargetsLoss
from mover.losses.pool import PoolContrast, check_pool
from mover.losses.transport import transport_pairs
from mover.losses.volume_contrastive import VolumeContrastiveLoss
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


CONTRASTS = ("volume_contrastive", "pairwise")
"""The terms that need rows which are known to belong together."""
ANCHORED = ("mover", "volume_contrastive")
"""The terms that may take another anchor at every step."""


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
        _check_options(config, self.weights)
        self.terms = nn.ModuleDict({name: self._build(name) for name in self.weights if name not in OF_MATCHES})
        for name in OF_MATCHES:
            if name in self.weights:
                self.terms[name] = self._of_matches(name, pool)

    def _of_matches(self, name: str, pool: tuple[int, int] | None) -> nn.Module:
        config, matching = self.config, self.config.matching
        if name == "plan_targets":
            learned = config.learn_temperature
            return PlanTargetsLoss(
                self.modalities, config.anchor, matching, temperature=config.temperature, learn_temperature=learned
            )
        contrasts = [(self.weights[name], self.terms[name]) for name in CONTRASTS if name in self.terms]
        if not contrasts:
            raise UserError(
                f"objective.{name} contrasts matched groups as the aligned rows are contrasted, and there is no "
                f"contrast. Set one of objective.{', '.join(CONTRASTS)}."
            )
        if name == "confident":
            return ConfidentContrast(self.modalities, config.anchor, matching, contrasts)
        if pool is None:
            raise ValueError("Expected the number of clips and the width of the embeddings for objective.pool.")
        clips, width = pool
        check_pool(clips, len(self.modalities) - 1)
        return PoolContrast(
            self.modalities, config.anchor, matching, contrasts, clips=clips, width=width, refresh=matching.refresh
        )

    def _build(self, name: str) -> nn.Module:
        config = self.config
        if name == "mover":
            return MoverLoss(
                self.modalities,
                config.anchor,
                config.transport,
                groups=config.groups,
                topk=config.topk,
                samples=config.samples,
                weights=config.weights,
                volume=config.volume,
                coupling=config.coupling,
                anchoring=config.anchoring,
            )
        if name == "volume_contrastive":
            return VolumeContrastiveLoss(
                self.modalities,
                config.anchor,
                temperature=config.temperature,
                learn_temperature=config.learn_temperature,
                label_smoothing=config.label_smoothing,
                denominator=config.denominator,
                contrast_by=config.contrast_by,
                anchoring=config.anchoring,
                positives=config.positives,
                mixture=config.mixture,
                transport=config.transport,
                coupling=config.coupling,
            )
        if name == "ot_loop":
            return OTLoopLoss(self.modalities, config.transport, cycle=config.cycle)
        if name == "ot_barycenter":
            return OTBarycenterLoss(self.modalities, config.anchor, config.transport, rounds=config.barycenter_rounds)
        try:
            anchor = config.anchor_of_pairs(self.modalities)
        except ValueError as error:
            raise UserError(f"{error}.") from None
        return PairwiseLoss(
            self.modalities,
            anchor,
            temperature=config.temperature,
            learn_temperature=config.learn_temperature,
            label_smoothing=config.label_smoothing,
        )

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
        rows = _Rows(clips, z, present, size if aligned is None else aligned, together, owner)
        if self.config.gate.by != "none" and progress >= self.config.gate.start and rows.aligned >= 2:
            self._gate(rows)
        active = [name for name in self.weights if self.weight(name, progress) > 0]
        if "pool" in self.weights and "pool" not in active:
            self._pool(rows, step, active=False)
        terms = {name: self._value(name, rows, step) for name in active}
        if not terms:  # before the start of the only term: gradients of 0 rather than none
            return {"total": clips.zero()}
        total = torch.stack([self.weight(name, progress) * term for name, term in terms.items()]).sum()
        return {**terms, "total": total}

    def _value(self, name: str, rows: "_Rows", step: int) -> Tensor:
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

    def _pool(self, rows: "_Rows", step: int, active: bool = True) -> Tensor:
        if rows.size - rows.aligned < 2:
            return rows.zero()
        if rows.owner is None:
            raise ValueError("Expected `owner` for objective.pool.")
        owner = {name: places[rows.aligned :] for name, places in rows.owner.items()}
        z, present = rows.unaligned()
        value: Tensor = self.terms["pool"](z, present, owner=owner, step=step, active=active, together=rows.together)
        return value

    def _gate(self, rows: "_Rows") -> None:
        """Leave anchors out of the contrasts that the other modalities of their clips do not bear out."""
        names = anchor_first(self.modalities, self.config.anchor)
        z, present = rows.trusted(rows.aligned)
        rows.leave_out(names[0], ~trusted_rows(check_embeddings(z, names, present), self.config.gate))

    @torch.no_grad()
    def plans(
        self, z: Mapping[str, Tensor], present: Present | None = None, *, together: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """The plans (B, B) that the objective trains on, each with a sum of 1; no gradient.

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


class _Rows:
    """The rows of a batch, the first `aligned` of them known to belong together."""

    def __init__(
        self,
        clips: Clips,
        z: Mapping[str, Tensor],
        present: Present | None,
        aligned: int,
        together: Collection[str],
        owner: Mapping[str, Tensor] | None,
    ) -> None:
        self.z, self.present, self.aligned, self.together, self.owner = z, present, aligned, together, owner
        self.zero = clips.zero
        self.size = clips.rows[0].shape[0]
        self._doubted: dict[str, Tensor] = {}

    def unaligned(self) -> tuple[Mapping[str, Tensor], Present | None]:
        """The rows whose order says nothing, and which of them are there."""
        return _part(self.z, self.present, self.aligned, self.size)

    def leave_out(self, modality: str, rows: Tensor) -> None:
        """Let contrasts not see these of the aligned rows of a modality, bool (aligned,)."""
        self._doubted[modality] = rows

    def trusted(self, count: int) -> tuple[Mapping[str, Tensor], Present | None]:
        """The first `count` rows, and which of them contrasts are to see."""
        there = dict(self.present or {})
        for modality, doubted in self._doubted.items():
            seen = there.get(modality)
            seen = torch.ones(self.size, dtype=torch.bool, device=doubted.device) if seen is None else seen.clone()
            seen[: self.aligned] &= ~doubted
            there[modality] = seen
        return _part(self.z, there or None, 0, count)


def _part(
    z: Mapping[str, Tensor], present: Present | None, first: int, end: int
) -> tuple[Mapping[str, Tensor], Present | None]:
    """The embeddings of the rows first … end - 1, and which of them are there."""
    cut = None if present is None else {m: flags[first:end] for m, flags in present.items()}
    return {m: rows[first:end] for m, rows in z.items()}, cut


def _check_options(config: ObjectiveConfig, weights: Collection[str]) -> None:
    """Raises UserError where an option is set that concerns no term of the objective."""
    anchored = [name for name in ANCHORED if name in weights]
    contrast = [name for name in anchored if name == "volume_contrastive"]
    coupled = [name for name in anchored if name == "mover" or config.positives != "paired"]
    options = {
        "positives": (config.positives, "paired", contrast, "the volume contrast"),
        "contrast_by": (config.contrast_by, "volume", contrast, "the volume contrast"),
        "anchoring": (config.anchoring, "fixed", anchored, "the mover term and the volume contrast"),
        "coupling": (config.coupling, "transport", coupled, "the mover term and positives that are matched"),
        "transport.guide": (config.transport.guide, 0.0, coupled, "the mover term and positives that are matched"),
    }
    for name, (value, default, concerned, what) in options.items():
        if value != default and not concerned:
            raise UserError(
                f"objective.{name}: {value} concerns {what}, and this objective is made of {', '.join(weights)}. "
                f"Set objective.{name} to {default}, or give one of them a weight."
            )
    again = [name for name in weights if name in ("confident", "pool")]
    if again and config.positives != "paired" and contrast:
        raise UserError(
            f"objective.{again[0]} contrasts groups that are matched, and objective.positives: {config.positives} "
            f"would match them once more. Set objective.positives to paired, or objective.{again[0]} to 0."
        )
    if config.gate.by != "none" and config.positives == "mixed" and contrast:
        raise UserError(
            "objective.gate leaves out pairs that are in doubt, and objective.positives: mixed contrasts every clip "
            "with its pair as well as its match. Set objective.positives to paired or transport, or objective.gate.by "
            "to none."
        )
