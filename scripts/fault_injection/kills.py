"""Processes killed with -9: at any moment of training, and at any moment of writing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.numpy
import torch
from fault import Fault
from place import Child, Place

from mover.train import checkpoint

CALLS = ("mkdir", "link", "rename", "replace", "chmod", "fsync", "unlink", "rmdir")
"""The functions of `os` that writing a checkpoint comes down to, beside those that write the files themselves."""


def at_call(
    number: int, below: str, count: Callable[[int], object] = lambda n: None, signum: int = signal.SIGKILL
) -> Callable[[], None]:
    """For `Place.train`: signal the process at call `number`, from 0, that touches a path with `below` in it.

    It dies before the call, or half-way through a file that is being written. count: is told the number of each call.
    """

    def install() -> None:
        calls = 0

        def die_at(real: Any, halfway: bool) -> Any:
            def hooked(*args: Any, **options: Any) -> Any:
                nonlocal calls
                path = _path(args, options)
                if below not in path:
                    return real(*args, **options)
                if calls == number:
                    if halfway:
                        real(*args, **options)
                        os.truncate(path, os.path.getsize(path) // 2)
                    os.kill(os.getpid(), signum)
                count(calls)
                calls += 1
                return real(*args, **options)

            return hooked

        for name in CALLS:
            setattr(os, name, die_at(getattr(os, name), False))
        for module, name in ((checkpoint, "save_model"), (torch, "save"), (safetensors.numpy, "save_file")):
            setattr(module, name, die_at(getattr(module, name), True))

    return install


def _path(args: tuple[Any, ...], options: dict[str, Any]) -> str:
    """The path that one of these calls is about."""
    wanted = args[1] if len(args) > 1 and not isinstance(args[0], (str, Path, int)) else args[0]
    wanted = wanted.name if hasattr(wanted, "fileno") else wanted
    folder = options.get("dir_fd")
    prefix = "" if folder is None else os.readlink(f"/proc/self/fd/{folder}") + "/"
    return prefix + (os.readlink(f"/proc/self/fd/{wanted}") if isinstance(wanted, int) else os.fspath(wanted))


def count_calls(place: Place, below: str, before: Callable[[], object] = lambda: None, **settings: Any) -> int:
    """How many calls a run makes that `at_call` would kill it at; `before` and settings as in `Place.train`."""
    tally, name = place.folder / "calls", place.new()

    def install() -> None:
        before()
        at_call(-1, below, lambda n: tally.write_text(str(n + 1)))()

    place.train(name, before=install, **settings).wait()
    place.forget(name)
    return int(tally.read_text())


def at_random(place: Place, share: float) -> str:
    """Kill a run when `share` of its steps' time has passed."""

    def begin(name: str) -> Child:
        child = place.train(name)
        place.wait_for_a_step(name, child)
        return child

    return _goes_on(place, killed_after(0.9 * share * place.seconds, place, begin))


def killed_after(seconds: float, place: Place, begin: Callable[[str], Child]) -> str:
    """The name of a run that was killed so long after `begin`, given a name, has started it; sooner where runs end
    before."""
    while True:
        name = place.new()
        child = begin(name)
        time.sleep(seconds)
        child.kill()
        ended = child.wait()
        if ended.code == -signal.SIGKILL:
            return name
        assert ended.code == 0, ended.said
        place.forget(name)
        seconds /= 2


def while_writing(place: Place, share: float) -> str:
    """Kill a run at `share` of the moments of its checkpoints."""
    name = place.new()
    number = int(share * place.once(count_calls, "checkpoints"))
    assert place.train(name, before=at_call(number, "checkpoints")).wait().code == -signal.SIGKILL
    return _goes_on(place, name)


def again_and_again(place: Place, share: float) -> str:
    """Kill a run, and every run that goes on from there, a few calls after its first checkpoint, until it ends."""
    name, kills = place.new(), 0
    every = 45 + int(share * 40)
    while True:
        run = place.run(name)
        resumed = ["--resume"] if place.check_whole(name) else ["--overwrite"] if run.used else []
        ended = place.train(name, *resumed, before=at_call(every, "checkpoints")).wait()
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGKILL, ended.said[-1500:]
        kills += 1
        assert kills < 40, "it never ends"
    assert kills, "it was never killed"
    place.check_same(name)
    place.forget(name)
    return ""


def _goes_on(place: Place, name: str) -> str:
    place.check_whole(name)
    place.resume(name)
    place.check_same(name)
    place.forget(name)
    return ""


FAULTS = (
    Fault(
        "kill", "the process is killed", "kill -9 at moments spread over the time of a run", at_random, 50,
        "nothing; `--resume` goes on from `checkpoints/last`",
    ),
    Fault(
        "kill-writing", "… while it writes a checkpoint",
        "kill -9 before a call of the kernel, or half-way through a file; the moments spread over all such calls",
        while_writing, 50, "nothing; `--resume` goes on from `checkpoints/last`",
    ),
    Fault(
        "kill-again", "… and again whenever it goes on", "kill -9 some calls into the next checkpoints, to the end",
        again_and_again, 6, "nothing",
    ),
)  # fmt: skip
