"""How the tests of security watch what a call takes."""

from __future__ import annotations

import ctypes
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

Bounded = Callable[[], "contextmanager[None]"]
MEGABYTES = 200
"""That a refusal may take; the files claim gigabytes and more."""


def _resident() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) >> 10


@pytest.fixture
def bounded() -> Bounded:
    """Asserts that what is inside takes no more memory than a refusal may, of Python's or any library's."""

    @contextmanager
    def watch() -> Iterator[None]:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts at what is in use now
        ctypes.CDLL(None).mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD: what is never touched takes nothing
        ctypes.CDLL(None).mallopt(-4, 1 << 16)  # M_MMAP_MAX
        before = _resident()
        tracemalloc.start()
        try:
            yield
            assert tracemalloc.get_traced_memory()[1] >> 20 < MEGABYTES
        finally:
            tracemalloc.stop()
        assert _resident() - before < MEGABYTES

    return watch
