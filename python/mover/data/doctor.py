"""Checking the media of a manifest: every part of a file that a clip names, once, with a record to go on from.

The record is a file of JSON lines. A line holds what was found of one part and the state of its file (size and time of
change): it counts as long as both are the same. Lines are appended as they come, so that a check that was stopped goes
on where it was, and one that is repeated reads only what is new or has changed.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mover.data.clip import Clip
from mover.data.fingerprint import State, file_state
from mover.data.limits import LIMITS, Limits
from mover.data.media_check import Finding, Part, check, parts_of
from mover.data.progress import progress_bar
from mover.errors import UserError

_VERSION = 1
"""Raised whenever the same file may be judged otherwise than before."""
_HIDDEN = ("corrupt", "too_short", "too_large")
"""Statuses that headers may not show: a look at them does not take these back."""
_AHEAD = 4
"""Parts handed to the threads per thread, so that neither a long manifest nor a slow one holds the others up."""


@dataclass(frozen=True)
class Examination:
    """Clips with what was found of each.

    clips: as they were given. findings: one per clip, modality to what was found. checked, recalled: parts of files
    that were read now, and that the record knew.
    """

    clips: Sequence[Clip]
    findings: Sequence[dict[str, Finding]]
    checked: int
    recalled: int

    def treated(self) -> list[Clip]:
        """The clips with the statuses found; a modality that is fine needs none."""
        return [_with_statuses(clip, found) for clip, found in zip(self.clips, self.findings, strict=True)]


def examine(
    clips: Sequence[Clip],
    record: Path,
    *,
    quick: bool = False,
    again: bool = False,
    workers: int = 2,
    progress: bool = True,
    limits: Limits = LIMITS,
) -> Examination:
    """Check all media that the clips name, with `workers` threads.

    record: file to read and to append to. quick: headers only. again: do not believe the record. limits: what is larger
    is "too_large"; the record is not believed about that.
    Raises UserError when the record cannot be written. What was found until an interruption is in the record.
    """
    named = [parts_of(clip) for clip in clips]
    parts = list(dict.fromkeys(part for found in named for part in found.values()))
    states = {path: file_state(path) for path in dict.fromkeys(part.path for part in parts)}
    folder = os.path.join(os.path.abspath(record.parent), "")
    keys = {part: _key(part, folder) for part in parts}
    known = {} if again else _read_record(record)
    findings: dict[Part, Finding] = {}
    for part in parts:
        earlier = known.get((keys[part], states[part.path], False)) or (
            known.get((keys[part], states[part.path], True)) if quick else None
        )
        if earlier is not None and earlier.status != "too_large":
            findings[part] = earlier
    recalled = len(findings)
    todo = [part for part in parts if part not in findings]
    with _Record(record) as write, progress_bar("checking media", len(todo), progress) as advance:

        def work(part: Part) -> Finding:
            finding = check(part, quick, limits)
            if states[part.path] is not None:
                write(keys[part], states[part.path], finding)  # here, so that whatever stops the rest, this is kept
            return finding

        with closing(_side_by_side(todo, work, workers)) as found:  # and closed before the record is
            for part, finding in found:
                findings[part] = finding
                advance()
    by_clip = [{modality: findings[part] for modality, part in found.items()} for found in named]
    return Examination(clips, by_clip, len(todo), recalled)


def record_of(manifest: Path) -> Path:
    """Where the record of a manifest lies: beside it, data.jsonl → data.doctor.jsonl."""
    return manifest.with_name(f"{manifest.stem}.doctor.jsonl")


def _with_statuses(clip: Clip, findings: dict[str, Finding]) -> Clip:
    status = {
        modality: before
        for modality, before in clip.status.items()
        if modality not in findings or (findings[modality].glanced and before in _HIDDEN)
    }
    status |= {modality: found.status for modality, found in findings.items() if found.status != "ok"}
    return clip if status == clip.status else replace(clip, status=status)


def _key(part: Part, folder: str) -> str:
    """The part as a line of text; a path below the folder of the record is relative to it."""
    path = os.path.abspath(part.path)
    if path.startswith(folder):
        path = path[len(folder) :]
    return json.dumps([_VERSION, part.kind, path, part.start, part.duration, part.row])


def _side_by_side(
    parts: Sequence[Part], work: Callable[[Part], Finding], workers: int
) -> Generator[tuple[Part, Finding], None, None]:
    """What the threads find, as it comes. Closing it waits for what they are at."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="mover-doctor")
    waiting: dict[Future[Finding], Part] = {}
    rest = iter(parts)
    try:
        while True:
            for part in rest:
                waiting[pool.submit(work, part)] = part
                if len(waiting) >= _AHEAD * workers:
                    break
            if not waiting:
                return
            for job in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(job), job.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


Known = dict[tuple[str, State, bool], Finding]
"""Key of a part, state of its file, whether it was only glanced at → what was found."""


def _read_record(path: Path) -> Known:
    """What a record holds. A line that is not one of ours, such as the last one after a crash, counts as not there."""
    known: Known = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    row: dict[str, Any] = json.loads(line)
                    state, glanced = row["state"], bool(row["glanced"])
                    finding = Finding(row["status"], row["reason"], row["facts"], glanced)
                    known[json.dumps(row["part"]), (state[0], state[1]), glanced] = finding
                except (ValueError, KeyError, TypeError, IndexError, RecursionError):
                    continue
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(f"The record {path} cannot be read: {error.strerror}. Name another (--record).") from None
    return known


class _Record:
    """Appends findings to a file, each as soon as it is known; nothing is made before the first one. Threads may write
    side by side."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        self._lock = threading.Lock()

    def __enter__(self) -> Callable[[str, State, Finding], None]:
        return self._write

    def _write(self, key: str, state: State, finding: Finding) -> None:
        row = {"part": json.loads(key), "state": state, "glanced": finding.glanced}
        row |= {"status": finding.status, "reason": finding.reason, "facts": finding.facts}
        line = json.dumps(row) + "\n"
        try:
            with self._lock:
                if self._file is None:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
                    if self._file.tell():
                        line = "\n" + line  # ends what a crash may have left; an empty line is passed over
                self._file.write(line)
                self._file.flush()
        except OSError as error:
            raise UserError(
                f"The record {self._path} cannot be written: {error.strerror}. Make room, or name another (--record)."
            ) from None

    def __exit__(self, *details: object) -> None:
        if self._file is not None:
            self._file.close()
