"""Where faults are injected: a small data set, runs of a second in processes of their own, what they must come to."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mover.cli import main
from mover.configs import load_config
from mover.data.synthetic import generate
from mover.evaluate import pictures
from mover.train import trainer
from mover.train.checkpoint import load_state
from mover.train.checkpoint_files import step_if_whole
from mover.train.logging import read_log
from mover.train.run_folder import RunFolder
from mover.train.start import starting_model

EVERY = 3
"""Steps between checkpoints."""
STEPS = 12
SETTINGS: dict[str, Any] = {
    "train.steps": STEPS, "train.batch_size": 6, "train.log_every": 2, "train.validate_every": 4,
    "train.checkpoint_every": EVERY, "train.diagnose_every": 5, "train.threads": 1, "train.device": "cpu",
    "data.workers": 0, "data.cache": "none", "data.image_size": 32, "data.frames": 2, "data.audio_seconds": 1.0,
    "model.embed_dim": 16, "objective.mover_start": 0.0,
    **{f"model.{tower}.{name}": value for tower in ("text", "video", "audio")
       for name, value in {"layers": 1, "hidden_size": 16, "heads": 2, "intermediate_size": 16}.items()},
    "model.text.dropout": 0.1, "model.audio.embed_dim": 16,
}  # fmt: skip
_TIMES = ("samples_per_second", "peak_mib")
"""What a line of the log says of the machine."""
_LIMIT = 120.0
"""Seconds until a child counts as hanging."""


@dataclass(frozen=True)
class Ended:
    """How a process ended. code: the exit code, minus the signal's number where it was killed. said: its output."""

    code: int
    said: str

    @property
    def error(self) -> str:
        """What the user is told, without the word "error"."""
        lines = [line for line in self.said.splitlines() if line.startswith("error: ")]
        return lines[-1].removeprefix("error: ") if lines else ""


