"""What frozen towers gave for clips and captions, kept on disk under names that only fit what they were made from.

    <folder>/<modality>-<hash>/about.json       the settings and the tower that the hash stands for
    <folder>/<modality>-<hash>/outputs.sqlite   an array per key, or why there is none

The folder's name covers the settings and the weights, an entry's key the content of the media file or the caption.
Whatever changes has another name, and is computed again; what no name leads to any more is only a folder to delete.
One SQLite file holds all entries: what is committed survives a kill, and processes may share it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mover.data.clip import Clip
from mover.data.fingerprint import Fingerprints
from mover.data.manifest import write_atomically
from mover.data.media_error import MediaError
from mover.errors import UserError

VERSION = 1
"""Part of every name. It goes up when decoding, sampling or a tower computes something else from equal inputs."""

_FLOAT = np.dtype("<f4")
_KEYS_AT_ONCE = 500
_SECONDS_TO_WAIT = 60.0
_OUTPUTS = "outputs.sqlite"
_TIMED = ("video", "audio")


def stored_bytes(folder: Path) -> dict[Path, int]:
    """The folder of every tower and set of settings in the cache, and the bytes of its outputs."""
    return {path.parent: path.stat().st_size for path in sorted(folder.glob(f"*/{_OUTPUTS}"))}


@dataclass(frozen=True)
class Fault:
    """Why there is no output: a status of the manifest other than "ok", and the words of the decoder."""

    status: str
    detail: str


class FeatureStore:
    """The outputs of one tower under one set of settings. Threads may share it, and processes its folder.

    Args:
        folder: of all caches.
        modality: what the outputs are of.
        shape: of one output.
        settings: JSON values; everything the outputs depend on but the clip or caption.
    Attributes: `folder`, its own; `shape`.

    Raises:
        UserError: the folder cannot be written, or what is in it is damaged.
    """

    def __init__(self, folder: Path, modality: str, shape: tuple[int, ...], settings: Mapping[str, Any]) -> None:
        self.shape = shape
        about = {"cache version": VERSION, "modality": modality, "shape of an output": list(shape), **settings}
        text = json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        self.folder = Path(folder) / f"{modality}-{hashlib.blake2b(text.encode(), digest_size=10).hexdigest()}"
        self._path = self.folder / _OUTPUTS
        self._bytes = int(np.prod(shape)) * _FLOAT.itemsize
        self._lock = threading.Lock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "about.json").exists():
                write_atomically(self.folder / "about.json", text)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written: {error.strerror}. Set data.cache_folder.") from None
        try:
            self._database = self._open()
        except sqlite3.Error as error:
            self._complain(error)

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=_SECONDS_TO_WAIT, isolation_level=None, check_same_thread=False)
        # The journal stays the default one: a write-ahead log needs memory that network file systems cannot share.
        # A row of a few KiB shares its page with others of its kind; a longer one has pages of its own.
        database.execute(f"PRAGMA page_size = {16384 if self._bytes < 8192 else 4096}")
        database.execute("CREATE TABLE IF NOT EXISTS outputs (key BLOB PRIMARY KEY, value BLOB, fault TEXT)")
        return database

    def __len__(self) -> int:
        """How many keys are there, those of faults included."""
        return int(self._rows("SELECT count(*) FROM outputs")[0][0])

    def size(self) -> int:
        """Bytes on disk."""
        return self._path.stat().st_size

    def missing(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of the keys that are not there, each once, in order."""
        wanted = list(dict.fromkeys(keys))
        there: set[bytes] = set()
        for first in range(0, len(wanted), _KEYS_AT_ONCE):
            some = wanted[first : first + _KEYS_AT_ONCE]
            marks = ",".join("?" * len(some))
            there.update(key for (key,) in self._rows(f"SELECT key FROM outputs WHERE key IN ({marks})", some))
        return [key for key in wanted if key not in there]

    def write(self, outputs: Mapping[bytes, np.ndarray | Fault]) -> None:
        """Add outputs, all of them or, if the process dies, none. What is there already stays.

        Raises ValueError for an array of another shape or with values that are not finite.
        """
        rows: list[tuple[bytes, bytes | None, str | None]] = []
        for key, output in outputs.items():
            if isinstance(output, Fault):
                rows.append((key, None, json.dumps([output.status, output.detail])))
                continue
            if output.shape != self.shape or not np.isfinite(output).all():
                raise ValueError(f"Expected finite values of shape {self.shape}, got {output.shape}.")
            rows.append((key, np.ascontiguousarray(output, _FLOAT).tobytes(), None))
        try:
            with self._lock, self._database:  # which commits at the end, or rolls back
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany("INSERT OR IGNORE INTO outputs VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._complain(error)

    def read(self, key: bytes) -> np.ndarray | Fault:
        """The output of a key, float32 of the store's shape, or why there is none. Raises KeyError."""
        rows = self._rows("SELECT value, fault FROM outputs WHERE key = ?", (key,))
        if not rows:
            raise KeyError(f"{self.folder} has no entry {key.hex()}.")
        value, fault = rows[0]
        if value is None:
            return Fault(*json.loads(fault))
        if len(value) != self._bytes:
            self._complain(f"an entry has {len(value)} bytes, expected {self._bytes}")
        return np.frombuffer(value, _FLOAT).reshape(self.shape)

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            with self._lock:
                return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self._complain(error)

    def _complain(self, error: Exception | str) -> NoReturn:
        raise UserError(
            f"The cache of tower outputs {self._path} cannot be used ({error}). Make room on the disk if it is full; "
            f"otherwise delete {self.folder}: what is in it is then computed again."
        ) from None


class TowerOutputs:
    """What the frozen tower of one modality gave, looked up by clip or caption.

    The content of a file is taken as it was when it was first looked at in this run.
    """

    def __init__(self, modality: str, store: FeatureStore, fingerprints: Fingerprints) -> None:
        self.modality, self.store = modality, store
        self._fingerprints = fingerprints
        self._known: dict[tuple[Any, ...], bytes] = {}

    def key(self, clip: Clip, *, again: bool = False) -> bytes:
        """The key of a clip that has the modality; `again`: look at its file again.

        Raises MediaError when the file cannot be read, which is never kept: the file may come back.
        """
        path = clip.media(self.modality)
        assert path is not None
        start, duration = clip.stretch if self.modality in _TIMED else (None, None)
        place = (path, start, duration)
        if place not in self._known or again:
            try:
                content = self._fingerprints.of(path)
            except FileNotFoundError:
                raise MediaError(path, "missing", "there is no such file") from None
            except OSError as error:
                raise MediaError(path, "corrupt", f"it cannot be read: {error.strerror}") from None
            self._known[place] = _digest(content, start, duration)
        return self._known[place]

    def of(self, clip: Clip) -> np.ndarray:
        """The output for a clip, float32 of the store's shape. Raises MediaError where its media cannot be used."""
        key, path = self.key(clip), clip.media(self.modality)
        assert path is not None
        try:
            found = self.store.read(key)
        except KeyError:
            found = Fault("missing", "it was not there, or was another, when the frozen tower ran")
        if isinstance(found, Fault):
            raise MediaError(path, found.status, found.detail)
        return found

    def of_caption(self, caption: str) -> np.ndarray:
        """The output for a caption, float32 of the store's shape."""
        found = self.store.read(caption_key(caption))
        assert isinstance(found, np.ndarray)  # every caption has one
        return found


def caption_key(caption: str) -> bytes:
    """The key of a caption."""
    return _digest(caption)


def _digest(*parts: Any) -> bytes:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()
