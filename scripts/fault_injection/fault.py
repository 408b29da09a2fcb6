"""What a fault is to `scripts/faults` and to the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fault:
    """A thing that goes wrong.

    name: on the command line. what: goes wrong, for the table. how: it is injected.
    once: takes a `place.Place` and which of the times it is, as a share in [0, 1); gives what the user sees, which may
        be empty, and raises AssertionError where the run did not recover.
    times: how often by default. sees: what the user sees where `once` gives nothing.
    """

    name: str
    what: str
    how: str
    once: Callable[[Any, float], str]
    times: int
    sees: str = ""


class NotHere(Exception):
    """A fault cannot be injected on this machine; the message says why."""
