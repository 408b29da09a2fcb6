"""Injects every fault that docs/reliability.md promises to survive, so many times each, and writes what came of it
there: the tables between its markers, from docs/results/faults.json."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import caches
import damage
import kills
import numbers_lost
import overhead
import processes
import stops
import storage
import torch
from fault import Fault, NotHere
from place import Place

ROOT = Path(__file__).parents[2]
PAGE, RECORD = ROOT / "docs" / "reliability.md", ROOT / "docs" / "results" / "faults.json"
_MODULES = (kills, stops, storage, damage, caches, numbers_lost, processes)
FAULTS = {fault.name: fault for module in _MODULES for fault in module.FAULTS}
RESUME = "resume"
"""Among the names: the cost of going on, which is no fault."""


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 1 where a run did not recover."""
    arguments = _parse(words)
    record = json.loads(arguments.record.read_text()) if arguments.record.exists() else {"faults": {}, "resume": []}
    failed, here = False, environment()
    with tempfile.TemporaryDirectory(prefix="mover-faults-") as folder:
        place = Place(Path(folder))
        for name in arguments.names:
            if name == RESUME:
                record["resume"] = overhead.measure(place, arguments.quick)
            else:
                fault = FAULTS[name]
                row = inject(place, fault, min(fault.times, 2) if arguments.quick else arguments.times or fault.times)
                record["faults"][name] = row | {"commit": here["commit"]}
                failed |= row["recovered"] < row["times"]
            if not arguments.quick:
                record["environment"] = here
                arguments.record.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.record == RECORD and not arguments.quick:
        PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")
    return int(failed)


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    listing = "\n".join(f"  {fault.name:16} {fault.times:3} x  {fault.what}" for fault in FAULTS.values())
    parser = argparse.ArgumentParser(
        prog="scripts/faults", description=f"{__doc__}\n\nfaults:\n{listing}\n  {RESUME:16}        what going on costs",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="name", help="which faults (default: all)")
    parser.add_argument("--quick", action="store_true", help="each at most twice; nothing is written")
    parser.add_argument("--times", type=int, help="how often each, in place of the numbers below")
    parser.add_argument(
        "--record", type=Path, default=RECORD, help="file of what came of it (%(default)s); the page is of this one"
    )
    arguments = parser.parse_args(words)
    known = (*FAULTS, RESUME)
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        parser.error(f"unknown fault '{unknown[0]}'; choose from {', '.join(known)}")
    arguments.names = arguments.names or list(known)
    return arguments


def inject(place: Place, fault: Fault, times: int) -> dict[str, Any]:
    """Inject a fault so many times; how many runs recovered, what the user saw, and what went wrong."""
    seen, wrong, began = fault.sees, [], time.monotonic()
    for i in range(times):
        try:
            seen = fault.once(place, (i + 0.5) / times) or seen
        except NotHere as reason:
            print(f"{fault.name}: not injected: {reason}", flush=True)
            return {"times": 0, "recovered": 0, "sees": str(reason), "wrong": []}
        except AssertionError as error:
            wrong.append(str(error))
            print(f"{fault.name}: {error}", file=sys.stderr, flush=True)
        spent = time.monotonic() - began
        print(f"{fault.name}: {i + 1} of {times} times, {len(wrong)} not recovered, {spent:.0f} s", flush=True)
    return {"times": times, "recovered": times - len(wrong), "sees": seen, "wrong": wrong}


def environment() -> dict[str, str]:
    """Processor, versions and commit."""
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    git = lambda *about: subprocess.run(["git", "-C", ROOT, *about], capture_output=True, text=True).stdout  # noqa: E731
    changes = " with changes" if git("status", "--porcelain", "--untracked-files=no", "python").strip() else ""
    return {
        "processor": models[0] if models else platform.processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "safetensors": importlib.metadata.version("safetensors"),
        "commit": git("rev-parse", "--short", "HEAD").strip() + changes,
    }


def rendered(page: str, record: dict[str, Any]) -> str:
    """The page with the tables of a record between its markers."""
    rows = [
        "| what goes wrong | how it is injected | times | recovered | what the user sees |",
        "|---|---|---|---|---|",
    ]
    for name, fault in FAULTS.items():
        if name in record["faults"]:
            row = record["faults"][name]
            times = row["times"] or "not here"
            rows.append(f"| {fault.what} | {fault.how} | {times} | {row['recovered']} | {_cell(row['sees'])} |")
    where = ", ".join(f"{key} {value}" for key, value in record["environment"].items() if key != "commit")
    commits = sorted({row["commit"] for row in record["faults"].values()})
    where += f", commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}"
    made = f"\n\nMade by `scripts/faults` on: {where}.\n"
    page = _between(page, "faults", "\n".join(rows) + made)
    return _between(page, "resume", overhead.table(record["resume"]) + made)


def _cell(text: str) -> str:
    """An error as code; what is described in words stays as it is."""
    text = text.replace("|", "\\|")
    return text if "`" in text or not text.endswith(".") else f"`{text}`"


def _between(page: str, name: str, text: str) -> str:
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    assert rest and after, f"{PAGE} lacks the marks {begin.strip()} … {end}"
    return f"{before}{begin}{text}{end}{after}"


if __name__ == "__main__":
    sys.exit(main())
