"""Plants small bugs in a CUDA source, one at a time, and records which build of the emulated tests notices.

The sources are copied to a scratch folder, where the three builds of the affected tests (fast, asan, race) are made and
must pass. Then, for each bug: one token is changed, what depends on it is built again, and the tests run under all
schedules of each build. A bug that no build notices either makes no difference or shows what the tests lack.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = Path("kernels/cuda")
EQUIVALENT = Path("tests/cuda_on_cpu/equivalent.json")
BUILDS = {"fast": "cpu", "asan": "asan", "race": "cpu"}  # and the preset that makes them

EPILOG = """Bugs that are known to make no difference are listed in tests/cuda_on_cpu/equivalent.json, with the reason.
The record goes to <out>/mutation/<file>.json; <out>/mutation.md is written from all records there.

examples:
  scripts/mutate --file scores.cu --list                      which bugs there are
  scripts/mutate --file scores.cu --limit 30 --seed 1
  scripts/mutate --file reduce.cuh --test cuda_gram --test cuda_volume --minutes 20
  scripts/mutate --file tests/cuda_on_cpu/samples.cu --test emulator_samples
"""


@dataclass(frozen=True)
class Operator:
    """One way to break code: what it looks for, what it puts there, and whether only within [ ]."""

    name: str
    pattern: str
    replacement: str
    in_index: bool = False


OPERATORS = [
    Operator("drop-barrier", r"__syncthreads\(\);", ";"),
    Operator("drop-warp-barrier", r"__syncwarp\(\);", ";"),
    Operator("drop-grid-barrier", r"mover_grid_sync\(\);", ";"),
    Operator("drop-copy-wait", r"mover_copy_wait<\w+>\(\);", ";"),
    Operator("weak-copy-wait", r"mover_copy_wait<0>", "mover_copy_wait<1>"),
    Operator("drop-copy-commit", r"mover_copy_commit\(\);", ";"),
    Operator("half-mask", r"\b0xffffffffu?\b", "0x0000ffffu"),
    Operator("xor-to-down", r"__shfl_xor_sync", "__shfl_down_sync"),
    Operator("short-butterfly", r"= 16(?=; \w+ (>|>=|!=) )", "= 8"),
    Operator("half-lane", r"(?<=threadIdx\.x )% 32\b", "% 16"),
    Operator("half-lane", r"& 31\b", "& 15"),
    Operator("half-warp", r"(?<=threadIdx\.x )/ 32\b", "/ 16"),
    Operator("half-warp", r">> 5\b", ">> 4"),
    Operator("two-for-one", r"(?<=lane )== 0\b", "<= 1"),
    Operator("two-for-one", r"(?<=threadIdx\.x )== 0\b", "<= 1"),
    Operator("less-equal", r"(?<= )<(?= )", "<="),
    Operator("less", r"(?<= )<=(?= )", "<"),
    Operator("greater-equal", r"(?<= )>(?= )", ">="),
    Operator("greater", r"(?<= )>=(?= )", ">"),
    Operator("equal-to-unequal", r"(?<= )==(?= )", "!="),
    Operator("minus-in-index", r"(?<= )\+(?= )", "-", in_index=True),
    Operator("plus-for-times", r"(?<= )\*(?= )", "+", in_index=True),
    Operator("times-for-over", r"(?<= )/(?= )", "*", in_index=True),
    Operator("one-more", r"\+ 1\b(?!\.)", "+ 2"),
    Operator("one-less", r"- 1\b(?!\.)", "- 2"),
    Operator("same-stage", r" \^ 1\b", ""),
    Operator("max-to-min", r"\bfmax(f?)\(", r"fmin\1("),
    Operator("min-to-max", r"\b(?<!mover_)min\(", "max("),
    Operator("and-to-or", r"&&", "||"),
    Operator("sum-to-last", r"(?<= )\+=(?= (?:[^;()]|\((?:[^()]|\([^()]*\))*\))*;)", "="),  # no step of a loop
    Operator("wrong-dimension", r"gridDim\.x", "1"),
]


@dataclass
class Mutant:
    """One changed place of a file, and what each build said."""

    kind: str
    line: int
    before: str
    after: str
    verdicts: dict[str, str] = field(default_factory=dict)  # by build: what noticed, or ""
    equivalent: str = ""  # the reason why it makes no difference, if that is known

    @property
    def noticed(self) -> bool:
        return any(self.verdicts.values())


def code_mask(source: str) -> list[bool]:
    """For each character whether it is code: no comment, no string, no directive."""
    mask = [True] * len(source)
    skipped = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|^[ \t]*#(?:\\\n|[^\n])*'
    for match in re.finditer(skipped, source, re.DOTALL | re.MULTILINE):
        mask[match.start() : match.end()] = [False] * (match.end() - match.start())
    return mask


def index_mask(source: str, code: list[bool]) -> list[bool]:
    """For each character whether it stands between [ and ]."""
    depth = 0
    mask = []
    for character, is_code in zip(source, code, strict=True):
        if is_code and character == "]":
            depth -= 1
        mask.append(depth > 0)
        if is_code and character == "[":
            depth += 1
    return mask


def find_mutants(source: str) -> list[tuple[Mutant, str]]:
    """Every mutant of a source, each with its text."""
    code = code_mask(source)
    index = index_mask(source, code)
    found = []
    seen = set()
    for operator in OPERATORS:
        for match in re.finditer(operator.pattern, source):
            start, end = match.span()
            inside = all(code[start:end]) and (index[start] or not operator.in_index)
            text = source[:start] + match.expand(operator.replacement) + source[end:]
            line = source.count("\n", 0, start)
            before, after = source.splitlines()[line].strip(), text.splitlines()[line].strip()
            if not inside or is_declaration(before) or text in seen:
                continue
            seen.add(text)
            found.append((Mutant(operator.name, line + 1, before, after), text))
    return found


def is_declaration(line: str) -> bool:
    """Lines that hold no code that runs: conditions of templates, assertions of the compiler."""
    return line.startswith(("template", "static_assert", "typedef"))


def choose(mutants: list, limit: int, seed: int) -> list:
    """`limit` of the mutants, drawn from all kinds in turn, in the order of the file."""
    numbers = random.Random(seed)
    kinds: dict[str, list] = {}
    for entry in mutants:
        kinds.setdefault(entry[0].kind, []).append(entry)
    for entries in kinds.values():
        numbers.shuffle(entries)
    in_turn = [entry for entries in itertools.zip_longest(*kinds.values()) for entry in entries if entry]
    return sorted(in_turn[:limit], key=lambda entry: entry[0].line)


class Scratch:
    """A copy of the sources with its builds."""

    def __init__(self, folder: Path, tests: list[str], jobs: int):
        self.folder, self.tests, self.jobs = folder, tests, jobs
        self.patience = 300.0  # seconds that a run may take

    def prepare(self) -> None:
        """Copies what has changed, configures and builds."""
        listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
        for name in filter(None, names):
            copy_if_changed(ROOT / name, self.folder / name)
        for preset in dict.fromkeys(BUILDS.values()):
            options = ["-DMOVER_TORCH=OFF", "-DMOVER_NATIVE=OFF", "-DMOVER_WERROR=OFF"]
            run_or_exit(["cmake", "--preset", preset, *options], self.folder)
        for build in BUILDS:
            ok, output = self.build(build)
            if not ok:
                sys.exit(f"mutate: the {build} build does not compile as it is:\n{output}")
        started = time.monotonic()
        for build in BUILDS:
            if verdict := self.verdict(build):
                sys.exit(f"mutate: the {build} build fails as it is: {verdict}")
        self.patience = 10 + 10 * (time.monotonic() - started)

    def build(self, build: str) -> tuple[bool, str]:
        targets = [f"{test}_{build}" for test in self.tests]
        command = ["cmake", "--build", f"build/{BUILDS[build]}", "-j", str(self.jobs), "--target", *targets]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        return done.returncode == 0, done.stdout + done.stderr

    def runs(self, build: str) -> Iterator[tuple[list[str], dict[str, str]]]:
        """Command and environment of each run of the tests of a build, as CTest has them."""
        listing = ["ctest", "--test-dir", f"build/{BUILDS[build]}", "--show-only=json-v1"]
        done = subprocess.run(listing, cwd=self.folder, capture_output=True, text=True, check=True)
        wanted = tuple(f"cuda_on_cpu.{test}.{build}." for test in self.tests)
        for test in json.loads(done.stdout)["tests"]:
            if test["name"].startswith(wanted):
                properties = {entry["name"]: entry["value"] for entry in test["properties"]}
                yield test["command"], dict(entry.split("=", 1) for entry in properties["ENVIRONMENT"])

    def verdict(self, build: str) -> str:
        """What the tests of a build find wrong, in a few words; "" if nothing."""
        for command, environment in self.runs(build):
            try:
                done = subprocess.run(
                    command,
                    env={**os.environ, **environment},
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=self.patience,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return "does not end"
            if done.returncode:
                return reason(done.stdout + done.stderr, done.returncode)
        return ""


def copy_if_changed(source: Path, target: Path) -> None:
    if not source.is_file() or (target.is_file() and target.read_bytes() == source.read_bytes()):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    shutil.copymode(source, target)


def run_or_exit(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"mutate: {' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def reason(output: str, status: int) -> str:
    """Why a test failed: the first report, or the sanitizer's word, or a wrong result."""
    patterns = [
        r"cuda_on_cpu: ([\w-]+): ",
        r"AddressSanitizer: ([\w-]+)",
        r"runtime error: ([a-z ]+)",
    ]
    found = [match for pattern in patterns if (match := re.search(pattern, output))]
    if found:
        return min(found, key=lambda match: match.start()).group(1).strip()
    return "wrong result" if "FAILED" in output else f"exit status {status}"


