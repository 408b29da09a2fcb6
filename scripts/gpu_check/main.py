"""Checks mover on the GPU of this machine: builds for it, tests, compute-sanitizer, benchmarks.

Every step has a limit of its own, a log and a status; one that fails does not keep others from running, unless they
need it. The whole ends within ten minutes. Nothing is installed and no setting of the GPU is changed. The libraries go
into python/mover/lib, everything else into build/gpu-check and the folder of the report.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from process import LEFT_OUT, PASSED, Outcome, Step, run_steps, text_of
from steps import BUILD, NAMES, ROOT, TOTAL, Machine, all_steps, googletest_here

PROBE = ROOT / "scripts" / "benchmarks" / "gpu" / "environment.py"
EPILOG = f"""steps:
  {", ".join(NAMES)}

examples:
  scripts/gpu-check
  scripts/gpu-check --quick --googletest ~/googletest-1.17.0
  scripts/gpu-check --only build pytest
"""


class Unable(Exception):
    """This machine cannot run the check; the text says why, and what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/gpu-check",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="benchmarks at few sizes")
    parser.add_argument("--out", type=Path, default=BUILD / "report", help="folder of the report (%(default)s)")
    parser.add_argument("--python", help="whose torch is used (default: .venv, else the one that runs this)")
    parser.add_argument("--googletest", type=Path, help="folder of GoogleTest: an installation, or unpacked sources")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="these steps alone, of those listed below")
    parser.add_argument("--commit", default="", help="what to record as the commit where git cannot say")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    arguments = parser.parse_args()
    for name in arguments.only or ():
        if name not in NAMES:
            parser.error(f"unknown step '{name}'; choose from {', '.join(NAMES)}")
    if arguments.googletest and not arguments.googletest.is_dir():
        parser.error(f"--googletest: there is no folder {arguments.googletest}")
    begin = time.monotonic()
    try:
        machine, environment = look(arguments.python, arguments.dry_run)
    except Unable as reason:
        print(f"gpu-check: {reason}", file=sys.stderr)
        return 2
    if arguments.commit:
        environment["commit"] = arguments.commit
    out = arguments.out.resolve()
    googletest = arguments.googletest.resolve() if arguments.googletest else googletest_here()
    steps = all_steps(machine, googletest, out, arguments.quick, arguments.commit)
    steps = [step for step in steps if not arguments.only or step.name in arguments.only]
    if arguments.dry_run:
        print("\n".join(described(steps)))
        return 0
    print("gpu-check: " + ", ".join(f"{key} {value}" for key, value in environment.items()), flush=True)
    lock = threading.Lock()

    def tell(step: Step, outcome: Outcome) -> None:
        with lock:
            print(f"{step.name}: {outcome.status}, {outcome.seconds:.0f} s {outcome.note}".rstrip(), flush=True)

    outcomes = run_steps(steps, out / "logs", begin + TOTAL, tell)
    report = {
        "command": text_of(["scripts/gpu-check", *sys.argv[1:]]),
        "passed": all(outcome.status == PASSED for outcome in outcomes.values()),
        "seconds": round(time.monotonic() - begin, 1),
        "environment": environment,
        "steps": {
            step.name: {**asdict(outcomes[step.name]), "commands": [text_of(command) for command in step.commands]}
            for step in steps
        },
    }
    path = out / "gpu-check.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{summary(outcomes)}\n\n{path} written; the logs are in {out / 'logs'}")
    return 0 if report["passed"] else 1


def look(python: str | None, dry_run: bool) -> tuple[Machine, dict]:
    """The machine and its description. In a dry run what is missing is made up. Raises Unable."""
    candidates = [python] if python else [str(ROOT / ".venv" / "bin" / "python"), sys.executable]
    found = [path for path in map(shutil.which, candidates) if path]
    if not found:
        raise Unable(f"there is no {candidates[-1]}; name a Python that has torch with --python")
    probes = {path: probe(path) for path in found}
    chosen = next((path for path, seen in probes.items() if seen.get("capability")), found[0])
    seen = probes[chosen]
    nvcc = shutil.which(os.environ.get("CUDACXX", "nvcc")) or shutil.which("/usr/local/cuda/bin/nvcc")
    missing = seen.get("missing", "")
    if not missing and not nvcc:
        missing = (
            "nvcc is neither on PATH nor in /usr/local/cuda/bin. Install the CUDA toolkit, or put its nvcc on PATH"
        )
    if not missing and not shutil.which("cmake"):
        missing = "cmake is not on PATH. Install it (apt-get install cmake ninja-build)"
    if missing and not dry_run:
        raise Unable(missing)
    if missing:
        print(f"gpu-check: {missing}. In a real run it would end here.", file=sys.stderr)
    nvcc = nvcc or "nvcc"
    machine = Machine(
        python=chosen,
        capability=seen.get("capability") or "9.0",
        nvcc=nvcc,
        sanitizer=shutil.which("compute-sanitizer") or shutil.which(str(Path(nvcc).with_name("compute-sanitizer"))),
        packages=frozenset(seen.get("packages", ())),
        jobs=os.cpu_count() or 1,
    )
    return machine, {**seen.get("environment", {}), "nvcc": version_of(nvcc), "processors": machine.jobs}


def probe(python: str) -> dict:
    """What that Python says of its torch and the GPU, or under "missing" why it is of no use."""
    try:
        process = subprocess.run([python, "-P", str(PROBE)], capture_output=True, text=True, timeout=120, check=False)
        answer = json.loads(process.stdout.splitlines()[-1])
        return {**answer}
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"missing": f"{python} cannot be run: {error}"}
    except (IndexError, TypeError, ValueError):
        return {"missing": f"{python} cannot be asked for its torch: {(process.stderr.strip() or 'no answer')[-300:]}"}


def version_of(nvcc: str) -> str:
    try:
        text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return "not found"
    return text.rsplit("release ", 1)[-1].split(",")[0].strip() if "release " in text else "unknown"


def described(steps: list[Step]) -> list[str]:
    """The commands of the steps, as a script with comments."""
    lines = []
    for step in steps:
        lines.append(
            f"# {step.name}, at most {step.limit:.0f} s" + (f": left out, {step.absent}" if step.absent else "")
        )
        if not step.absent:
            lines += [text_of(command) for command in step.commands]
    return lines


def summary(outcomes: dict[str, Outcome]) -> str:
    """A table, and what failed."""
    width = max(map(len, outcomes), default=0)
    lines = [f"{n:{width}}  {o.status:9}  {o.seconds:6.1f} s  {o.note}".rstrip() for n, o in outcomes.items()]
    for name, outcome in outcomes.items():
        if outcome.status not in (PASSED, LEFT_OUT):
            lines += ["", f"{name} ({outcome.log}):", *(f"  {line}" for line in outcome.failures)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
