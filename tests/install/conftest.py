"""An installed libmover, static and shared, in a prefix that was moved after the installation."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "install-test"  # one tree for both kinds: they are linked from the same objects

Run = Callable[..., str]


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs a command with the tools beside this Python on PATH; returns what it prints, fails with all of it."""

    def command(*words: str | Path, cwd: Path = ROOT, **variables: str | Path) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
        environment |= {name: str(value) for name, value in variables.items()}
        done = subprocess.run([str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return command


@pytest.fixture(scope="session")
def prefixes(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made, moved = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("moved")
    for kind, shared in (("static", "OFF"), ("shared", "ON")):
        options = [f"-DBUILD_SHARED_LIBS={shared}", "-DMOVER_WERROR=ON"]
        run("cmake", "--preset", "c-library", "-B", BUILD, *options, CXX="/no/compiler/is/needed")
        run("cmake", "--build", BUILD)
        run("cmake", "--install", BUILD, "--prefix", made / kind)
        (made / kind).rename(moved / kind)
    return {kind: moved / kind for kind in ("static", "shared")}


@pytest.fixture(params=["static", "shared"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def prefix(prefixes: dict[str, Path], kind: str) -> Path:
    return prefixes[kind]


@pytest.fixture(scope="session")
def openblas() -> Path:
    """The folder of OpenBLAS's pkg-config file."""
    spec = importlib.util.find_spec("scipy_openblas32")
    if spec is None or spec.origin is None:
        pytest.skip("scipy-openblas32 is not installed; scripts/bootstrap test installs it")
    return Path(spec.origin).parent / "lib" / "pkgconfig"
