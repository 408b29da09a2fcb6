"""Builds the two extensions with CMake, in the build tree that `cmake --preset release` uses too.

They land inside the package: libmover_torch.so, which holds for every Python, and mover._native, which is built for the
Python that runs this. An editable install needs nothing else, a wheel gets copies. Everything about the distribution
itself is in pyproject.toml.
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
        targets = ["mover_torch", "mover_native"]
        subprocess.run([cmake, "--build", str(BUILD), "--target", *targets, "--parallel", jobs], check=True)
        if not (self.inplace or getattr(self, "editable_mode", False)):
            for built in ("mover/lib/libmover_torch.so", self.get_ext_filename("mover._native")):
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
