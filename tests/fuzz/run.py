"""Runs one target of the Python package: `python tests/fuzz/run.py manifest --runs 500 --seed 1`.

An input fails with an exception other than UserError, a crash, half a minute of a processor, or more memory than the
limit.
It is then kept, and the exit code is 1. With atheris, where it is installed, inputs are guided by what they reach;
without, they are mutations that follow from the seed. Given files, these are run instead.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "python")]
SECONDS_EACH = 30
MEGABYTES = 1024
"""Memory that an input may take beyond what the package takes."""


class Runner:
    """Runs inputs of a target, each in an empty folder, and keeps what fails."""

    def __init__(self, name: str, keep: Path) -> None:
        from targets import TARGETS

        self.name, self.target, self.keep = name, TARGETS[name], keep
        keep.mkdir(parents=True, exist_ok=True)
        self.present = keep / f"{name}-running"
        faulthandler.register(signal.SIGPROF, chain=True)  # shows where it is, and ends the process
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory))
        self.seeds = self.target.seeds(self._empty())

    def _empty(self) -> Path:
        place = self.folder / "input"
        place.mkdir(exist_ok=True)
        for entry in os.scandir(place):
            os.unlink(entry)
        return place

    def __call__(self, data: bytes) -> None:
        from mover.errors import UserError

        with contextlib.suppress(UserError):
            self.target.run(data, self._empty())

    def watched(self, data: bytes) -> None:
        """The same, with the input kept where the process does not come back from it."""
        self.present.write_bytes(data)
        signal.setitimer(signal.ITIMER_PROF, SECONDS_EACH)  # seconds of a processor: others may keep it busy
        try:
            self(data)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def failed(self, data: bytes) -> Path:
        path = self.keep / f"{self.name}-{hashlib.blake2b(data, digest_size=8).hexdigest()}"
        path.write_bytes(data)
        return path

    def close(self) -> None:
        self.present.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def peak() -> int:
    """Megabytes that this process has taken at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def inputs(runner: Runner, runs: int, seconds: float | None, seed: int) -> Iterator[bytes]:
    """The seeds, then mutations of them."""
    from mutate import mutated

    yield from runner.seeds
    end = None if seconds is None else time.monotonic() + seconds
    number = 0
    while number < runs if end is None else time.monotonic() < end:
        yield mutated(runner.seeds, runner.target.words, random.Random(f"{seed} {number}"))
        number += 1


def without_guidance(runner: Runner, data: Iterator[bytes]) -> int:
    before, failures, count = None, 0, 0
    for entry in data:
        try:
            runner.watched(entry)
        except Exception as error:
            failures += 1
            print(f"fuzz: {runner.name}: {type(error).__name__}: {error!s:.200}; kept as {runner.failed(entry)}")
            logging.getLogger("fuzz").debug("", exc_info=True)
        count += 1
        if count == len(runner.seeds):  # what the libraries take is taken
            before = peak()
            limit_memory(MEGABYTES + 512)
        if before is not None and peak() > before + MEGABYTES:
            print(f"fuzz: {runner.name}: more than {MEGABYTES} MB; kept as {runner.failed(entry)}")
            failures += 1
            break
    print(f"fuzz: {runner.name}: {count} inputs, {failures} failures, peak {peak()} MB")
    runner.close()
    return int(failures > 0)


def limit_memory(megabytes: int) -> None:
    """A request for more than this beyond what is there is refused, and the machine spared."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def guided(name: str, options: argparse.Namespace) -> int:
    """Under atheris, which ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=["mover"], enable_loader_override=False):
        runner = Runner(name, options.keep)
        for entry in runner.seeds:
            runner(entry)
    corpus = options.corpus or options.keep.parent / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, entry in enumerate(runner.seeds):
        (corpus / f"seed-{number}").write_bytes(entry)
    words = runner.folder / "words"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in runner.target.words))
    arguments = [sys.argv[0], str(corpus), f"-seed={options.seed}", "-max_len=65536", f"-timeout={SECONDS_EACH + 5}"]
    arguments += [
        f"-rss_limit_mb={peak() + MEGABYTES}",
        f"-artifact_prefix={options.keep}/{name}-",
        f"-dict={words}",
        "-print_final_stats=1",
    ]
    arguments += [f"-max_total_time={options.seconds:.0f}" if options.seconds else f"-runs={options.runs}"]
    atheris.Setup(arguments, runner)
    atheris.Fuzz()
    return 0


def main() -> int:
    from targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("files", nargs="*", type=Path, help="inputs to run instead of any others")
    parser.add_argument("--runs", type=int, default=500, help="mutations [%(default)s]")
    parser.add_argument("--seconds", type=float, help="how long, instead of --runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--keep", type=Path, default=ROOT / "build" / "fuzz" / "found", help="folder for inputs that fail"
    )
    parser.add_argument("--corpus", type=Path, help="folder of inputs that atheris goes on from")
    parser.add_argument("--engine", choices=("atheris", "mutate"), default="mutate")
    parser.add_argument("--verbose", action="store_true", help="show the traceback of what fails")
    options = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.CRITICAL)
    logging.disable(logging.WARNING if options.verbose is False else logging.NOTSET)
    if options.engine == "atheris" and not options.files:
        return guided(options.target, options)
    runner = Runner(options.target, options.keep)
    if options.files:
        return without_guidance(runner, (path.read_bytes() for path in options.files))
    return without_guidance(runner, inputs(runner, options.runs, options.seconds, options.seed))


if __name__ == "__main__":
    sys.exit(main())
