"""What the GPU benchmarks and gpu-check run on. Run as a script it prints that as one line of JSON, or why this Python
is of no use under "missing"."""

from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("pytest", "xdist", "pydantic", "ot", "geomloss", "ott", "jax")


def describe() -> dict[str, str]:
    """GPU, driver, versions, commit."""
    import torch

    properties = torch.cuda.get_device_properties(0)
    return {
        "GPU": properties.name,
        "memory, GiB": f"{properties.total_memory / 2**30:.0f}",
        "multiprocessors": str(properties.multi_processor_count),
        "driver": _driver(),
        "CUDA": str(torch.version.cuda),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "mover": (ROOT / "VERSION").read_text().strip(),
        "commit": commit(),
    }


def commit() -> str:
    """Short hash of the checkout, "unknown" where git cannot say."""
    try:
        head = _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
        changed = _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + (" with changes" if changed else "")


def _driver() -> str:
    try:
        return _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def missing() -> str:
    """Why this Python cannot use a GPU, with the remedy; "" where it can."""
    if importlib.util.find_spec("torch") is None:
        return f"{sys.executable} has no torch. Name a Python that has one built with CUDA with --python"
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} of {sys.executable} is built without CUDA. Name another Python with --python"
    if torch.cuda.is_available():
        return ""
    try:
        torch.cuda.init()
        reason = "torch sees no device"
    except Exception as error:  # whatever it is, it is the reason
        reason = " ".join(str(error).split())
    return f"no GPU can be used: {reason.rstrip('.')}. This check needs a machine with an NVIDIA GPU and its driver"


def main() -> None:
    packages = [name for name in PACKAGES if importlib.util.find_spec(name)]
    found: dict = {"packages": packages, "missing": missing()}
    if not found["missing"]:
        import torch

        found["capability"] = "{}.{}".format(*torch.cuda.get_device_capability(0))
        found["environment"] = describe()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
