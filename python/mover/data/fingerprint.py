"""What is in a file, as a short name: a hash of its content, computed again only when the file has changed.

A file counts as unchanged while its size and its time of change (to the nanosecond) are those noted with the hash.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from pathlib import Path

from mover.data.manifest import write_atomically

_log = logging.getLogger("mover.data")
_VERSION = 1
_BLOCK = 1 << 20
_YOUNG = 2_000_000_000
"""Nanoseconds. Some file systems count time in steps as long as this: a file changed within them may change once more
and keep size and time, so what was found in one so young is not noted."""

Entry = tuple[int, int, str]
"""Size in bytes, time of the last change in nanoseconds, hash."""


State = tuple[int, int] | None
"""Size in bytes and time of the last change in nanoseconds of a file; None where there is none."""


def file_state(path: Path) -> State:
    """What tells, without reading it, whether a file is still the one it was."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return None
    return state.st_size, state.st_mtime_ns


class Fingerprints:
    """Hashes of files, and the file that remembers them.

    memo: path of a JSON file, read now if it is there; one that is damaged or of another version counts as empty, with
        a word in the log. Nothing is written before `save`.
    """

    def __init__(self, memo: Path) -> None:
        self.memo = Path(memo)
        self._lock = threading.Lock()
        self._entries = _read(self.memo)
        self._changed = False

    def of(self, path: Path) -> str:
        """The hash of a file's content: 40 hexadecimal digits of its BLAKE2b. Threads may call this side by side.

        Raises OSError when the file cannot be read.
        """
        key = os.path.abspath(path)
        with open(key, "rb") as file:
            state = os.fstat(file.fileno())
            with self._lock:
                known = self._entries.get(key)
            if known is not None and known[:2] == (state.st_size, state.st_mtime_ns):
                return known[2]
            digest = hashlib.blake2b(digest_size=20)
            while block := file.read(_BLOCK):
                digest.update(block)
            after = os.fstat(file.fileno())
        name = digest.hexdigest()
        settled = time.time_ns() - after.st_mtime_ns > _YOUNG
        if settled and (after.st_size, after.st_mtime_ns) == (state.st_size, state.st_mtime_ns):
            with self._lock:
                self._entries[key] = (after.st_size, after.st_mtime_ns, name)
                self._changed = True
        return name

    def save(self) -> None:
        """Write what was found, beside the memo first and then in its place; entries that others wrote meanwhile stay.

        Does nothing when nothing is new. Raises OSError when it cannot be written.
        """
        with self._lock:
            if not self._changed:
                return
            self._entries = {**_read(self.memo), **self._entries}
            text = json.dumps({"version": _VERSION, "files": self._entries}, indent=0)
            self._changed = False
        write_atomically(self.memo, text + "\n")


def _read(memo: Path) -> dict[str, Entry]:
    try:
        document = json.loads(memo.read_text(encoding="utf-8"))
        if document["version"] != _VERSION:
            raise ValueError(f"version {document['version']}")
        return {
            str(path): (int(size), int(changed), str(name)) for path, (size, changed, name) in document["files"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        _log.warning("%s is no list of fingerprints (%s) and is made anew.", memo, error)
        return {}
