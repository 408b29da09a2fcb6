"""Builds libmover_torch.so with CMake, in the build tree that `cmake --preset release` uses too.

The library lands in python/mover/lib, inside the package: an editable install needs nothing else, a wheel gets a copy.
Everything about the distribution itself is in pyproject.toml.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "release"
PACKAGE = ROOT / "python" / "mover"


class CMakeBuild(build_ext):
    """Configures and builds the CMake project; CMake decides what is up to date."""

    def run(self) -> None:
        cmake = shutil.which("cmake")
        if cmake is None:
            sys.exit("mover is built with CMake >= 3.24, which is not on PATH. Install it (apt-get install cmake).")
        configure = [cmake, "-S", str(ROOT), "-B", str(BUILD), f"-DTorchWheel_PYTHON={sys.executable}"]
        if not (BUILD / "CMakeCache.txt").exists() and shutil.which("ninja"):
            configure += ["-G", "Ninja"]
        subprocess.run(configure, check=True)
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
        subprocess.run([cmake, "--build", str(BUILD), "--target", "mover_torch", "--parallel", jobs], check=True)
        if not (self.inplace or getattr(self, "editable_mode", False)):
            target = Path(self.build_lib) / "mover" / "lib"
            target.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(PACKAGE / "lib" / "libmover_torch.so"), str(target / "libmover_torch.so"))

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class PlatformWheel(bdist_wheel):
    """The library depends on the machine and on torch's stable ABI, not on the version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


setup(
    ext_modules=[Extension("mover.lib.libmover_torch", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": PlatformWheel},
)