def find_file(name: str) -> Path:
    for path in (KERNELS / name, Path(name)):
        if (ROOT / path).is_file():
            return path
    sys.exit(f"mutate: there is no {KERNELS / name}")


def find_tests(path: Path, named: list[str]) -> list[str]:
    if named:
        return named
    if (ROOT / "tests/cuda" / f"test_{path.stem}.cpp").is_file():
        return [f"cuda_{path.stem}"]
    known = sorted(f"cuda_{test.stem.removeprefix('test_')}" for test in (ROOT / "tests/cuda").glob("test_*.cpp"))
    return sys.exit(f"mutate: which tests notice bugs in {path.name}? Give --test, one of {', '.join(known)}")


def known_equivalents(path: Path) -> Callable[[Mutant], str]:
    """Looks up the reason why a mutant makes no difference; "" if none is known."""
    entries = json.loads((ROOT / EQUIVALENT).read_text()) if (ROOT / EQUIVALENT).is_file() else []
    reasons = {(entry["file"], entry["before"], entry["after"]): entry["reason"] for entry in entries}
    return lambda mutant: reasons.get((path.as_posix(), mutant.before, mutant.after), "")


def try_mutant(scratch: Scratch, mutant: Mutant) -> bool:
    """Fills in the verdicts; whether the mutant compiles."""
    for build in BUILDS:
        compiles, _ = scratch.build(build)
        if not compiles:
            return False
        mutant.verdicts[build] = scratch.verdict(build)
    return True


