"""An unfinished file of embeddings: the folder FILE.part, which what was interrupted goes on from.

    video.f32, …    rows as they come, float32, nothing else; zeros where none has come yet
    progress.json   how many batches of each modality are done, and what all of it depends on
    lock            held by the process that writes

The record is written after the rows it tells of are on disk. Whatever stops the process, what it says is true.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mover.durable_file import durable_file, flush
from mover.errors import UserError
from mover.evaluate.embed import EvaluationSet, Piece
from mover.evaluate.embed_inputs import MediaStates, differences
from mover.evaluate.embeddings_content import DiskRows

_VERSION = 1
_SECONDS = 1.0
"""Between two records: what a kill costs."""


@dataclass(frozen=True)
class Basis:
    """What the rows depend on: values of `inputs_of` and `computation_of`, and the states of the media files."""

    inputs: Mapping[str, str]
    computation: Mapping[str, Any]
    media: Mapping[str, MediaStates]


class OutOfDate(UserError):
    """What is in the way was written by `mover embed`, of other clips, weights or settings."""


class Parts:
    """The folder of one file. Use it in a `with` block: at its end, however it ends, what has come is kept.

    Args:
        out: the file.
        data: what is embedded.
        width: of a row.
        batch_size: rows per batch.
        basis: what the rows depend on.
        overwrite: start anew where the folder belongs to something else.
    Attributes: `folder`; `anew`, why what was in the folder was not used, "" where it was or there was nothing.

    Raises:
        UserError: the folder belongs to something else and `overwrite` is false, is in use, or cannot be written.
    """

    def __init__(
        self, out: Path, data: EvaluationSet, width: int, batch_size: int, basis: Basis, *, overwrite: bool
    ) -> None:
        self.folder = folder_of(out)
        self._out, self._data, self._width, self._size, self._basis = out, data, width, batch_size, basis
        self._place = {m: {c.id: i for i, c in enumerate(d.clips)} for m, d in data.datasets.items() if m != "text"}
        self._done = dict.fromkeys(data.datasets, 0)
        self._skipped: dict[str, dict[str, str]] = {}
        self._files: dict[str, BinaryIO] = {}
        self._written = time.monotonic()
        self.anew = ""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.folder)
        except BlockingIOError:
            raise UserError(f"{out} is being written by another process: wait for it, or name another file.") from None
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            self._start(overwrite)
        except BaseException:
            self._lock.close()
            raise

    def _start(self, overwrite: bool) -> None:
        record = self.folder / "progress.json"
        if record.exists():
            self.anew = self._recall()
            if self.anew and not overwrite:
                raise OutOfDate(
                    f"{self.folder} holds what is done of {self.anew}: go on with it as it was begun, start anew with "
                    "--overwrite, or choose another --out."
                )
            if self.anew:
                record.unlink()  # before the rows that it tells of
                flush(self.folder)
        for modality in self._data.datasets:
            self._files[modality] = self._open(modality)
        self._record()

    def _open(self, modality: str) -> BinaryIO:
        """The file of the rows, as long as it will be, zeros wherever no batch that is done has written."""
        rows, done = self._rows(modality), self._done[modality] * self._size
        kept = rows.nbytes if done else 0
        if modality != "text" and 0 < done < self.total(modality):
            kept = self._data.place[self._data.datasets[modality].clips[done].id] * self._width * 4
        try:
            file = open(rows.path, "r+b" if rows.path.exists() else "w+b", buffering=0)  # noqa: SIM115
            file.truncate(kept)
            os.posix_fallocate(file.fileno(), 0, rows.nbytes)  # what has no room is told now
        except OSError as error:
            raise self._unwritable(error) from None
        return file

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"{self.folder} cannot be written: {error.strerror}. Make room, and give the same command again; or name "
            "another file."
        )

    def _recall(self) -> str:
        """Take over what the record says is done; or what it says that the folder belongs to, if that is another."""
        try:
            record = json.loads((self.folder / "progress.json").read_text(encoding="utf-8"))
            if record["version"] != _VERSION:
                return f"a file of another version of this record ({record['version']})"
            changed = differences(record["inputs"], self._basis.inputs, ("missing", "media"))
            changed += differences(record["computation"], self._basis.computation)
            done = {m: int(record["done"].get(m, 0)) for m in self._done}
            changed += [
                f"{m} files that have changed since"
                for m, states in self._basis.media.items()
                if done.get(m) and record["media"][m] != states.digest(done[m] * self._size)
            ]
            if changed:
                return f"a file made of {', '.join(changed)}"
            for m, count in done.items():
                if count and self._path(m).stat().st_size != self._rows(m).nbytes:
                    return f"a file whose {m} rows are not whole"
            self._skipped = {m: dict(reasons) for m, reasons in record["skipped"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return "a file whose record is damaged"
        self._done = done
        return ""

    def done(self, modality: str) -> int:
        """Batches of a modality that need not come again."""
        return self._done[modality]

    def rows_done(self, modality: str) -> int:
        """Captions, or clips that were looked at, in these batches."""
        return min(self._done[modality] * self._size, self.total(modality))

    def total(self, modality: str) -> int:
        """Captions, or clips to look at."""
        return self._data.rows("text") if modality == "text" else len(self._data.datasets[modality])

    def put(self, modality: str, piece: Piece) -> None:
        """Take the rows of a batch, all before it being done."""
        file, bytes_per_row = self._files[modality], self._width * 4
        rows = np.ascontiguousarray(piece.rows, dtype="<f4")
        try:
            for place, row in zip(piece.places, rows, strict=True):
                os.pwrite(file.fileno(), row.data, int(place) * bytes_per_row)
        except OSError as error:
            raise self._unwritable(error) from None
        self._done[modality] = piece.step + 1
        if time.monotonic() - self._written > _SECONDS:
            self.flush()

    def finish(self, modality: str) -> None:
        """All batches of a modality are done, whether or not the last ones gave rows."""
        self._done[modality] = -(-self.total(modality) // self._size)
        self.flush()

    def flush(self) -> None:
        """Bring the rows to disk, then the record."""
        for file in self._files.values():
            os.fsync(file.fileno())
        self._record()

    def _record(self) -> None:
        record = {
            "version": _VERSION,
            "inputs": dict(self._basis.inputs),
            "computation": dict(self._basis.computation),
            "done": self._done,
            "media": {m: s.digest(self._done.get(m, 0) * self._size) for m, s in self._basis.media.items()},
            "skipped": {m: self._undecodable(m) for m in self._place},
        }
        with durable_file(self.folder / "progress.json") as file:
            file.write((json.dumps(record, indent=1) + "\n").encode())
        self._written = time.monotonic()

    def _undecodable(self, modality: str) -> dict[str, str]:
        """Id to reason, of the clips in the batches done whose media turned out to be unusable."""
        place, count = self._place[modality], self._done[modality] * self._size
        now = self._data.skipped.get(modality, {})
        found = self._skipped.get(modality, {}) | {
            n: reason for n, reason in now.items() if place.get(n, count) < count
        }
        return dict(sorted(found.items()))

    def left_out(self) -> dict[str, dict[str, str]]:
        """Modality to id to reason, of all that could not be used, before an interruption or after it."""
        found = {m: self._skipped.get(m, {}) | self._data.skipped.get(m, {}) for m in self._data.datasets}
        return {m: dict(sorted(reasons.items())) for m, reasons in found.items() if reasons}

    def rows(self) -> dict[str, DiskRows]:
        """The rows of all modalities, on disk."""
        return {m: self._rows(m) for m in self._data.datasets}

    def _rows(self, modality: str) -> DiskRows:
        return DiskRows(self._path(modality), self._data.rows(modality), self._width)

    def _path(self, modality: str) -> Path:
        return self.folder / f"{modality}.f32"

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is not None:
                self.flush()
        finally:
            for file in (*self._files.values(), self._lock):
                file.close()

    def remove(self) -> None:
        """The file is whole: the folder goes."""
        shutil.rmtree(self.folder)


def sweep(out: Path) -> None:
    """Remove what a process left that died when the file was whole, or that began to write it again."""
    folder = folder_of(out)
    if folder.is_dir():
        with suppress(OSError), _locked(folder):  # unless one is at work there
            shutil.rmtree(folder)


def _locked(folder: Path) -> BinaryIO:
    """The lock of a folder, held until it is closed. Raises BlockingIOError when another process holds it."""
    file = open(folder / "lock", "wb")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    return file


def folder_of(out: Path) -> Path:
    """Where the parts of a file lie."""
    return out.with_name(f"{out.name}.part")
