"""scripts/gpu-check without a GPU: how it runs steps, what it asks for, what it says where it cannot run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "gpu_check"))

import main as gpu_check  # noqa: E402
from process import FAILED, LEFT_OUT, PASSED, TIMED_OUT, Step, failures_in, run_steps  # noqa: E402
from steps import NAMES, TOOLS, Machine, all_steps  # noqa: E402

MACHINE = Machine("/python", "9.0", "/cuda/bin/nvcc", "/cuda/bin/compute-sanitizer", frozenset({"pytest", "xdist"}), 8)


def shell(name, text, **options):
    return Step(name, [["sh", "-c", text]], **options)


def outcomes_of(steps, folder, seconds=30.0):
    told = []
    outcomes = run_steps(steps, folder, time.monotonic() + seconds, lambda step, outcome: told.append(step.name))
    assert sorted(told) == sorted(outcomes)
    return outcomes


def test_a_failing_step_hides_no_other(tmp_path):
    steps = [
        shell("build", "exit 0"),
        shell("broken", "echo 'FAILED test_one'; echo fine; exit 3", needs=["build"], failures="^FAILED"),
        shell("depends", "exit 0", needs=["broken"]),
        shell("counted", "echo; echo '=== 7 passed, 1 skipped ==='; echo"),
        shell("follows", "exit 0", after=["broken", "depends"]),
        Step("absent", [["/no/such/program"]], absent="it is not installed"),
        Step("unknown", [["/no/such/program"]]),
    ]
    outcomes = outcomes_of(steps, tmp_path)
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "build": PASSED,
        "broken": FAILED,
        "depends": LEFT_OUT,
        "counted": PASSED,
        "follows": PASSED,
        "absent": LEFT_OUT,
        "unknown": FAILED,
    }
    assert outcomes["broken"].failures == ["FAILED test_one"]
    assert outcomes["broken"].note == "sh ended with 3"
    assert outcomes["counted"].note == "7 passed, 1 skipped"
    assert outcomes["depends"].note == "needs 'broken'"
    assert outcomes["absent"].note == "it is not installed"
    assert "No such file" in outcomes["unknown"].note
    assert "fine" in (tmp_path / "broken.log").read_text()
    text = gpu_check.summary(outcomes)
    assert "FAILED test_one" in text and "it is not installed" in text


def test_a_step_ends_at_its_limit_with_all_it_started(tmp_path):
    marker = tmp_path / "marker"
    steps = [
        shell("slow", f"(sleep 3; touch {marker}) & sleep 60", limit=2.0),
        shell("next", "exit 0", after=["slow"]),
    ]
    begin = time.monotonic()
    outcomes = outcomes_of(steps, tmp_path)
    assert outcomes["slow"].status == TIMED_OUT and outcomes["next"].status == PASSED
    assert time.monotonic() - begin < 20
    time.sleep(max(0.0, 4 - (time.monotonic() - begin)))
    assert not marker.exists()


def test_all_end_at_the_deadline(tmp_path):
    steps = [shell("first", "sleep 60"), shell("last", "exit 0", after=["first"])]
    outcomes = outcomes_of(steps, tmp_path, seconds=3.0)
    assert outcomes["first"].status == TIMED_OUT
    assert outcomes["last"].status == TIMED_OUT
    assert outcomes["last"].note == "no time was left to begin it"


def test_independent_steps_run_side_by_side(tmp_path):
    """Each waits for what the other writes."""
    one, other = tmp_path / "one", tmp_path / "other"
    wait = "touch {}; for i in $(seq 200); do [ -e {} ] && exit 0; sleep .1; done; exit 1"
    steps = [shell("one", wait.format(one, other)), shell("other", wait.format(other, one))]
    assert [outcome.status for outcome in outcomes_of(steps, tmp_path / "logs").values()] == [PASSED, PASSED]


def test_commands_run_in_turn_with_their_environment_and_the_seconds_left(tmp_path):
    step = Step("s", [["sh", "-c", "echo $NAME"], ["echo", "{seconds}"]], limit=20, environment={"NAME": "value"})
    outcomes_of([step], tmp_path)
    lines = (tmp_path / "s.log").read_text().splitlines()
    assert lines[1] == "value"
    assert 15 <= int(lines[3]) <= 20


def test_the_lines_that_tell_what_failed():
    log = "CMake Error at a:29 (add_library):\n  No SOURCES given\nmore\nFAILED: x.o\nlast"
    assert failures_in(log, "CMake Error|FAILED:") == [
        "CMake Error at a:29 (add_library):",
        "No SOURCES given",
        "FAILED: x.o",
    ]
    assert failures_in("one\ntwo", "never") == ["one", "two"]


def commands_of(steps):
    return {step.name: [" ".join(command) for command in step.commands] for step in steps}


def test_the_steps(tmp_path):
    steps = all_steps(MACHINE, Path("/usr"), tmp_path, True, "abc")
    assert tuple(step.name for step in steps) == NAMES
    seen: set[str] = set()
    for step in steps:  # each waits for earlier ones only
        assert {*step.needs, *step.after} <= seen
        seen.add(step.name)
    commands = commands_of(steps)
    assert "-DCMAKE_CUDA_ARCHITECTURES=90-real" in commands["build"][0]
    assert "-DTorchWheel_PYTHON=/python" in commands["build"][0] and "MOVER_NATIVE=OFF" in commands["build"][0]
    assert "-n 4" in commands["pytest"][0] and "test_beats" not in commands["pytest"][0]
    for tool in TOOLS:
        assert f"--tool {tool}" in commands[tool][0] and commands[tool][0].endswith("test_cuda")
    assert commands["memcheck-torch"][0].endswith("operators.py")
    assert commands["bench"][0].endswith("--within {seconds} --quick --commit abc")
    bench = steps[-1]
    assert set(bench.after) == set(NAMES) - {"bench"}
    assert not any("pip" in line.split() or "nvidia-smi" in line for lines in commands.values() for line in lines)


def test_without_googletest_the_sanitizers_take_the_operators(tmp_path):
    steps = {step.name: step for step in all_steps(MACHINE, None, tmp_path, False, "")}
    assert "GoogleTest was not found" in steps["build-tests"].absent
    for tool in TOOLS:
        assert steps[tool].commands[0][-1].endswith("operators.py")
        assert list(steps[tool].needs) == ["build"]


def test_googletest_is_built_from_its_sources(tmp_path):
    (tmp_path / "CMakeLists.txt").touch()
    commands = commands_of(all_steps(MACHINE, tmp_path, tmp_path, False, ""))["build-tests"]
    assert commands[0].split()[2] == str(tmp_path) and commands[1].endswith("--target install")
    assert "-DGTEST_ROOT=" in commands[2] and "build/gpu-check/googletest" in commands[2]


def test_what_is_missing_is_left_out_with_the_reason(tmp_path):
    machine = Machine("/python", "8.0", "/nvcc", None, frozenset(), 2)
    steps = {step.name: step for step in all_steps(machine, None, tmp_path, False, "")}
    assert steps["pytest"].absent == "/python has no pytest"
    assert "compute-sanitizer was not found" in steps["memcheck"].absent


@pytest.fixture
def command(tmp_path):
    """Runs gpu-check where nvcc and cmake are on PATH, though they do nothing."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("nvcc", "cmake"):
        script(tools / name, "exit 0")
    environment = {**os.environ, "PYTHON": sys.executable, "PATH": f"{tools}:{os.environ['PATH']}"}

    def run(*words):
        line = [ROOT / "scripts" / "gpu-check", *words]
        return subprocess.run(line, capture_output=True, text=True, env=environment, check=False)

    return run


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def pretend(tmp_path, answer):
    """A Python that answers so when it is asked for its torch, and whose tests fail."""
    return script(tmp_path / "python", f"""[ "$2" = pytest ] && exit 1\necho '{json.dumps(answer)}'""")