def run(arguments: argparse.Namespace) -> None:
    path = find_file(arguments.file)
    mutants = find_mutants((ROOT / path).read_text())
    if arguments.list:
        for mutant, _ in mutants:
            print(f"{mutant.line:5} {mutant.kind:18} {mutant.after}")
        print(f"{len(mutants)} bugs")
        return
    chosen = choose(mutants, arguments.limit, arguments.seed)
    tests = find_tests(path, arguments.test)
    scratch = Scratch(arguments.scratch.resolve(), tests, arguments.jobs)
    print(f"building {', '.join(tests)} in {arguments.scratch}", flush=True)
    scratch.prepare()
    started = time.monotonic()
    equivalent = known_equivalents(path)
    tried, broken = [], 0
    try:
        for mutant, text in chosen:
            if time.monotonic() - started > 60 * arguments.minutes:
                print(f"{arguments.minutes} minutes are over")
                break
            (scratch.folder / path).write_text(text)
            if not try_mutant(scratch, mutant):
                broken += 1
                continue
            mutant.equivalent = "" if mutant.noticed else equivalent(mutant)
            tried.append(mutant)
            print(
                f"{mutant.line:5} {mutant.kind:18} " + " | ".join(f"{b}: {mutant.verdicts[b] or '-'}" for b in BUILDS)
            )
            sys.stdout.flush()
    finally:
        shutil.copyfile(ROOT / path, scratch.folder / path)
    record = {
        "command": "scripts/mutate " + " ".join(sys.argv[1:]),
        "file": path.as_posix(),
        "tests": tests,
        "possible": len(mutants),
        "do_not_compile": broken,
        "mutants": [asdict(mutant) for mutant in tried],
    }
    write(record, arguments.out)