class Child:
    """A process, forked, that runs a command of `mover`, or any function, with its output in a file."""

    def __init__(self, act: Callable[[], int], output: Path) -> None:
        self.output = output
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(self._run(act))

    def _run(self, act: Callable[[], int]) -> int:
        code = 99
        try:
            handle = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))  # noqa: SIM115
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            logging.getLogger().handlers.clear()  # of whoever forked
            torch.set_num_threads(1)
            code = act()
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        return code

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send it a signal."""
        os.kill(self.pid, signum)

    def until(self, there: Callable[[], bool]) -> None:
        """Wait until something is there, or the process has ended. Raises AssertionError if it hangs."""
        limit = time.monotonic() + _LIMIT
        while self.running() and not there():
            if time.monotonic() > limit:
                self.kill()
                os.waitpid(self.pid, 0)
                raise AssertionError(f"it hangs; so far it said: {self.output.read_text()[-500:]}")
            time.sleep(0.005)

    def wait(self) -> Ended:
        """Wait for its end."""
        self.until(lambda: False)
        _, status = os.waitpid(self.pid, 0)
        ended = Ended(os.waitstatus_to_exitcode(status), self.output.read_text(encoding="utf-8"))
        assert "Traceback" not in ended.said, f"the user sees a traceback: {ended.said[-1500:]}"
        return ended


class Place:
    """A folder with a data set of 24 clips, and the runs made there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = generate(folder / "data", train=12, validation=6, test=6, progress=False)
        self._count = self._outputs = 0
        self._done: dict[Any, Any] = {}
        with torch.random.fork_rng(devices=[]):
            starting_model(load_config("demo", self.settings("warm")), 270)  # imports what every child needs

    def settings(self, name: str, **others: Any) -> dict[str, Any]:
        """Dotted settings of a run; `data__workers=2` sets data.workers."""
        given = {key.replace("__", "."): value for key, value in others.items()}
        return {**SETTINGS, "data.manifest": self.manifest, "output": self.folder / "runs", "name": name, **given}

    def new(self) -> str:
        """A name for a run, in any process."""
        self._count += 1
        return f"run{os.getpid()}-{self._count}"

    def run(self, name: str) -> RunFolder:
        """The folder of a run."""
        return RunFolder(self.folder / "runs" / name)

    def train(
        self, name: str, *flags: str, before: Callable[[], object] = lambda: None, manifest: Path | None = None,
        **others: Any,
    ) -> Child:  # fmt: skip
        """Start `mover train` in a child, which calls `before` first: there it injects what it is to suffer."""
        settings = self.settings(name, **others)
        words = [f"--{key}={value}" for key, value in settings.items()]

        def act() -> int:
            pictures.save_picture = _save_no_picture
            before()
            return main(["train", "--config", "demo", *words, *flags])

        self._outputs += 1
        return Child(act, self.folder / f"{name}-{self._outputs}.txt")

    def resume(self, name: str, **others: Any) -> Ended:
        """Go on with a run to its end; a new one where it had no checkpoint."""
        run = self.run(name)
        there = run.last.exists() or run.last.with_name("last.old").exists()
        flags = ["--resume"] if there else ["--overwrite"] if run.used else []
        ended = self.train(name, *flags, **others).wait()
        assert ended.code == 0, f"it does not go on: {ended.said[-1500:]}"
        return ended

    def once(self, act: Callable[..., Any], *about: Any) -> Any:
        """What `act(self, *about)` gives, done once."""
        if (act, about) not in self._done:
            self._done[act, about] = act(self, *about)
        return self._done[act, about]

    @cached_property
    def whole(self) -> RunFolder:
        """A run that nothing happened to."""
        assert self.train("whole").wait().code == 0
        return self.run("whole")

    @cached_property
    def seconds(self) -> float:
        """From the first step of such a run to its end."""
        name = self.new()
        child = self.train(name)
        self.wait_for_a_step(name, child)
        began = time.monotonic()
        child.wait()
        self.forget(name)
        return time.monotonic() - began

    def wait_for_a_step(self, name: str, child: Child) -> None:
        """Wait until a run has logged its first step."""
        log = self.run(name).log
        child.until(lambda: any(line["kind"] == "train" for line in read_log(log)))

    def check_same(self, name: str, whole: RunFolder | None = None) -> None:
        """Raise AssertionError unless the run came to what `whole` came to, to the last bit, and left nothing else."""
        run, whole = self.run(name), whole or self.whole
        for kind in ("last", "best"):
            mine, theirs = (folder.path / "checkpoints" / kind for folder in (run, whole))
            for file in ("model.safetensors", "objective.safetensors", "architecture.json", "tokenizer.json"):
                assert (mine / file).read_bytes() == (theirs / file).read_bytes(), f"{kind}/{file} differs"
            assert equal(load_state(mine), load_state(theirs)), f"{kind}/state.pt differs"
        assert told(run) == told(whole), "log.jsonl differs"
        assert equal(run.read_plans(), whole.read_plans()), "the plans differ"
        assert names(run) == names(whole), f"left behind: {names(run) ^ names(whole)}"

    def check_whole(self, name: str) -> int:
        """The step of the last checkpoint, 0 for none. Raises AssertionError if it cannot be gone on from, or if more
        than the last interval is lost."""
        run = self.run(name)
        last = run.last if run.last.exists() else run.last.with_name("last.old")
        logged = max((line["step"] for line in read_log(run.log)), default=0)
        step = 0
        if last.exists():
            found = step_if_whole(last)
            assert found is not None, f"{last} is not whole"
            step = found
        assert logged - step <= EVERY, f"the log is at step {logged}, the checkpoint at {step}"
        return step

    def forget(self, name: str) -> None:
        """Remove a run."""
        shutil.rmtree(self.run(name).path, ignore_errors=True)
        for path in self.folder.glob(f"{name}-*.txt"):
            path.unlink()


def _save_no_picture(figure: Any, path: Path) -> None:
    """In place of drawing, which takes longer than a run."""
    path.write_bytes(b"a picture")


def told(run: RunFolder) -> list[dict[str, Any]]:
    """The log but for what it says of the machine, and of where the run was resumed."""
    lines = [line for line in read_log(run.log) if line["kind"] != "run"]
    return [{key: value for key, value in line.items() if key not in _TIMES} for line in lines]


def names(run: RunFolder) -> set[str]:
    """Every file below the folder of a run."""
    return {str(path.relative_to(run.path)) for path in run.path.rglob("*")}


def equal(one: Any, other: Any) -> bool:
    """Whether nested values with tensors and arrays are the same to the last bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return bool((one == other).all()) if hasattr(one, "all") else bool(one == other)


def at_step(step: int, act: Callable[[], object]) -> Callable[[], None]:
    """For `Place.train`: call `act` in the child when so many steps are done, before anything is written of it."""

    def install() -> None:
        real = trainer.Display.step

        def hooked(display: Any, done: int, *about: Any) -> None:
            real(display, done, *about)
            if done == step:
                act()

        trainer.Display.step = hooked  # type: ignore[method-assign]

    return install
