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


CALL = """
import pathlib, torch, mover._load as load
{before}
import mover.ops
cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)  # dispatched by hand, so that it needs no device
mover.ops.cost(torch.ones(2, 3), torch.ones(2, 3))
torch.ops.mover.cost.default.redispatch(cuda, torch.ones(2, 3), torch.ones(2, 3))
"""


def refusal(before: str) -> str:
    process = python(CALL.format(before=before))
    assert process.returncode != 0
    return process.stderr.strip().splitlines()[-1]


def test_without_cuda_kernels_a_cuda_tensor_gets_a_sentence(tmp_path):
    missing = tmp_path / "libmover_torch_cuda.so"
    assert refusal(f"load.CUDA_LIBRARY = pathlib.Path({str(missing)!r})") == (
        "RuntimeError: mover::cost: the inputs are on a CUDA device, but this build of mover has no CUDA kernels. "
        "Build them where nvcc is installed with `MOVER_CUDA=1 pip install --no-build-isolation -e .`, "
        "or move the inputs with .cpu()."
    )


def test_cuda_kernels_of_another_torch_leave_the_cpu_usable(tmp_path):
    broken = tmp_path / "libmover_torch_cuda.so"
    broken.write_bytes(b"not a library")
    load = f"load.CUDA_LIBRARY = pathlib.Path({str(broken)!r}); torch.version.cuda = "
    assert "is a build without CUDA. Install one with CUDA" in refusal(load + "None")
    assert f"{broken} cannot be loaded by torch" in refusal(load + "'13.0'")
    assert "Build it again for this torch" in refusal(load + "'13.0'")
