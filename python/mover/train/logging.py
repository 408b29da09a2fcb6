"""What a run tells: log.jsonl for programs, a progress bar or plain lines for people."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mover.durable_file import durable_file
from mover.evaluate.directions import headline


class RunLog:
    """log.jsonl: one JSON object per line, flushed as it is written.

    Lines have "kind": "run" (when it starts or goes on: version, commit, torch, device, training_clips, parameters,
    peak_mib), "train" (step, loss, terms, lr, temperatures, grad_norm, samples_per_second, peak_mib, the memory at its
    highest so far, and rows, how many of each modality were trained on since the line before), "validation" (step, R@1
    and number of clips by direction, mean), "diagnostics" (step, and what docs/diagnostics.md lists) or "warning"
    (step, symptom, message).

    before: the lines that were kept when it was opened.
    """

    def __init__(self, path: Path | None, keep_until: int = 0) -> None:
        """Open the log and keep its lines up to step `keep_until`; 0 starts anew. None: lines go nowhere, as those of a
        process that does not lead."""
        self.before: list[dict[str, Any]] = []
        if path is None:
            self._file = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - closed on exit
            return
        kept = [(text, line) for text, line in _lines(path) if line["step"] <= keep_until]
        self.before = [line for _, line in kept]
        with durable_file(path, path.with_name(f".{path.name}.part")) as file:
            file.write("".join(f"{text}\n" for text, _ in kept).encode())
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed on exit

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append one line."""
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log.jsonl; a last line cut short by a crash is left out. No file, no lines."""
    return [line for _, line in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The whole lines, as text and as what they hold."""
    if not path.is_file():
        return
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            yield text, line


class Display:
    """Progress on a terminal: a bar with loss, Recall@1 and time left. Elsewhere: about twenty lines per run."""

    def __init__(self, console: Console, steps: int, start: int, log_every: int) -> None:
        self._console = console
        self._steps = steps
        self._every = max(log_every, steps // 20)
        self._recall = "–"
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]train"),
                BarColumn(bar_width=None),
                TaskProgressColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}"),
                TextColumn("R@1 {task.fields[recall]}"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task("train", total=steps, completed=start, loss="–", recall="–")

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, step: int, loss: float, seconds_left: float) -> None:
        """After `step` steps."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, loss=f"{loss:.4f}")
        elif step % self._every == 0 or step == self._steps:
            self._console.print(
                f"step {step}/{self._steps}  loss {loss:.4f}  R@1 {self._recall}  left {_clock(seconds_left)}",
                highlight=False, soft_wrap=True,
            )  # fmt: skip

    def validation(self, step: int, recall: dict[str, float], clips: dict[str, int], best: bool) -> None:
        """After a validation: R@1 in percent and number of clips by direction."""
        least, most = min(clips.values()), max(clips.values())
        count = f"{most} clips" if least == most else f"{least} to {most} clips"
        values = "  ".join(f"{name} {value:.1f}" for name, value in recall.items())
        self._recall = f"{recall[headline(list(recall))]:.1f}"
        if self._bar is not None:
            self._bar.update(self._task, recall=self._recall)
        self.say(f"step {step}: validation R@1  {values}  ({count}{', best so far' if best else ''})")

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
