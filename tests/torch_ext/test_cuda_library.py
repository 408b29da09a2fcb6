"""libmover_torch_cuda.so, where it is built: what it depends on, and that it loads without a GPU."""

import shutil
import subprocess

import pytest
import torch

from mover._load import CUDA_LIBRARY

pytestmark = pytest.mark.skipif(
    not CUDA_LIBRARY.exists() or torch.version.cuda is None, reason="not built: scripts/cuda-gates does, with nvcc"
)


def tool(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run([*command, str(CUDA_LIBRARY)], check=True, capture_output=True, text=True).stdout


def test_only_the_stable_abi_of_torch_is_used():
    undefined = tool("nm", "-DC", "--undefined-only")
    assert "aoti_torch_get_current_cuda_stream" in undefined
    assert [line for line in undefined.splitlines() if "at::" in line or "c10::" in line] == []


def test_the_c_library_is_not_exported():
    assert [line for line in tool("nm", "-D", "--defined-only").splitlines() if " mover_" in line] == []


def test_cuda_comes_with_torch():
    dynamic = tool("readelf", "-d")
    for library in ("libtorch_cuda.so", "libcudart.so", "libcublas.so", "libcusolver.so"):
        assert library in dynamic
    assert "RUNPATH" not in dynamic
    assert "RPATH" not in dynamic


def test_loads_without_a_gpu_and_has_every_kernel():
    from mover.ops import registration

    assert registration._no_cuda_because == ""
    schemas = [schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("mover::")]
    assert len(schemas) > 20
    assert [name for name in schemas if not torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA")] == []
