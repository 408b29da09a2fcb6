"""Runs that are asked to stop, and resumed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from fault import Fault
from kills import at_call, count_calls
from place import STEPS, Place, at_step


def _signal(signum: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), signum)


def asked(signum: int) -> Callable[[Place, float], str]:
    """One signal, at some step."""

    def once(place: Place, share: float) -> str:
        name, step = place.new(), 1 + int(share * (STEPS - 1))
        ended = place.train(name, before=at_step(step, _signal(signum))).wait()
        assert ended.code == 128 + signum, f"exit code {ended.code}: {ended.said[-500:]}"
        assert f"stopped after step {step} of {STEPS}; go on with: mover train --config" in ended.said, ended.said
        assert place.check_whole(name) == step
        place.resume(name)
        place.check_same(name)
        place.forget(name)
        return ""

    return once


def asked_twice(place: Place, share: float) -> str:
    """One signal at a step, and another at a moment of writing the checkpoint that the first one asks for."""
    name, step = place.new(), 2
    number = int(share * place.once(_of_first_checkpoint))

    def before() -> None:
        at_step(step, _signal(signal.SIGINT))()
        at_call(number, "checkpoints", signum=signal.SIGTERM)()

    ended = place.train(name, before=before).wait()
    assert ended.code == 128 + signal.SIGTERM, f"exit code {ended.code}: {ended.said[-500:]}"
    place.check_whole(name)
    place.resume(name)
    place.check_same(name)
    place.forget(name)
    return ""


def _of_first_checkpoint(place: Place) -> int:
    return int(count_calls(place, "checkpoints", before=at_step(2, _signal(signal.SIGINT))))


def other_workers(place: Place, share: float) -> str:
    """Stopped twice in mid-epoch, each time gone on with by another number of threads that read data."""
    name, first = place.new(), (1, 3, 5)[int(share * 3)]
    counts = ((0, 2, 1), (2, 0, 3))[int(share * 6) % 2]
    for workers, step in zip(counts, (first, first + 2), strict=False):
        there: dict[str, Any] = {"before": at_step(step, _signal(signal.SIGTERM)), "data__workers": workers}
        ended = place.train(name, *(["--resume"] if step > first else []), **there).wait()
        assert ended.code == 128 + signal.SIGTERM, ended.said[-500:]
    place.resume(name, data__workers=counts[2])
    place.check_same(name)
    place.forget(name)
    return ""


FAULTS = (
    Fault(
        "sigterm", "SIGTERM", "sent at steps spread over the run", asked(signal.SIGTERM), 12,
        "`stopped after step 5 of 12; go on with: mover train --config … --resume`, exit code 143",
    ),
    Fault(
        "sigint", "SIGINT (Ctrl-C)", "sent at steps spread over the run", asked(signal.SIGINT), 12,
        "the same, exit code 130",
    ),
    Fault(
        "second-signal", "a second signal", "sent at moments spread over the writing of the checkpoint that the first "
        "one asks for", asked_twice, 12, "it quits at once, exit code 143; `--resume` goes on",
    ),
    Fault(
        "workers", "stopped twice in mid-epoch, resumed with other `data.workers`", "SIGTERM; 0, 2 and 1 threads, "
        "or 2, 0 and 3", other_workers, 6, "nothing: workers change nothing",
    ),
)  # fmt: skip
