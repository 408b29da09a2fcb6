"""Manifests made from others: classes held out of training, modalities taken away, captions exchanged or shared.

All of it happens to the clips of one split, the training clips; those that are evaluated stay as they are, and are only
told whether their class is unseen. Everything drawn by chance is keyed by the seed and by what is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mover.data.clip import Clip
from mover.data.mismatch import mismatched
from mover.data.sampling import generator
from mover.errors import UserError

UNSEEN = "unseen"
"""Key under `extra` of every clip that is not trained on: whether its class is held out of training."""

_CLASSES, _WITHOUT, _SHARED, _MISMATCHED = range(4)


@dataclass(frozen=True)
class Changes:
    """What is changed, in this order.

    unseen: classes to hold out of training. unseen_share: or the share of the classes to hold out, drawn by chance.
    without: modality to the share of the training clips that lose it; no clip loses two.
    shared_captions: so many training clips of a class have the same captions; 1: each its own.
    mismatched: modality to the share of the training clips that have what another one has.
    train_split: the split all of this happens to.
    """

    unseen: tuple[str, ...] = ()
    unseen_share: float | None = None
    without: Mapping[str, float] = field(default_factory=dict)
    shared_captions: int = 1
    mismatched: Mapping[str, float] = field(default_factory=dict)
    train_split: str = "train"
    seed: int = 0


def derive(clips: Sequence[Clip], changes: Changes) -> list[Clip]:
    """The clips of the new manifest, in their order.

    Raises UserError for a change that cannot be made: no such class, modality or split, shares beyond 1, and whatever
    would leave nothing to train on or no unseen class to evaluate.
    """
    split, seed = changes.train_split, changes.seed
    if not any(clip.split == split for clip in clips):
        known = ", ".join(sorted({clip.split for clip in clips}))
        raise UserError(f"No clip belongs to the split '{split}' to train on. The manifest has: {known}.")
    unseen = changes.unseen
    if changes.unseen_share is not None:
        if unseen:
            raise UserError("Classes are held out by name, or by share: give one of the two.")
        unseen = choose_unseen(clips, changes.unseen_share, split, seed)
    if unseen:
        clips = hold_out(clips, unseen, split)
    at = [i for i, clip in enumerate(clips) if clip.split == split]
    training = [clips[i] for i in at]
    if changes.without:
        training = take_away(training, changes.without, seed)
    if changes.shared_captions != 1:
        training = share_captions(training, changes.shared_captions, seed)
    for modality, share in changes.mismatched.items():
        training = mismatched(training, modality, share, generator(seed, _MISMATCHED, *modality.encode()))
    result = list(clips)
    for i, clip in zip(at, training, strict=True):
        result[i] = clip
    return result


def choose_unseen(clips: Sequence[Clip], share: float, train_split: str, seed: int) -> tuple[str, ...]:
    """Class names, sorted: round(share · classes), at least one, of those that are both trained and evaluated on."""
    classes = sorted(_classes(clips, train_split, trained=True) & _classes(clips, train_split, trained=False))
    if len(classes) < 2:
        raise UserError(
            f"Classes can be held out where at least two are both in '{train_split}' and outside of it; here are "
            f"{len(classes)}."
        )
    if not 0 < share < 1:
        raise UserError(f"The share of unseen classes must lie between 0 and 1, got {share:g}.")
    count = min(len(classes) - 1, max(1, round(share * len(classes))))
    return tuple(sorted(classes[i] for i in generator(seed, _CLASSES).permutation(len(classes))[:count]))


def hold_out(clips: Sequence[Clip], unseen: Sequence[str], train_split: str) -> list[Clip]:
    """The clips without the training clips of these classes, and without those whose class is not known.

    Every clip of another split is marked under `extra` ("unseen") with whether its class is one of these; one without
    a label is not marked.
    """
    trained, evaluated = (_classes(clips, train_split, trained=which) for which in (True, False))
    for name in unseen:
        if name not in trained | evaluated:
            some = sorted(trained | evaluated)
            listed = ", ".join(some[:20]) + (", …" if len(some) > 20 else "")
            raise UserError(f"No clip has the class '{name}'. The manifest has: {listed or 'no classes'}.")
        if name not in evaluated:
            raise UserError(f"The class '{name}' has no clip outside of '{train_split}': nothing could be evaluated.")
    if not trained - set(unseen):
        raise UserError("All classes would be held out, and nothing would be left to train on. Keep some.")
    kept = []
    for clip in clips:
        if clip.split != train_split:
            mark = {} if clip.label is None else {UNSEEN: clip.label in unseen}
            kept.append(replace(clip, extra={**clip.extra, **mark}))
        elif clip.label is not None and clip.label not in unseen:
            kept.append(clip)
    return kept


def take_away(clips: Sequence[Clip], shares: Mapping[str, float], seed: int) -> list[Clip]:
    """The clips, a share of which lose a modality: captions are deleted, media get the status "missing".

    The modalities are taken from clips of their own, drawn by chance, so that no clip loses two.
    """
    wrong = [share for share in shares.values() if not 0 < share <= 1]
    if wrong or sum(shares.values()) > 1 + 1e-9:
        told = ", ".join(f"{name} {share:g}" for name, share in shares.items())
        raise UserError(
            f"Expected shares above 0 that add up to at most 1, since no clip loses two modalities; got {told}."
        )
    for name in shares:
        if not any(clip.present(name) for clip in clips):
            raise UserError(f"No training clip has {name}, which could be taken away.")
    changed = list(clips)
    order = generator(seed, _WITHOUT).permutation(len(clips))
    ends = np.rint(np.cumsum(list(shares.values())) * len(clips)).astype(int)
    for name, part in zip(shares, np.split(order, ends)[:-1], strict=True):
        for i in map(int, part):
            changed[i] = _lacking(clips[i], name)
        if not any(clip.present(name) for clip in changed):
            raise UserError(f"No training clip would keep {name}. Leave it out of the run, or lower its share.")
    return changed


def share_captions(clips: Sequence[Clip], count: int, seed: int) -> list[Clip]:
    """The clips in groups of `count`, drawn by chance within a class; all of a group have the captions of its first.

    The last group of a class may be smaller. Clips without a label share among themselves, those without captions do
    not share.
    """
    if count < 2:
        raise UserError(f"Captions are shared by two clips or more, got {count}.")
    classes: dict[str | None, list[int]] = {}
    for i in map(int, generator(seed, _SHARED).permutation(len(clips))):
        if clips[i].captions:
            classes.setdefault(clips[i].label, []).append(i)
    if not classes:
        raise UserError("No training clip has captions that could be shared.")
    changed = list(clips)
    for members in classes.values():
        for place, i in enumerate(members):
            first = clips[members[place - place % count]]
            extra = {**clips[i].extra, "captions_of": first.id}
            changed[i] = replace(clips[i], captions=first.captions, extra=extra)
    return changed


def _classes(clips: Sequence[Clip], train_split: str, *, trained: bool) -> set[str]:
    """The classes of the training clips, or of all others."""
    return {clip.label for clip in clips if clip.label is not None and (clip.split == train_split) == trained}


def _lacking(clip: Clip, modality: str) -> Clip:
    if modality == "text":
        return replace(clip, captions=())
    return replace(clip, status={**clip.status, modality: "missing"}) if clip.media(modality) is not None else clip
