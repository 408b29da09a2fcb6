"""Makes the runs of an experiment, each in a process of its own, and goes on where an earlier sweep stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mover.errors import UserError
from mover.experiments.definition import Definition
from mover.experiments.plan import Run
from mover.experiments.record import State, asked, number_of, read_record, state_of
from mover.experiments.reuse import find_equal
from mover.experiments.worker import BUSY
from mover.train.logging import read_log

_POLL = 0.2
"""Seconds between two looks at the runs that are being made."""


@dataclass
class Sweep:
    """How a sweep ended. failed: name of a run to what went wrong. signum: the signal that stopped it."""

    made: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    signum: int | None = None


@dataclass
class _Process:
    run: Run
    child: subprocess.Popen[str]
    began: float


def make_runs(
    definition: Definition,
    runs: Sequence[Run],
    *,
    parallel: int = 1,
    overwrite: bool = False,
    console: Console | None = None,
) -> Sweep:
    """Make those of the runs that are not complete.

    Args:
        definition: the experiment.
        runs: its runs, those that others start from before these.
        parallel: how many at once; with several, each has its share of the processors.
        overwrite: replace runs of other settings.
        console: where progress goes; default: standard output.

    Raises:
        UserError: a folder holds a run of other settings, and `overwrite` is not given; nothing was made.
    """
    console = console or Console()
    states: dict[str, tuple[State, str]] = {}
    for run in runs:
        anew = any(states[start.name][0] in ("new", "other settings") for start in run.starts)
        states[run.name] = ("new", "") if anew else state_of(run)
    differing = [run for run in runs if states[run.name][0] == "other settings"]
    if differing and not overwrite:
        first = differing[0]
        others = f" So do {len(differing) - 1} more runs." if len(differing) > 1 else ""
        raise UserError(
            f"{first.config.folder} holds a run of other settings: {states[first.name][1]}.{others} Replace such runs "
            "with --overwrite, or write elsewhere with output=FOLDER."
        )
    sweep = Sweep(skipped=[run.name for run in runs if states[run.name][0] == "done"])
    waiting = [run for run in runs if run.name not in sweep.skipped]
    threads = max(1, (os.cpu_count() or 1) // parallel) if parallel > 1 else None
    with _Signals() as signals, _Bar(console, definition, len(runs), len(sweep.skipped)) as bar:
        running: list[_Process] = []
        while waiting or running:
            _settle_left_out(waiting, sweep, bar)
            while len(running) < parallel and signals.signum is None:
                ready = next((run for run in waiting if _can_start(run, sweep)), None)
                if ready is None:
                    break
                waiting.remove(ready)
                resume = states[ready.name][0] == "unfinished"
                equal = None if resume else find_equal(ready)
                running.append(_Process(ready, _start(definition, ready, resume, equal, threads), time.monotonic()))
            signals.children = [process.child for process in running]
            if not running:
                break
            time.sleep(_POLL)
            bar.look(running)
            for process in [process for process in running if process.child.poll() is not None]:
                running.remove(process)
                _settle(process, definition, sweep, bar, stopped=signals.signum is not None)
        sweep.signum = signals.signum
    return sweep


def _can_start(run: Run, sweep: Sweep) -> bool:
    return all(start.name in sweep.made or start.name in sweep.skipped for start in run.starts)


def _settle_left_out(waiting: list[Run], sweep: Sweep, bar: _Bar) -> None:
    """Give up the runs that would start from one that failed."""
    for run in list(waiting):
        failed = [start.name for start in run.starts if start.name in sweep.failed]
        if failed:
            waiting.remove(run)
            sweep.failed[run.name] = f"starts from {failed[0]}, which failed"
            bar.done(run, f"left out: {sweep.failed[run.name]}")


def _start(
    definition: Definition, run: Run, resume: bool, equal: Path | None, threads: int | None
) -> subprocess.Popen[str]:
    settings = run.config.model_dump(mode="json")
    if threads is not None:
        settings["train"]["threads"] = settings["train"]["threads"] or threads
    job = {
        "experiment": definition.name, "cell": run.cell, "variant": run.variant, "value": run.value, "seed": run.seed,
        "asked": asked(run), "config": settings, "record": str(run.record), "resume": resume,
        "take": None if equal is None else str(equal),
    }  # fmt: skip
    try:
        run.output.parent.mkdir(parents=True, exist_ok=True)
        return _spawn(job, run.output, threads)
    except OSError as error:
        raise UserError(f"{run.output} cannot be written: {error.strerror}. Write elsewhere with output=.") from None


def _spawn(job: Mapping[str, Any], path: Path, threads: int | None) -> subprocess.Popen[str]:
    """The process of a job, in a session of its own, so that Ctrl-C reaches it through us only."""
    environment = dict(os.environ)
    if threads is not None:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with open(path, "a", encoding="utf-8") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "mover.experiments.worker"], stdin=subprocess.PIPE, stdout=output,
            stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment,
        )  # fmt: skip
    assert child.stdin is not None
    with suppress(BrokenPipeError):  # it died at once; its exit code and its output say why
        child.stdin.write(json.dumps(job) + "\n")
        child.stdin.flush()
    return child


def _settle(process: _Process, definition: Definition, sweep: Sweep, bar: _Bar, *, stopped: bool) -> None:
    run, code = process.run, process.child.returncode
    if process.child.stdin is not None:
        process.child.stdin.close()
    if code == 0:
        sweep.made.append(run.name)
        bar.done(run, f"{_numbers(run, definition)}  ({_clock(time.monotonic() - process.began)}{_origin(run)})")
    elif stopped:
        bar.say(f"{run.name}: stopped, and goes on from its last checkpoint next time")
    elif code == BUSY:
        sweep.failed[run.name] = "another process is making it"
        bar.done(run, "left out: another process is making it")
    else:
        sweep.failed[run.name] = f"{_last_words(run) or f'exit code {code}'} (all it said: {run.output})"
        bar.done(run, f"failed: {sweep.failed[run.name]}")


def _numbers(run: Run, definition: Definition) -> str:
    record = read_record(run.record) or {"metrics": {}}
    found = []
    for column in definition.measured:
        value = number_of(record, column)
        found += [] if value is None else [f"{column.label} {value:.1f}"]
    return "  ".join(found)


def _origin(run: Run) -> str:
    taken = (read_record(run.record) or {}).get("taken_from")
    return "" if taken is None else f", trained as {taken}"


def _last_words(run: Run) -> str:
    """The last line that a failed run left, which is its error."""
    lines = [line for line in run.output.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip().removeprefix("error: ") if lines else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


class _Signals:
    """Ctrl-C and SIGTERM go on to the runs, which stop cleanly; the second time they are ended."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.children: Sequence[subprocess.Popen[str]] = ()
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> _Signals:
        self._before = {number: signal.signal(number, self._pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self.children:
            if child.poll() is None:
                child.terminate()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, signum: int, frame: FrameType | None) -> None:
        again, self.signum = self.signum is not None, signum
        for child in self.children:
            if child.poll() is None:
                child.kill() if again else child.send_signal(signal.SIGTERM)


class _Bar:
    """A line for each run that ends and, on a terminal, a bar of all runs with what is being made."""

    def __init__(self, console: Console, definition: Definition, count: int, done: int) -> None:
        self._console = console
        self._count = count
        self._done = done
        self._looked = 0.0
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn(f"[bold]{definition.name}"), BarColumn(), MofNCompleteColumn(), TextColumn("runs"),
                TimeElapsedColumn(), TextColumn("{task.fields[now]}"), console=console,
            )  # fmt: skip
            self._task = self._bar.add_task("runs", total=count, completed=done, now="")
        if done:
            self.say(f"{done} of {count} runs are complete and stay as they are")

    def __enter__(self) -> _Bar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def done(self, run: Run, text: str) -> None:
        """A run has ended."""
        self._done += 1
        self.say(f"[{self._done}/{self._count}] {run.name}: {text}")
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)

    def look(self, running: Sequence[_Process]) -> None:
        """Show at which step the runs are."""
        if self._bar is None or time.monotonic() - self._looked < 1:
            return
        self._looked = time.monotonic()
        steps = []
        for process in running:
            log = read_log(process.run.folder.log)
            steps.append(f"{process.run.name} {log[-1]['step'] if log else 0}/{process.run.config.train.steps}")
        self._bar.update(self._task, now=", ".join(steps))
