"""Caches of decoded media and of the outputs of frozen towers, killed while they are filled."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from fault import Fault
from kills import at_call, count_calls, killed_after
from place import Child, Place

from mover.train.run_folder import RunFolder

FROZEN: dict[str, Any] = {
    "model__video__trained_layers": 0, "model__audio__trained_layers": 0, "data__cache": "features",
    "evaluate__batch_size": 2,
}  # fmt: skip


def media_cache(place: Place, share: float) -> str:
    """Killed at one of the calls that write decoded media; the next run uses what is there."""
    whole, _ = place.once(_with_cache, "disk")
    name = place.new()
    folder = place.folder / f"cache-{name}"
    settings = {"data__cache": "disk", "data__cache_folder": folder}
    number = int(share * place.once(_calls_of_cache))
    assert place.train(name, before=at_call(number, "cache-"), **settings).wait().code == -signal.SIGKILL
    return _goes_on(place, name, whole, settings)


def feature_cache(place: Place, share: float) -> str:
    """Killed when `share` of the time has passed in which towers run and their outputs are stored."""
    whole, seconds = place.once(_with_cache, "features")

    def settings(name: str) -> dict[str, Any]:
        return {**FROZEN, "data__cache_folder": place.folder / f"cache-{name}"}

    def begin(name: str) -> Child:
        child = place.train(name, **settings(name))
        child.until(lambda: bool(list((place.folder / f"cache-{name}").rglob("*.sqlite"))))
        return child

    name = killed_after(0.9 * share * seconds, place, begin)
    return _goes_on(place, name, whole, settings(name))


def _with_cache(place: Place, cache: str) -> tuple[RunFolder, float]:
    """A run with a cache that nothing happened to, and the seconds from the first file of the cache to the end."""
    name = place.new()
    folder = place.folder / f"cache-{name}"
    settings = FROZEN if cache == "features" else {"data__cache": cache}
    child = place.train(name, **settings, data__cache_folder=folder)
    child.until(lambda: bool(list(folder.rglob("*.s*"))))
    began = time.monotonic()
    ended = child.wait()
    assert ended.code == 0, ended.said
    return place.run(name), time.monotonic() - began


def _calls_of_cache(place: Place) -> int:
    folder = place.folder / f"cache-{place.new()}"
    return int(count_calls(place, "cache-", data__cache="disk", data__cache_folder=folder))


def _goes_on(place: Place, name: str, whole: RunFolder, settings: dict[str, Path | Any]) -> str:
    place.check_whole(name)
    place.resume(name, **settings)
    place.check_same(name, whole)
    place.forget(name)
    return ""


FAULTS = (
    Fault(
        "media-cache", "killed while media are decoded to disk (`data.cache disk`)", "kill -9 before a call of the "
        "kernel, or half-way through a file; the moments spread over all such calls", media_cache, 20,
        "nothing; the next run uses what is whole",
    ),
    Fault(
        "feature-cache", "killed while frozen towers run (`data.cache features`)", "kill -9 at moments spread over the "
        "time from the first output on", feature_cache, 12, "nothing; the next run uses what was stored",
    ),
)  # fmt: skip
