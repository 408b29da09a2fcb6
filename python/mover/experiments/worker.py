"""One run in a process of its own: train, evaluate, leave a record. `mover.experiments.runner` starts it.

The job comes as one line of JSON on standard input, which stays open for as long as the sweep lives: when it closes,
the run stops as at Ctrl-C, so that no run outlives its sweep. Exit codes are those of `mover`, and BUSY.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any

BUSY = 75
"""Exit code: another process makes this run."""
_LEFT_OUT = ("intervals",)
"""Of a row of metrics; it stands in metrics.json."""


def main() -> int:
    """The process; returns the exit code."""
    job = json.loads(sys.stdin.readline())
    try:
        fcntl.flock(sys.stdout.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)  # the file output.txt of the run
    except BlockingIOError:
        return BUSY
    threading.Thread(target=_stop_with_the_sweep, daemon=True).start()
    return run_job(job)


def _stop_with_the_sweep() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock the end of the process needs
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def run_job(job: dict[str, Any]) -> int:
    """Make the run of a job, as `mover.experiments.runner` puts it; returns the exit code."""
    from mover.errors import UserError
    from mover.evaluate.embed_stream import Interrupted

    try:
        return _run(job)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", flush=True)
        return 2
    except Interrupted as stopped:
        return 128 + stopped.signum
    except KeyboardInterrupt:
        return 130


def _run(job: dict[str, Any]) -> int:
    import torch
    from rich.console import Console

    from mover.config import Config
    from mover.experiments.matches import match_history
    from mover.experiments.record import write_record
    from mover.experiments.reuse import forget, origin_of, take
    from mover.train.built_from import built_from
    from mover.train.device import pick_device
    from mover.train.logging import read_log
    from mover.train.run_folder import RunFolder
    from mover.train.trainer import train

    config = Config.model_validate(job["config"])
    record = Path(job["record"])
    record.unlink(missing_ok=True)
    began = time.perf_counter()
    folder, resume = RunFolder(config.folder), job["resume"]
    if job["take"] is not None:
        take(Path(job["take"]), folder)
        resume = True
    elif not resume:
        forget(folder)
    outcome = train(config, resume=resume, overwrite=not resume, console=Console(width=120))
    if outcome.signum is not None:
        return 128 + outcome.signum
    threads = torch.get_num_threads()
    metrics = {
        name: _evaluated(folder, name, asked, config.train.device, threads) for name, asked in job["asked"].items()
    }
    log = read_log(folder.log)
    write_record(
        record,
        {
            **{key: job[key] for key in ("experiment", "cell", "variant", "value", "seed", "asked")},
            "settings": config.model_dump(mode="json"),
            "metrics": metrics,
            "best": outcome.best,
            "validation": [[line["step"], line["R@1"]] for line in log if line["kind"] == "validation"],
            "matches": match_history(folder, log),
            "cost": _cost(config, log),
            "seconds": round(time.perf_counter() - began, 1),
            "resumed": resume,
            "built_from": built_from(),
            "hardware": _hardware(pick_device(config.train.device), threads),
            **(origin_of(folder.path) or {}),
        },
    )
    return 0


def _cost(config: Any, log: list[dict[str, Any]]) -> dict[str, float | None]:
    """Time of a step, without the first ones logged; the memory of the loop at its highest, above that before it."""
    rates = [line["samples_per_second"] for line in log if line["kind"] == "train" and line["samples_per_second"]]
    peaks = [line["peak_mib"] for line in log if line["kind"] in ("run", "train") and "peak_mib" in line]
    times = [1000 * config.train.batch_size / rate for rate in rates[1:]]
    return {
        "ms a step": round(median(times), 2) if times else None,
        "ms a step, mean": round(fmean(times), 2) if times else None,
        "MiB": round(max(peaks) - peaks[0], 1) if len(peaks) > 1 else None,
    }


def _evaluated(folder: Any, name: str, asked: dict[str, Any], device: str, threads: int) -> dict[str, Any]:
    """Row to metric to number."""
    out = folder.path / f"metrics-{name}.json"
    if asked["command"] is not None:
        places = {"{run}": str(folder.path), "{json}": str(out)}
        words = [places.get(word, word) for word in shlex.split(asked["command"])[1:]]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        done = subprocess.run([sys.executable, "-m", "mover", *words], env=environment)
        if done.returncode:
            from mover.errors import UserError

            raise UserError(f"evaluation '{name}': mover {shlex.join(words)} ended with {done.returncode}.")
        rows = json.loads(out.read_text(encoding="utf-8"))
        return {key: row for key, row in rows.items() if not key.startswith("_")}

    from mover.evaluate.run import evaluate_checkpoint

    result = evaluate_checkpoint(
        folder.best,
        manifest=None if asked["manifest"] is None else Path(asked["manifest"]),
        split=asked["split"],
        missing=asked["missing"],
        device=device,
        out=out,
        embeddings_out=folder.path / f"embeddings-{name}.npz",
        say=lambda text: print(text, flush=True),
    )
    return {
        row: {key: value for key, value in values.items() if key not in _LEFT_OUT}
        for row, values in result.metrics.items()
    }


def _hardware(device: Any, threads: int) -> dict[str, Any]:
    """The processor, and the GPU where one was used."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    found: dict[str, Any] = {"processor": name, "threads": threads}
    if device.type == "cuda":
        import torch

        found["gpu"] = torch.cuda.get_device_name(device)
    return found


if __name__ == "__main__":
    sys.exit(main())
