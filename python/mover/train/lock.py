"""One run at a time in a folder: a file there that the process of the run holds locked.

The lock is the kernel's (flock): it ends with the process, however that ends. The file, lock.json, only says who has
it; it goes with the run, and one that a killed process left behind locks nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from mover.errors import UserError

LOCK = "lock.json"
_TRIES, _PAUSE = 5, 0.05
"""A lock that is only looked at is held for an instant."""


@contextmanager
def locked(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder, which is made, for the life of the block; one that stays empty is removed again.

    Args:
        folder: of the run.
        say: takes a warning where the file system has no locks.

    Raises:
        UserError: another process holds it, or the folder cannot be written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / LOCK
    with ExitStack() as undo:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            undo.callback(_remove_empty, made)
            handle = _acquire(path, say)
            undo.callback(_release, handle, path)
            _tell(handle)
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error.strerror}. Choose another --output.") from None
        yield


def check_free(folder: Path) -> None:
    """Raise UserError where a process holds the folder. Changes nothing on disk."""
    path = folder / LOCK
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # nobody has been there
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _taken(path) from None
    except OSError:  # no locks on this file system
        pass
    finally:
        os.close(handle)


def _acquire(path: Path, say: Callable[[str], None]) -> int:
    """The open file, locked; or not, said so, where the file system has no locks."""
    left = _TRIES
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            left -= 1
            if not left:
                raise _taken(path) from None
            time.sleep(_PAUSE)
            continue
        except OSError as error:
            say(
                f"{path.parent}: this file system has no locks ({error.strerror}), so nothing keeps a second run out "
                "of this folder; see that there is none."
            )
        if _is_at(handle, path):
            return handle
        os.close(handle)  # its run ended between the two calls above, and took the file with it


def _release(handle: int, path: Path) -> None:
    with suppress(OSError):  # the folder may be gone, or read-only
        if _is_at(handle, path):
            path.unlink()
    os.close(handle)


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _tell(handle: int) -> None:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{text}\n".encode(), 0)


def _taken(path: Path) -> UserError:
    holder: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        holder = json.loads(path.read_text(encoding="utf-8"))
    who = "process {pid} on {host} has trained there since {since}".format(**holder) if holder else "another process"
    return UserError(
        f"{path.parent} is in use: {who}. Wait until it ends or stop it, or choose another --name or --output."
    )
