"""Builds the extensions with CMake, in the build tree that `cmake --preset release` uses too.

They land inside the package: libmover_torch.so and, with CUDA, libmover_torch_cuda.so, which hold for every Python, and
mover._native, which is built for the Python that runs this. An editable install needs nothing else, a wheel gets
copies. Everything about the distribution itself is in pyproject.toml.

    MOVER_CUDA=1 or 0   with or without CUDA; by default with, where nvcc, a torch with CUDA and a GPU are all there
    CUDAARCHS           for which GPUs, as CMake takes it ("90-real"); by default for the GPU that is there, else all
    MAX_JOBS            how many compilers run at a time; by default one for each processor
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "release"
SOURCES = ROOT / "python"


def find_nvcc() -> str | None:
    places = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ] + ["/usr/local/cuda"]
    candidates = [shutil.which("nvcc"), *(shutil.which("nvcc", path=f"{place}/bin") for place in places)]
    return next(filter(None, candidates), None)


def has_gpu() -> bool:
    import torch

    return torch.version.cuda is not None and torch.cuda.is_available()


def cuda_options() -> list[str]:
    """What CMake is told about CUDA."""
    nvcc, wish = find_nvcc(), os.environ.get("MOVER_CUDA", "")
    if wish not in ("", "0", "1"):
        sys.exit(f"MOVER_CUDA must be 0 or 1, got {wish!r}.")
    if wish == "1" and nvcc is None:
        sys.exit("MOVER_CUDA=1 needs nvcc of the CUDA Toolkit, on PATH or under CUDA_HOME; none was found.")
    if wish == "0" or nvcc is None or (wish == "" and not has_gpu()):
        return ["-DMOVER_CUDA=OFF"]
    options = ["-DMOVER_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={nvcc}"]
    if "CUDAARCHS" not in os.environ and has_gpu():
        options.append("-DCMAKE_CUDA_ARCHITECTURES=native")
    return options


class CMakeBuild(build_ext):
    """Configures and builds the CMake project; CMake decides what is up to date."""

    def run(self) -> None:
        cmake = shutil.which("cmake")
        if cmake is None:
            sys.exit("mover is built with CMake >= 3.24, which is not on PATH. Install it (apt-get install cmake).")
        cuda = cuda_options()
        configure = [cmake, "-S", str(ROOT), "-B", str(BUILD), f"-DTorchWheel_PYTHON={sys.executable}", *cuda]
        if not (BUILD / "CMakeCache.txt").exists() and shutil.which("ninja"):
            configure += ["-G", "Ninja"]
        subprocess.run(configure, check=True)
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
        libraries = ["mover_torch"] + (["mover_torch_cuda"] if "-DMOVER_CUDA=ON" in cuda else [])
        targets = [*libraries, "mover_native"]
        subprocess.run([cmake, "--build", str(BUILD), "--target", *targets, "--parallel", jobs], check=True)
        if self.inplace or getattr(self, "editable_mode", False):
            if "mover_torch_cuda" not in libraries:  # none of an earlier build may stay beside the new libraries
                (SOURCES / "mover" / "lib" / "libmover_torch_cuda.so").unlink(missing_ok=True)
            return
        for built in [*(f"mover/lib/lib{name}.so" for name in libraries), self.get_ext_filename("mover._native")]:
            target = Path(self.build_lib) / built
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(SOURCES / built), str(target))

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


setup(
    ext_modules=[Extension("mover.lib.libmover_torch", sources=[]), Extension("mover._native", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
