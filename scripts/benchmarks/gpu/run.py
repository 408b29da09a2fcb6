"""Runs the GPU benchmarks, writes <out>/<name>-cuda.json and its table, and the summary <out>/cuda.md."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path

import torch

import mover.ops
from gpu import contrast, environment, logdet, ranking, rates, summary, transport, triples
from gpu.clock import NO_TIME, Clock

BENCHMARKS = {
    "transport": transport,
    "triples": triples,
    "contrast": contrast,
    "ranking": ranking,
    "logdet": logdet,
}
# How the time is shared where it is bounded: what each benchmark may take of what is left when it begins.
SHARES = {"transport": 0.55, "triples": 0.3, "contrast": 0.4, "ranking": 0.5, "logdet": 1.0}
OURS, TOLD = ("mover", "volume_scores"), ("absent", "no gradient", "no graph")
SPARE = 15.0  # seconds of the bound that are kept for what is under way when it is over


def main(names: list[str], plan: str, out: Path, within: float | None, commit: str) -> int:
    """The exit code: 1 where a benchmark failed as a whole, 2 where there is no GPU, or no CUDA kernels."""
    begin = time.monotonic()
    reason = environment.missing() or without_kernels()
    if reason:
        print(f"bench: {reason}.", file=sys.stderr)
        return 2
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take most of the memory
    described = environment.describe()
    if commit:
        described["commit"] = commit
    clock, failed = Clock(), []
    measured = rates.measure(clock)
    print(summary.rates_text(measured), flush=True)
    for name in names or BENCHMARKS:
        if within:
            left = within - SPARE - (time.monotonic() - begin)
            clock.deadline = time.monotonic() + left * (SHARES[name] if not names else 1.0)
        command = f"scripts/bench --device cuda {name}" + (f" --{plan}" if plan != "default" else "")
        try:
            rows = BENCHMARKS[name].run(plan, clock)
        except Exception:  # the others can still be measured
            traceback.print_exc()
            failed.append(name)
            continue
        broken = failures_of_mover(rows)
        if broken:
            print(f"{name}: mover failed: {broken[0]}", file=sys.stderr)
            failed.append(name)
        kept = [row for row in rows if not untimed(row)]
        if len(kept) < len(rows):
            print(f"{name}: {len(rows) - len(kept)} of {len(rows)} sizes are left out: no time was left", flush=True)
        record = {"command": command, "environment": described, "rates": measured.record(), "rows": kept}
        for path in write(name, record, out):
            print(f"{path} written", flush=True)
        print(f"{write_summary(out)} written", flush=True)
    if failed:
        print(f"bench: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def failures_of_mover(rows: list[dict]) -> list[str]:
    """What mover raised, where it should have been timed. Peers may fail."""
    entries = [item for row in rows for item in row.get("contenders", {}).items()]
    told = [entry.get(key, "") for name, entry in entries if name.startswith(OURS) for key in TOLD]
    return [text for text in told if "raises" in text]


def untimed(row: dict) -> bool:
    """Whether there was no time left for mover at this size."""
    ours = [entry for name, entry in row.get("contenders", {}).items() if name.startswith(OURS)]
    return bool(ours) and all(entry.get("absent") == NO_TIME for entry in ours)


def without_kernels() -> str:
    """Why the operators do not run on the GPU; "" where they do."""
    row = torch.eye(1, 2, device="cuda")
    try:
        mover.ops.volume_scores(row, row.unsqueeze(0))
    except RuntimeError as error:
        return str(error).rstrip(".")
    return ""


def write(name: str, record: dict, out: Path) -> list[Path]:
    """The paths of the record and of its table."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}-cuda.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(render(name, record))
    return [path, path.with_suffix(".md")]


def write_summary(out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "cuda.md"
    path.write_text(summary.render(stored(out)))
    return path


def stored(out: Path) -> dict[str, dict]:
    """The records in a folder, by name."""
    paths = {name: out / f"{name}-cuda.json" for name in BENCHMARKS}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def render_all(out: Path) -> list[Path]:
    """Renders every table anew from the stored records."""
    paths = [write(name, record, out)[1] for name, record in stored(out).items()]
    return [*paths, write_summary(out)]


def render(name: str, record: dict) -> str:
    module = BENCHMARKS[name]
    where = ", ".join(f"{key} {value}" for key, value in record["environment"].items())
    measured = rates.Rates(**record["rates"])
    return (
        f"# {name}, CUDA\n\n{module.DESCRIPTION}\n\nRates of this GPU: {summary.rates_text(measured)}.\n\n"
        f"{module.table(record['rows'], measured)}\n\n"
        f"Rendered from `{name}-cuda.json`, made by `{record['command']}` on: {where}.\n"
    )
