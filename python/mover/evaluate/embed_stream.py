"""From a model and clips to rows on disk, batch by batch: nothing grows with the number of clips but the names."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from mover.data.progress import progress_bar
from mover.evaluate.embed import EvaluationSet, inference, pieces
from mover.evaluate.embed_parts import Parts
from mover.models.model import MoverModel
from mover.train.interrupt import StopRequest

Say = Callable[[str], None]
_SECONDS = 30.0
"""Between two lines about progress where no bar is drawn."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after what was done is on disk. signum: which of them."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


def stream(
    model: MoverModel,
    data: EvaluationSet,
    parts: Parts,
    *,
    batch_size: int,
    device: torch.device,
    precision: str,
    progress: bool,
    say: Say,
) -> None:
    """Compute what is not yet in `parts`, one modality after the other.

    Raises:
        Interrupted: by the first Ctrl-C or SIGTERM, once the batch at hand is kept; a second one ends the process.
        UserError: a clip that cannot be used under "fail".
    """
    with StopRequest() as stop, inference(model, device, precision):
        for modality in data.datasets:
            start, total = parts.done(modality), parts.total(modality)
            if parts.rows_done(modality) == total:
                continue
            with _meter(modality, total, parts.rows_done(modality), progress, say) as show:
                for piece in pieces(model, data, modality, batch_size=batch_size, device=device, start=start):
                    parts.put(modality, piece)
                    show(parts.rows_done(modality))
                    if stop.signum is not None:
                        parts.flush()
                        say(f"stopped with {_state(parts, data)} done; the same command goes on from there")
                        raise Interrupted(stop.signum)
                parts.finish(modality)
                show(total)


def resumed(parts: Parts, data: EvaluationSet) -> str | None:
    """A line about what need not come again; None where nothing is there."""
    if not any(parts.done(m) for m in data.datasets):
        return None
    return f"going on from {parts.folder}: {_state(parts, data)} are there"


def _state(parts: Parts, data: EvaluationSet) -> str:
    return ", ".join(f"{m} {parts.rows_done(m)} of {parts.total(m)}" for m in data.datasets)


@contextmanager
def _meter(modality: str, total: int, done: int, progress: bool, say: Say) -> Iterator[Callable[[int], None]]:
    """Call what it gives with how many rows are done: moves a bar, or says a line now and then."""
    shown, spoken = 0, time.monotonic()
    with progress_bar(f"embedding {modality}", total, progress) as advance:

        def show(count: int) -> None:
            nonlocal shown, spoken
            for _ in range(count - shown):
                advance()
            due = count == total or time.monotonic() - spoken > _SECONDS
            if not progress and due and count > shown:
                say(f"{modality}: {count} of {total}")
                spoken = time.monotonic()
            shown = count

        if progress:
            show(done)
        shown = done
        yield show
