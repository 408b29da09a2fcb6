"""Runs of two processes, of which one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from fault import Fault
from place import STEPS, Place

import mover
from mover.train.run_folder import RunFolder

_TRAIN = Path(__file__).with_name("train_and_die.py")
_NEVER = STEPS + 1
_LIMIT = 300


def one_dies(place: Place, share: float) -> str:
    """The other ends, too, by what it lost or by torchrun; with --resume both end as if nothing had happened."""
    name = place.new()
    ended = _torchrun(place, name, 1 + int(share * (STEPS - 1)), rank=int(share * 4) % 2)
    assert ended.returncode != 0 and "Signal 9 (SIGKILL) received" in ended.stderr, ended.stderr[-2000:]
    place.check_whole(name)
    flags = ["--resume"] if place.run(name).last.exists() else ["--overwrite"]
    assert _torchrun(place, name, _NEVER, flags=flags).returncode == 0
    place.check_same(name, place.once(_of_two))
    place.forget(name)
    return ""


def one_dies_and_is_replaced(place: Place, share: float) -> str:
    """torchrun starts both again, and they go on from the last checkpoint by themselves."""
    name = place.new()
    step, rank = 1 + int(share * (STEPS - 1)), int(share * 4) % 2
    ended = _torchrun(place, name, step, rank, options=["--max-restarts=1"])
    assert ended.returncode == 0, ended.stderr
    place.check_same(name, place.once(_of_two))
    place.forget(name)
    return ""


def _of_two(place: Place) -> RunFolder:
    """A run of two processes that nothing happened to."""
    name = place.new()
    ended = _torchrun(place, name, _NEVER)
    assert ended.returncode == 0, ended.stderr
    return place.run(name)


def _torchrun(
    place: Place, name: str, step: int, rank: int = 0, flags: list[str] | None = None, options: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    settings = place.settings(name)
    words = ["train", "--config", "demo", *(f"--{key}={value}" for key, value in settings.items()), *(flags or [])]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *(options or [])]
    package = str(Path(mover.__file__).parents[1])
    command = [*torchrun, str(_TRAIN), str(step), str(rank), *words]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": package},
    )  # fmt: skip
    try:
        said, errors = started.communicate(timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        raise AssertionError(f"it hangs; so far it said: {started.communicate()[1][-2000:]}") from None
    return subprocess.CompletedProcess(command, started.returncode, said, errors)


FAULTS = (
    Fault(
        "rank", "one of two processes is killed (`torchrun`)", "kill -9 at steps spread over the run, the first or the "
        "second", one_dies, 2, "torchrun says which one died, `Signal 9 (SIGKILL) received`; the other, that it `lost "
        "another one`, unless torchrun ends it first",
    ),
    Fault(
        "rank-restart", "… under `torchrun --max-restarts 1`", "the same", one_dies_and_is_replaced, 2,
        "what torchrun says of it; both begin again and go on by themselves",
    ),
)  # fmt: skip
