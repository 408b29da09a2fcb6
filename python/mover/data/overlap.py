"""Whether two sets share clips: what is evaluated "zero-shot" must not have been trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mover.data.clip import Clip


@dataclass(frozen=True)
class Overlap:
    """Clips of the second set that the first one has too, in the order of the second.

    ids: those whose id is in both. uploads: those cut from an upload that is in both (`extra.youtube_id`; importers
    keep it where the published files say it), whatever their ids are; every id in `ids` is among them.
    of: how many clips the second set has.
    """

    ids: tuple[str, ...]
    uploads: tuple[str, ...]
    of: int


def find_overlap(trained: Sequence[Clip], evaluated: Sequence[Clip]) -> Overlap:
    """What `evaluated` shares with `trained`. A clip without a known upload counts as an upload called by its id."""
    ids = {clip.id for clip in trained}
    uploads = {_upload(clip) for clip in trained}
    return Overlap(
        ids=tuple(clip.id for clip in evaluated if clip.id in ids),
        uploads=tuple(clip.id for clip in evaluated if clip.id in ids or _upload(clip) in uploads),
        of=len(evaluated),
    )


def _upload(clip: Clip) -> str:
    return str(clip.extra.get("youtube_id", clip.id))
