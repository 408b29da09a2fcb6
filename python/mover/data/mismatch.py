"""Clips made wrong on purpose: some of them take what another one has of a modality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mover.data.clip import Clip
from mover.errors import UserError

MISMATCHED = "mismatched"
"""Key under `extra`: modality to the id of the clip that what is there belongs to."""


def mismatched(clips: Sequence[Clip], modality: str, share: float, random: np.random.Generator) -> list[Clip]:
    """The clips, `share` of which have the captions, or the media, of another one of these.

    Of the clips that have the modality, round(share · their number) are drawn; what they have goes round among them, so
    that each part still occurs once and no clip keeps its own, or the like of its own: equal captions, the same file.
    Whose it was is kept under `extra` ("mismatched").

    Raises UserError where fewer than two are drawn, for a share that is not in (0, 1], where so many have the same that
    one would get its own, and for parts of longer files, which cannot be told from their clips.
    """
    if not 0 < share <= 1:
        raise UserError(f"The share of mismatched clips must be above 0 and at most 1, got {share:g}.")
    having = [i for i, clip in enumerate(clips) if clip.present(modality)]
    count = round(share * len(having))
    if count < 2:
        raise UserError(
            f"{share:g} of {len(having)} clips with {modality} is {count}, and it takes two to exchange it. "
            "Raise the share."
        )
    chosen = [having[i] for i in random.permutation(len(having))[:count]]
    values = [_held(clips[i], modality) for i in chosen]
    givers = _exchange(values, random)
    if givers is None:
        raise UserError(
            f"{modality} cannot go round among {count} clips: more than half of them have the same, and one would keep "
            "what it has."
        )
    changed = list(clips)
    for i, giver in zip(chosen, givers, strict=True):
        changed[i] = _with(clips[i], clips[chosen[giver]], modality)
    return changed


def _held(clip: Clip, modality: str) -> Any:
    """What decides whether two clips have the same."""
    if modality == "text":
        return tuple(sorted(clip.captions))
    if modality not in ("video", "audio"):
        return clip.others[modality]
    if clip.start is not None:
        raise UserError(
            f"The clip '{clip.id}' is a part of a longer file, and its {modality} alone cannot be given to another. "
            "Exchange text, or a modality under 'others'."
        )
    return clip.media(modality)


def _exchange(values: Sequence[Any], random: np.random.Generator) -> list[int] | None:
    """For each value the position of another one that is not equal to it, each position once; None if there is no way.

    Equal values lie side by side, in random order, and the round is shifted by the longest such row: with values that
    all differ this is one random cycle.
    """
    groups: dict[Any, list[int]] = {}
    for position in map(int, random.permutation(len(values))):
        groups.setdefault(values[position], []).append(position)
    rows = sorted(groups.values(), key=len, reverse=True)
    longest = len(rows[0])
    if 2 * longest > len(values):
        return None
    order = [position for row in rows for position in row]
    givers = [0] * len(order)
    for place, position in enumerate(order):
        givers[position] = order[(place + longest) % len(order)]
    return givers


def _with(clip: Clip, giver: Clip, modality: str) -> Clip:
    """The clip with what the other one has of a modality."""
    noted = {**clip.extra, MISMATCHED: {**clip.extra.get(MISMATCHED, {}), modality: giver.id}}
    if modality == "text":
        return replace(clip, captions=giver.captions, extra=noted)
    if modality == "video":
        return replace(clip, video=giver.video, extra=noted)
    if modality == "audio":
        return replace(clip, audio=giver.audio, extra=noted)
    return replace(clip, others={**clip.others, modality: giver.others[modality]}, extra=noted)
