"""Numbers that are none, in losses and in feature files; and threads that fail while they read data."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
from fault import Fault
from place import STEPS, Place, at_step

from mover.data import dataset
from mover.losses import Objective
from mover.train.logging import read_log

_LIMIT = 2
"""Steps in a row that these runs may leave out."""


def _spoil(wrong: Callable[[int], bool]) -> Callable[[], None]:
    """For `Place.train`: the loss is NaN at the steps that are wrong, counted from 1."""

    def install() -> None:
        real = Objective.forward

        def forward(self: Objective, *inputs: Any, step: int, **about: Any) -> dict[str, Any]:
            factor = float("nan") if wrong(step + 1) else 1.0
            return {name: term * factor for name, term in real(self, *inputs, step=step, **about).items()}

        Objective.forward = forward  # type: ignore[method-assign]

    return install


def loss_once(place: Place, share: float) -> str:
    """The loss of one step is NaN; killed and resumed behind it, the run is the same."""
    whole, name, step = place.new(), place.new(), 2 + int(share * (STEPS - 4))
    spoil = _spoil(lambda at: at == step)
    ended = place.train(whole, before=spoil).wait()
    assert ended.code == 0, ended.said
    told = [line for line in read_log(place.run(whole).log) if line.get("symptom") == "skipped"]
    assert [line["step"] for line in told] == [step], told

    def before() -> None:
        spoil()
        at_step(step + 1, lambda: os.kill(os.getpid(), signal.SIGKILL))()

    assert place.train(name, before=before).wait().code == -signal.SIGKILL
    place.resume(name, before=spoil)
    place.check_same(name, place.run(whole))
    place.forget(name)
    place.forget(whole)
    return str(told[0]["message"])


def loss_for_good(place: Place, share: float) -> str:
    """The loss stays NaN from some step on: the run stops; the cause put right, it goes on."""
    name, step = place.new(), 1 + int(share * (STEPS - 4))
    ended = place.train(name, before=_spoil(lambda at: at >= step), train__skip_limit=_LIMIT).wait()
    assert ended.code == 2 and ended.error.startswith(f"Step {step + _LIMIT}: "), ended.said[-500:]
    there = place.run(name).last.exists()
    assert there == ("The last checkpoint is" in ended.error), ended.error
    place.resume(name, train__skip_limit=_LIMIT)
    assert max(line["step"] for line in read_log(place.run(name).log)) == STEPS
    error = ended.error.replace(str(place.run(name).path), "runs/demo")
    place.forget(name)
    return error


def features(place: Place, share: float) -> str:
    """A clip's feature vector holds a NaN or an infinity: the clip is left out."""
    name = place.new()
    data = place.folder / f"data-{name}"
    shutil.copytree(place.manifest.parent, data)
    rows = [json.loads(line) for line in (data / "manifest.jsonl").read_text().splitlines()]
    vectors = np.random.default_rng(0).normal(size=(len(rows), 8)).astype(np.float32)
    spoilt = next(i for i, row in enumerate(rows) if row["split"] == "train")
    vectors[spoilt, 3] = np.nan if share < 0.5 else np.inf
    np.save(data / "depth.npy", vectors)
    for i, row in enumerate(rows):
        row["others"] = {"depth": {"file": "depth.npy", "row": i}}
    (data / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = {"model.others.depth.kind": "features", "model.others.depth.input_size": 8}
    ended = place.train(name, data__manifest=data / "manifest.jsonl", modalities="text,depth", **section).wait()
    assert ended.code == 0, ended.said[-1000:]
    seen = next((line for line in ended.said.splitlines() if "is left out" in line), "")
    assert f"Clip '{rows[spoilt]['id']}'" in seen, ended.said[-1000:]
    place.forget(name)
    shutil.rmtree(data)
    return seen.replace(str(data), "data/demo")


def worker(place: Place, share: float) -> str:
    """A decoder raises what no decoder should, in a thread or in the process itself."""
    name, count = place.new(), 0

    def before() -> None:
        real = dataset.read_video

        def read(*given: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count > 20:
                raise RuntimeError("index out of range in a table of the decoder")
            return real(*given, **options)

        dataset.read_video = read

    ended = place.train(name, before=before, data__workers=2 if share < 0.5 else 0).wait()
    assert ended.code == 2 and "index out of range" in ended.error and "Clip '" in ended.error, ended.said[-1000:]
    place.check_whole(name)
    place.resume(name)
    place.check_same(name)
    place.forget(name)
    return ended.error


FAULTS = (
    Fault("nan", "a loss that is NaN", "at one step; killed after it and resumed, too", loss_once, 4),
    Fault("nan-for-good", "… from some step on", "at every step from then on; then not any more", loss_for_good, 4),
    Fault("nan-features", "features that are not finite", "NaN or infinity in the file of one clip", features, 2),
    Fault(
        "worker", "a thread that reads data fails", "a decoder that raises an error of its own, with 2 and with 0 "
        "`data.workers`; then one that does not", worker, 2,
    ),
)  # fmt: skip
