"""What the shared object depends on and exports, and how it is loaded."""

import shutil
import subprocess
import sys

import pytest

from mover._load import LIBRARY


def tool(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run([*command, str(LIBRARY)], check=True, capture_output=True, text=True).stdout


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_only_the_stable_abi_of_torch_is_used():
    undefined = tool("nm", "-DC", "--undefined-only")
    assert "torch_call_dispatcher" in undefined
    assert [line for line in undefined.splitlines() if "at::" in line or "c10::" in line] == []


def test_the_c_library_is_not_exported():
    assert [line for line in tool("nm", "-D", "--defined-only").splitlines() if " mover_" in line] == []


def test_torch_is_needed_and_no_folder_is_recorded():
    dynamic = tool("readelf", "-d")
    assert "libtorch_cpu.so" in dynamic
    assert "RUNPATH" not in dynamic
    assert "RPATH" not in dynamic


def test_importing_mover_alone_does_not_load_it():
    process = python("import sys, mover; print('torch' in sys.modules)")
    assert process.stdout.strip() == "False", process.stderr


def test_a_second_copy_is_refused(tmp_path):
    copy = tmp_path / LIBRARY.name
    shutil.copy(LIBRARY, copy)
    process = python(f"import torch; torch.ops.load_library({str(copy)!r}); import mover.ops")
    assert process.returncode != 0
    assert "ImportError: torch.ops.mover is defined already" in process.stderr


def test_a_missing_library_says_how_to_build_it(tmp_path):
    missing = str(tmp_path / "libmover_torch.so")
    process = python(f"import pathlib, mover._load as l; l.LIBRARY = pathlib.Path({missing!r}); l.load_library()")
    assert f"{missing} does not exist. Build it" in process.stderr


def test_a_broken_library_says_so(tmp_path):
    broken = tmp_path / "libmover_torch.so"
    broken.write_bytes(b"not a library")
    process = python(f"import pathlib, mover._load as l; l.LIBRARY = pathlib.Path({str(broken)!r}); l.load_library()")
    assert "ImportError" in process.stderr
    assert "cannot be loaded by torch" in process.stderr


def test_an_old_torch_is_refused():
    process = python("import torch; torch.__version__ = '2.10.1+cpu'; import mover.ops")
    assert "mover needs torch 2.11 or newer, this is torch 2.10.1+cpu" in process.stderr
