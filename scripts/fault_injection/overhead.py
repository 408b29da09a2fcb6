"""What it costs to go on: the time before the first step of a resumed run, beside that of a new one."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from place import Place, at_step

from mover.data.loader import Loader
from mover.train import trainer
from mover.train.run_folder import RunFolder

RUNS = 5
_WIDE = {
    f"model__{tower}__{name}": value for tower in ("text", "video", "audio")
    for name, value in {"layers": 6, "hidden_size": 512, "heads": 8, "intermediate_size": 2048}.items()
}  # fmt: skip
SIZES: dict[str, tuple[dict[str, Any], int]] = {
    "a small model": ({}, 0),
    "a larger model": ({**_WIDE, "model__audio__embed_dim": 256, "train__batch_size": 2}, 0),
    "a small model, a log of 20,000 lines": ({}, 20_000),
}
"""What is resumed: settings, and lines of its log."""
LOADING = ("load_checkpoint_model", "load_weights", "load_state")
"""Functions of the trainer that load a checkpoint, beside `Optimizer.load_state_dict`."""


def measure(place: Place, quick: bool) -> list[dict[str, Any]]:
    """Rows of seconds, medians: before the first step of a new run, of a resumed one, and of that in loading."""
    rows = []
    for what, (settings, lines) in list(SIZES.items())[: 1 if quick else None]:
        name = place.new()
        stop = at_step(3, lambda: os._exit(0))
        place.train(name, before=stop, train__checkpoint_every=1, **settings).wait()
        run = place.run(name)
        parameters = json.loads(run.log.read_text().splitlines()[0])["parameters"]["all"]
        if lines:
            line = next(text for text in run.log.read_text().splitlines() if '"train"' in text)
            run.log.write_text(f"{line}\n" * lines)
        kept = run.path.with_name(f"{name}-kept")
        shutil.copytree(run.path, kept)
        samples: dict[str, list[float]] = {"new": [], "resumed": [], "loading": []}
        for _ in range(1 if quick else RUNS):
            samples["new"].append(_before_the_first_step(place, place.new(), [], settings)[0])
            shutil.rmtree(run.path)
            shutil.copytree(kept, run.path)
            seconds, loading = _before_the_first_step(place, name, ["--resume"], settings)
            samples["resumed"].append(seconds)
            samples["loading"].append(loading)
        size = sum(path.stat().st_size for path in RunFolder(kept).last.iterdir())
        medians = {key: statistics.median(values) for key, values in samples.items()}
        rows.append({"what": what, "parameters": parameters, "bytes": size, **medians})
        place.forget(name)
        shutil.rmtree(kept)
    return rows


def _before_the_first_step(place: Place, name: str, flags: list[str], settings: dict[str, Any]) -> tuple[float, float]:
    """Seconds from the command to the first batch, and of them those of loading the checkpoint."""
    result = place.folder / "seconds"

    def before() -> None:
        began, spent = time.perf_counter(), 0.0

        def timed(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                nonlocal spent
                since = time.perf_counter()
                value = real(*args, **options)
                spent += time.perf_counter() - since
                return value

            return call

        for loading in LOADING:
            setattr(trainer, loading, timed(getattr(trainer, loading)))
        torch.optim.Optimizer.load_state_dict = timed(torch.optim.Optimizer.load_state_dict)  # type: ignore

        def stop(loader: Loader) -> Any:
            result.write_text(json.dumps([time.perf_counter() - began, spent]))
            os._exit(0)

        Loader.__iter__ = stop  # type: ignore[method-assign]

    ended = place.train(name, *flags, before=before, **settings).wait()
    assert ended.code == 0, ended.said
    if not flags:
        place.forget(name)
    seconds, loading = json.loads(result.read_text())
    return seconds, loading


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| | parameters | checkpoint | before the first step of a new run | of a resumed run | loading | beyond "
        "loading |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        beyond = row["resumed"] - row["loading"]
        lines.append(
            f"| {row['what']} | {row['parameters'] / 1e6:.2f} M | {row['bytes'] / 1e6:.1f} MB | {row['new']:.2f} s | "
            f"{row['resumed']:.2f} s | {row['loading']:.2f} s | {beyond:.2f} s |"
        )
    return "\n".join(lines)