def test_a_dry_run_prints_the_commands(tmp_path, command):
    python = pretend(tmp_path, {"packages": ["pytest"], "capability": "9.0", "environment": {}})
    process = command("--dry-run", "--python", python, "--out", str(tmp_path / "out"))
    assert process.returncode == 0
    assert all(f"# {name}, at most" in process.stdout for name in NAMES)
    assert not (tmp_path / "out").exists()
    only = command("--dry-run", "--python", python, "--only", "pytest", "bench").stdout
    assert [line.split()[1] for line in only.splitlines() if line.startswith("# ")] == ["pytest,", "bench,"]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            {"missing": "no GPU can be used: torch sees no device"},
            "gpu-check: no GPU can be used: torch sees no device",
        ),
        ("nonsense", "cannot be asked for its torch"),
    ],
)
def test_it_says_why_it_cannot_run(answer, sentence, tmp_path, command):
    process = command("--python", pretend(tmp_path, answer))
    assert process.returncode == 2
    assert sentence in process.stderr
    assert process.stderr.count("\n") == 1


def test_wrong_arguments(tmp_path, command):
    assert "unknown step 'lunch'; choose from build" in command("--only", "lunch").stderr
    assert "there is no folder" in command("--googletest", str(tmp_path / "none")).stderr
    assert "there is no /no/python" in command("--python", "/no/python").stderr


def test_a_run_writes_its_report(tmp_path, command):
    python = pretend(tmp_path, {"packages": ["pytest"], "capability": "9.0", "environment": {"GPU": "pretended"}})
    out = tmp_path / "out"
    process = command("--python", python, "--only", "pytest", "bench", "--out", str(out), "--commit", "abc")
    report = json.loads((out / "gpu-check.json").read_text())
    assert process.returncode == 1 and report["passed"] is False
    assert {name: step["status"] for name, step in report["steps"].items()} == {"pytest": FAILED, "bench": PASSED}
    assert "pytest  failed" in process.stdout and "bench   passed" in process.stdout
    assert report["environment"]["GPU"] == "pretended" and report["environment"]["commit"] == "abc"
    assert "-m pytest -m gpu" in report["steps"]["pytest"]["commands"][0]
    assert (out / "logs" / "pytest.log").read_text().startswith(f"$ {python} -m pytest")
    assert command("--python", python, "--only", "bench", "--out", str(out)).returncode == 0


def test_the_operators_that_the_sanitizers_look_at_run():
    script = ROOT / "scripts" / "gpu_check" / "operators.py"
    process = subprocess.run([sys.executable, script, "--device", "cpu"], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "done"
