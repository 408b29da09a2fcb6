"""Runs the steps of gpu-check: each in a thread, its commands one after another, into a log of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

PASSED, FAILED, TIMED_OUT, LEFT_OUT = "passed", "failed", "timed out", "left out"
MOST_LINES = 20  # of a step's failures that the summary repeats


@dataclass(frozen=True)
class Step:
    """`commands` run in turn until one fails; "{seconds}" in them becomes the time that is left. A step begins when
    those named in `after` and `needs` have ended, and only if those in `needs` have passed."""

    name: str
    commands: Sequence[Sequence[str]] = ()
    limit: float = 60.0  # seconds
    needs: Sequence[str] = ()
    after: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)
    failures: str = r"(?i)\berror\b"  # lines of the log that tell what failed
    absent: str = ""  # why it cannot run here


@dataclass
class Outcome:
    status: str
    seconds: float = 0.0
    note: str = ""
    log: str = ""
    failures: list[str] = field(default_factory=list)


def text_of(command: Sequence[str]) -> str:
    return shlex.join(str(part) for part in command)


def run_steps(
    steps: Sequence[Step], folder: Path, deadline: float, tell: Callable[[Step, Outcome], None]
) -> dict[str, Outcome]:
    """Outcomes by name. `deadline`, of time.monotonic, bounds all; `tell` hears of each that ends. Steps that are not
    among `steps` count as passed."""
    folder.mkdir(parents=True, exist_ok=True)
    futures: dict[str, Future[Outcome]] = {}

    def run(step: Step, before: dict[str, Future[Outcome]]) -> Outcome:
        ended = {name: future.result() for name, future in before.items()}
        broken = [name for name in step.needs if name in ended and ended[name].status != PASSED]
        if broken:
            outcome = Outcome(LEFT_OUT, note=f"needs '{broken[0]}'")
        elif step.absent:
            outcome = Outcome(LEFT_OUT, note=step.absent)
        else:
            outcome = _run(step, folder, deadline)
        tell(step, outcome)
        return outcome

    with ThreadPoolExecutor(max(len(steps), 1)) as pool:
        for step in steps:  # which name earlier ones only
            before = {name: futures[name] for name in (*step.needs, *step.after) if name in futures}
            futures[step.name] = pool.submit(run, step, before)
    return {name: future.result() for name, future in futures.items()}


def _run(step: Step, folder: Path, deadline: float) -> Outcome:
    path = folder / f"{step.name}.log"
    begin = time.monotonic()
    end = min(begin + step.limit, deadline)
    status, note = PASSED, ""
    with path.open("w") as log:
        for command in step.commands:
            left = end - time.monotonic()
            if left <= 1:
                status, note = TIMED_OUT, "no time was left to begin it"
                break
            parts = [str(part).replace("{seconds}", f"{left:.0f}") for part in command]
            log.write(f"$ {text_of(parts)}\n")
            log.flush()
            try:
                code = _call(parts, log, {**os.environ, **step.environment}, left)
            except OSError as error:
                status, note = FAILED, f"{parts[0]} cannot be started: {error.strerror}"
                break
            if code is None:
                status, note = TIMED_OUT, f"stopped after {time.monotonic() - begin:.0f} s"
                break
            if code:
                status, note = FAILED, f"{Path(parts[0]).name} ended with {code}"
                break
    if status == PASSED:  # which says how much there was to pass
        lines = [line.strip(" =") for line in path.read_text(errors="replace").splitlines() if line.strip()]
        note = lines[-1][:100] if len(lines) > len(step.commands) else ""
    outcome = Outcome(status, round(time.monotonic() - begin, 1), note, str(path))
    if status != PASSED:
        outcome.failures = failures_in(path.read_text(errors="replace"), step.failures)
    return outcome


def _call(command: Sequence[str], log, environment: dict[str, str], seconds: float) -> int | None:
    """The exit code, or None where the time was over and the command with all it started was killed."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what a command that ended has left running
        process.wait()


def failures_in(text: str, pattern: str) -> list[str]:
    """The lines of a log that match, and what follows a colon at their end; else its last ones."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    matching: list[str] = []
    for i, line in enumerate(lines):
        announced = i > 0 and lines[i - 1] in matching[-1:] and lines[i - 1].endswith(":")
        if announced or (re.search(pattern, line) and not line.startswith("$ ")):
            matching.append(line)
    return [line[:300] for line in (matching or lines[-5:])[:MOST_LINES]]
