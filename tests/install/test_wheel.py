"""The wheel: tagged for the Python that builds it, complete, and usable where it is unpacked."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

NATIVE = "mover/_native" + sysconfig.get_config_var("EXT_SUFFIX")


@pytest.fixture(scope="module")
def wheel(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, ".")
    (built,) = folder.iterdir()
    return built


def test_tag(wheel):
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name.split("-")[2:] == [python, python + sys.abiflags, f"{platform}.whl"]


def test_contents(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {NATIVE, "mover/_native.pyi", "mover/py.typed", "mover/lib/libmover_torch.so"} <= names
    assert [name for name in names if name.endswith((".cpp", ".h", ".txt")) and "dist-info" not in name] == []


def test_unpacked(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import numpy, mover._native as native, mover.ops as ops, torch\n"
        "print(native.__file__, native.volume(numpy.eye(3)), ops.volume(torch.eye(3)).item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(tmp_path / NATIVE), "1.0", "1.0"], done.stderr