def write(record: dict, out: Path) -> None:
    """Writes the record and renders the table of all records."""
    folder = out / "mutation"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{Path(record['file']).stem}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    table = out / "mutation.md"
    table.write_text(render([json.loads(entry.read_text()) for entry in sorted(folder.glob("*.json"))]))
    print(f"{path} and {table} written")
    print(render([record]))


def render(records: list[dict]) -> str:
    lines = [
        "# Mutation of the CUDA kernels",
        "",
        "Bugs of one token, planted one at a time by `scripts/mutate`, and which build of the emulated tests noticed.",
        "",
        "| file | bugs | noticed | " + " | ".join(BUILDS) + " | equivalent | survived |",
        "|---|" + "---:|" * (4 + len(BUILDS)),
    ]
    for record in records:
        mutants = [Mutant(**entry) for entry in record["mutants"]]
        noticed = sum(mutant.noticed for mutant in mutants)
        equivalent = sum(bool(mutant.equivalent) for mutant in mutants)
        by_build = [str(sum(bool(mutant.verdicts[build]) for mutant in mutants)) for build in BUILDS]
        cells = [f"`{record['file']}`", f"{len(mutants)} of {record['possible']}", str(noticed), *by_build]
        cells += [str(equivalent), str(len(mutants) - noticed - equivalent)]
        lines.append("| " + " | ".join(cells) + " |")
    causes = Counter(v for record in records for entry in record["mutants"] for v in entry["verdicts"].values() if v)
    lines += ["", "First cause: " + ", ".join(f"{cause} {count}" for cause, count in causes.most_common()) + "."]
    for title, wanted in (("Survivors", False), ("Known to make no difference", True)):
        lines += ["", f"## {title}", ""]
        listed = [line for record in records for line in listing(record, wanted)]
        lines += listed or ["None."]
    lines += ["", "## Commands", ""] + [f"    {record['command']}" for record in records]
    return "\n".join(lines) + "\n"


def listing(record: dict, equivalent: bool) -> Iterator[str]:
    for entry in record["mutants"]:
        mutant = Mutant(**entry)
        if not mutant.noticed and bool(mutant.equivalent) == equivalent:
            why = f": {mutant.equivalent}" if equivalent else ""
            yield f"- `{record['file']}:{mutant.line}` {mutant.kind} `{mutant.after}`{why}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/mutate", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", required=True, help="a file of kernels/cuda, or a path from the root")
    parser.add_argument(
        "--test", action="append", default=[], help="test program without its build (default: cuda_FILE)"
    )
    parser.add_argument("--limit", type=int, default=30, help="how many bugs, of all kinds in turn (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="chooses them (%(default)s)")
    parser.add_argument("--minutes", type=float, default=60, help="begin no bug after that many (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="of the compiler at a time (%(default)s)")
    parser.add_argument("--list", action="store_true", help="list the bugs and stop")
    parser.add_argument(
        "--scratch", type=Path, default=Path("build/mutation"), help="kept for the next run (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder of the results (%(default)s)")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
