"""The terms of an objective, built from its settings; settings that do not fit each other are refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import nn

from mover.config import ObjectiveConfig
from mover.errors import UserError
from mover.losses.confident import ConfidentContrast
from mover.losses.mover import MoverLoss
from mover.losses.ot_barycenter import OTBarycenterLoss
from mover.losses.ot_loop import OTLoopLoss
from mover.losses.pairwise import PairwiseLoss
from mover.losses.plan_targets import PlanTargetsLoss
from mover.losses.pool import PoolContrast, check_pool
from mover.losses.volume_contrastive import VolumeContrastiveLoss
from mover.presets import OF_MATCHES

CONTRASTS = ("volume_contrastive", "pairwise")
"""The terms that need rows which are known to belong together."""
ANCHORED = ("mover", "volume_contrastive")
"""The terms that may take another anchor at every step."""


def build_terms(
    config: ObjectiveConfig, modalities: Sequence[str], weights: Mapping[str, float], pool: tuple[int, int] | None
) -> nn.ModuleDict:
    """A module for every term that has a weight, in their order.

    pool: how many clips there are to train on, and the width of the embeddings; the pool term needs it.
    Raises UserError for settings that do not fit each other, or the modalities.
    """
    check_options(config, weights)
    terms = nn.ModuleDict({name: _build(name, config, modalities) for name in weights if name not in OF_MATCHES})
    contrasts = [(weights[name], terms[name]) for name in CONTRASTS if name in terms]
    for name in OF_MATCHES:
        if name in weights:
            terms[name] = _build_of_matches(name, config, modalities, contrasts, pool)
    return terms


def _build(name: str, config: ObjectiveConfig, modalities: Sequence[str]) -> nn.Module:
    if name == "mover":
        return MoverLoss(
            modalities,
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
            modalities,
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
        return OTLoopLoss(modalities, config.transport, cycle=config.cycle)
    if name == "ot_barycenter":
        return OTBarycenterLoss(modalities, config.anchor, config.transport, rounds=config.barycenter_rounds)
    try:
        anchor = config.anchor_of_pairs(modalities)
    except ValueError as error:
        raise UserError(f"{error}.") from None
    return PairwiseLoss(
        modalities,
        anchor,
        temperature=config.temperature,
        learn_temperature=config.learn_temperature,
        label_smoothing=config.label_smoothing,
    )


def _build_of_matches(
    name: str,
    config: ObjectiveConfig,
    modalities: Sequence[str],
    contrasts: Sequence[tuple[float, nn.Module]],
    pool: tuple[int, int] | None,
) -> nn.Module:
    matching, anchor = config.matching, config.anchor
    if name == "plan_targets":
        learned = config.learn_temperature
        return PlanTargetsLoss(modalities, anchor, matching, temperature=config.temperature, learn_temperature=learned)
    if not contrasts:
        raise UserError(
            f"objective.{name} contrasts matched groups as the aligned rows are contrasted, and there is no "
            f"contrast. Set one of objective.{', '.join(CONTRASTS)}."
        )
    if name == "confident":
        return ConfidentContrast(modalities, anchor, matching, contrasts)
    if pool is None:
        raise ValueError("Expected the number of clips and the width of the embeddings for objective.pool.")
    clips, width = pool
    check_pool(clips, matching)
    return PoolContrast(modalities, anchor, matching, contrasts, clips=clips, width=width, refresh=matching.refresh)


def check_options(config: ObjectiveConfig, weights: Collection[str]) -> None:
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
    matching = config.matching
    if matching.mass < 1 and matching.by == "softmax":
        raise UserError(
            f"objective.matching.mass: {matching.mass:g} is what a plan transports, and objective.matching.by: softmax "
            "has no plan. Set objective.matching.by to transport, or objective.matching.mass to 1."
        )
    again = [name for name in weights if name in ("confident", "pool")]
    if again and config.positives != "paired" and contrast:
        raise UserError(
            f"objective.{again[0]} contrasts groups that are matched, and objective.positives: {config.positives} "
            f"would match them once more. Set objective.positives to paired, or objective.{again[0]} to 0."
        )
    if config.gate_by != "none" and config.positives == "mixed" and contrast:
        raise UserError(
            "objective.gate leaves out pairs that are in doubt, and objective.positives: mixed contrasts every clip "
            "with its pair as well as its match. Set objective.positives to paired or transport, or objective.gate.by "
            "to none."
        )
