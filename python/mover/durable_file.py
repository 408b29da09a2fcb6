"""Files that are whole or not there, also after a loss of power."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mover.errors import UserError


@contextmanager
def durable_file(path: Path, aside: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write bytes to that becomes `path`, in one move and flushed to disk, when the block ends without error.

    Args:
        path: the file; its folder is made.
        aside: where it is until then, on the same file system; default: beside it.

    Raises:
        UserError: it cannot be written, such as for want of room.
    """
    aside = aside or path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(aside, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            with suppress(OSError):
                aside.unlink()
            raise
        flush(path.parent)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}. Make room or its folder writable, or name another."
        ) from None


def flush(path: Path) -> None:
    """Make a file's content last; of a folder, what was moved into it or out of it, where the file system can."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(handle)
