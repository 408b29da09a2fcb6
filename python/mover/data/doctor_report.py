"""What an examination of a manifest's media came to: counts, what remains usable, the clips with something amiss."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from mover.data.clip import STATUSES, Clip
from mover.data.doctor import Examination
from mover.data.media_check import Finding

_SHOWN = 10
_NUMBER = re.compile(r"\d+(\.\d+)?")


class Report:
    """Counts over the clips of an examination.

    modalities: those that any of the clips has or should have; a clip has everything when it has all of them, and can
        be used when it has two.
    counts: modality to status to clips. silent: ids of the clips with a sound in which nothing can be heard.
    splits: split to clips listed, those with everything, those that can be used.
    amiss: (id, modality, status, reason) of everything that is not "ok". reasons: how often (modality, status, reason),
    whatever the numbers in the reason.
    """

    def __init__(self, examination: Examination) -> None:
        clips = examination.treated()
        seen = {name for clip in clips for name in (*clip.others, *clip.status, *_tracks(clip))}
        if any(clip.captions for clip in clips):
            seen.add("text")
        first = [name for name in ("text", "video", "audio") if name in seen]
        self.modalities = [*first, *sorted(seen - set(first))]
        self.counts = {name: Counter(_status(clip, name) for clip in clips) for name in self.modalities}
        self.splits: dict[str, dict[str, int]] = {}
        self.silent: list[str] = []
        self.amiss: list[tuple[str, str, str, str]] = []
        self.reasons: Counter[tuple[str, str, str]] = Counter()
        for clip, found in zip(clips, examination.findings, strict=True):
            self._add(clip, found)
        self._rows = [_row(clip, found) for clip, found in zip(clips, examination.findings, strict=True)]

    def _add(self, clip: Clip, found: dict[str, Finding]) -> None:
        has = sum(clip.present(name) for name in self.modalities)
        split = self.splits.setdefault(clip.split, {"clips": 0, "complete": 0, "usable": 0})
        split["clips"] += 1
        split["complete"] += has == len(self.modalities)
        split["usable"] += has >= 2
        if any(finding.facts.get("silent") for finding in found.values()):
            self.silent.append(clip.id)
        for name in self.modalities:
            status = _status(clip, name)
            if status != "ok":
                path = clip.media(name)
                reason = found[name].reason if name in found else "the manifest names none"
                self.amiss.append((clip.id, name, status, reason if path is None else f"{path}: {reason}"))
                self.reasons[name, status, _NUMBER.sub("#", reason)] += 1

    @property
    def code(self) -> int:
        """0: every clip has everything. 1: some do not. 2: not one can be used."""
        totals = Counter[str]()
        for split in self.splits.values():
            totals.update(split)
        return 2 if not totals["usable"] else int(totals["complete"] < totals["clips"])

    def lines(self) -> list[str]:
        """For people: the table, what remains in each split, the first clips with something amiss."""
        statuses = [status for status in STATUSES if any(counts[status] for counts in self.counts.values())]
        head = ["", *statuses]
        rows = [[name, *(str(self.counts[name][status]) for status in statuses)] for name in self.modalities]
        lines = _aligned([head, *rows])
        everything = ", ".join(self.modalities)
        for name, split in self.splits.items():
            lines.append(
                f"{name}: {split['clips']} clips, {split['complete']} with everything ({everything}), "
                f"{split['usable']} with two modalities or more"
            )
        if self.silent:
            lines.append(f"remark: in {_some(self.silent)} the sound is silence; they count as ok")
        if self.amiss:
            lines.append("amiss:")
            width = len(str(max(self.reasons.values())))
            for (modality, status, why), count in self.reasons.most_common(_SHOWN):
                lines.append(f"  {count:>{width}}  {modality} {status}: {why}")
            if len(self.reasons) > _SHOWN:
                lines.append(f"  … and {len(self.reasons) - _SHOWN} more reasons")
            lines.append("the first clips:")
            lines += [f"  {name} {modality} {status}: {why}" for name, modality, status, why in self.amiss[:_SHOWN]]
        if len(self.amiss) > _SHOWN:
            lines.append(f"  … and {len(self.amiss) - _SHOWN} more")
        return lines

    def document(self) -> dict[str, Any]:
        """For programs: everything, JSON values only."""
        return {
            "modalities": self.modalities,
            "counts": {name: dict(counts) for name, counts in self.counts.items()},
            "splits": self.splits,
            "silent": self.silent,
            "reasons": [
                {"modality": modality, "status": status, "reason": why, "clips": count}
                for (modality, status, why), count in self.reasons.most_common()
            ],
            "clips": self._rows,
        }


def _tracks(clip: Clip) -> list[str]:
    return [name for name in ("video", "audio") if clip.media(name) is not None]


def _status(clip: Clip, modality: str) -> str:
    """What a clip's manifest row comes to for a modality that it should have."""
    if clip.present(modality):
        return "ok"
    status = clip.status.get(modality, "missing")
    return "missing" if status == "ok" else status


def _row(clip: Clip, found: dict[str, Finding]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": clip.id, "split": clip.split}
    for name, finding in found.items():
        reason = {"reason": finding.reason} if finding.reason else {}
        row[name] = {"file": str(clip.media(name)), "status": finding.status, **reason, **finding.facts}
    return row


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{len(names)} clips ({shown}{', …' if len(names) > _SHOWN else ''})"
