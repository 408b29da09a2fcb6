"""What gpu-check does: the commands of every step, and how long each may take."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from process import Step

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "gpu-check"
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# In order; what each step waits for is said where it is made.
NAMES = (
    "build",
    "build-tests",
    "ctest",
    "pytest",
    *TOOLS,
    "memcheck-torch",
    "bench",
)
TOTAL = 575.0  # seconds that all of it may take


@dataclass(frozen=True)
class Machine:
    """What the steps are made for; `packages` are the Python packages found, of those that matter."""

    python: str
    capability: str  # "9.0"
    nvcc: str
    sanitizer: str | None
    packages: frozenset[str]
    jobs: int


def googletest_here() -> Path | None:
    """An installed GoogleTest's prefix, or the folder of its sources, where one is found."""
    named = os.environ.get("GTEST_ROOT")
    for prefix in (Path(named) if named else None, Path("/usr"), Path("/usr/local")):
        if prefix and (prefix / "include" / "gtest" / "gtest.h").exists():
            return prefix
    sources = Path("/usr/src/googletest")
    return sources if (sources / "CMakeLists.txt").exists() else None


def all_steps(machine: Machine, googletest: Path | None, out: Path, quick: bool, commit: str) -> list[Step]:
    """In the order in which they may begin. Tests and sanitizers run side by side; measurements run alone."""
    python = {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT / "python"), os.environ.get("PYTHONPATH"))))}
    cmake = shutil.which("cmake") or "cmake"
    architecture = machine.capability.replace(".", "") + "-real"
    configure = [
        *(cmake, "-S", str(ROOT), "-B", str(BUILD)),
        *(["-G", "Ninja"] if shutil.which("ninja") else []),
        f"-DTorchWheel_PYTHON={machine.python}",
        f"-DCMAKE_CUDA_COMPILER={machine.nvcc}",
        f"-DCMAKE_CUDA_ARCHITECTURES={architecture}",
        *("-DMOVER_CUDA=ON", "-DMOVER_TORCH=ON", "-DMOVER_NATIVE=OFF"),
    ]
    build = [cmake, "--build", str(BUILD), "--parallel", str(machine.jobs), "--target"]
    compiler = r"error[:\s]|CMake Error.*|FAILED:"
    ctest = [
        shutil.which("ctest") or "ctest",
        *("--test-dir", str(BUILD), "-R", r"^cuda\.", "--no-tests=error", "--output-on-failure"),
        *("--timeout", "60", "--parallel", str(min(machine.jobs, 8))),
    ]
    steps = [
        Step(
            "build",
            [[*configure, "-DMOVER_TESTS=OFF"], [*build, "mover_torch", "mover_torch_cuda"]],
            limit=240,
            failures=compiler,
        ),
        _build_tests(configure, build, cmake, machine, googletest, compiler),
        Step("ctest", [ctest], limit=90, needs=["build-tests"], failures=r"\(Failed\)|\(Timeout\)|Failure$|\*\*\*"),
        _pytest(machine, python),
    ]
    binary = str(BUILD / "tests" / "cuda" / "test_cuda")
    for tool in TOOLS:
        steps.append(_sanitizer(tool, machine, python, [binary], googletest is not None))
    steps.append(_sanitizer("memcheck", machine, python, [], False, "memcheck-torch"))
    bench = [machine.python, str(ROOT / "scripts" / "benchmarks" / "run.py"), "--device", "cuda"]
    bench += ["--out", str(out / "results"), "--within", "{seconds}", *(["--quick"] if quick else [])]
    bench += ["--commit", commit] if commit else []
    after = [step.name for step in steps]
    steps.append(Step("bench", [bench], limit=330, needs=["build"], after=after, environment=python, failures="Error"))
    return steps


def _build_tests(
    configure: list[str], build: list[str], cmake: str, machine: Machine, googletest: Path | None, compiler: str
) -> Step:
    commands, prefix = [], googletest
    if googletest and (googletest / "CMakeLists.txt").exists():  # sources
        prefix, folder = BUILD / "googletest", str(BUILD / "googletest-build")
        commands += [
            [cmake, "-S", str(googletest), "-B", folder, "-DBUILD_GMOCK=OFF", f"-DCMAKE_INSTALL_PREFIX={prefix}"],
            [cmake, "--build", folder, "--parallel", str(machine.jobs), "--target", "install"],
        ]
    commands += [
        [*configure, "-DMOVER_TESTS=ON", f"-DGTEST_ROOT={prefix}", f"-DCMAKE_PREFIX_PATH={prefix}"],
        [*build, "test_cuda"],
    ]
    return Step(
        "build-tests",
        commands,
        limit=150,
        needs=["build"],
        failures=compiler,
        absent="" if googletest else "GoogleTest was not found; name its folder with --googletest or GTEST_ROOT",
    )


def _pytest(machine: Machine, python: dict[str, str]) -> Step:
    files = [str(ROOT / "tests" / "python" / "gpu")]
    if "pydantic" in machine.packages:  # which the towers are configured with
        files.append(str(ROOT / "tests" / "python" / "models" / "test_beats.py"))
    command = [machine.python, "-m", "pytest", "-m", "gpu", "-q", "--tb=short", "-p", "no:cacheprovider", *files]
    if "xdist" in machine.packages:
        command += ["-n", str(min(machine.jobs, 4))]
    return Step(
        "pytest",
        [command],
        limit=280,
        needs=["build"],
        environment=python,
        failures=r"^(FAILED|ERROR) ",
        absent="" if "pytest" in machine.packages else f"{machine.python} has no pytest",
    )


def _sanitizer(
    tool: str, machine: Machine, python: dict[str, str], binary: list[str], built: bool, name: str = ""
) -> Step:
    """One tool over the tests of the C library, or over the operators of torch where those were not built. Every
    allocation of torch is one of CUDA then, so that an access beyond it is seen."""
    target = binary if built else [machine.python, str(Path(__file__).with_name("operators.py"))]
    options = ["--tool", tool, "--error-exitcode", "9", "--print-limit", "20"]
    return Step(
        name or tool,
        [[machine.sanitizer or "compute-sanitizer", *options, *target]],
        limit=200,
        needs=["build-tests" if built else "build"],
        environment={**python, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        failures=r"^=+ .*(Error|Invalid|Race|hazard|Uninitialized|Barrier|SUMMARY)|\[  FAILED",
        absent="" if machine.sanitizer else "compute-sanitizer was not found beside nvcc or on PATH",
    )
