"""Loads the shared objects of `torch.ops.mover`. Importing `mover.ops` does this once.

libmover_torch.so defines the operators and has their CPU kernels, libmover_torch_cuda.so adds the CUDA kernels; a build
without CUDA has only the first. Both load without a GPU.
"""

from pathlib import Path

import torch

LIBRARY = Path(__file__).with_name("lib") / "libmover_torch.so"
CUDA_LIBRARY = LIBRARY.with_name("libmover_torch_cuda.so")
OLDEST_TORCH = (2, 11)

_BUILD = "Build it from the checkout with scripts/bootstrap, or with `pip install --no-build-isolation -e .`"


def load_library() -> None:
    """Defines the operators of `torch.ops.mover`, with their CPU kernels.

    Raises ImportError, with the remedy, where torch is too old, the library was not built, or cannot be loaded, or
    where another copy of it is in the process already (two would silently override each other's kernels).
    """
    installed = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if installed < OLDEST_TORCH:
        raise ImportError(
            f"mover needs torch {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or newer, this is torch {torch.__version__}. "
            "Install a newer torch."
        )
    if not LIBRARY.exists():
        raise ImportError(f"The operators of mover are not built: {LIBRARY} does not exist. {_BUILD}.")
    if hasattr(torch.ops.mover, "cost"):
        raise ImportError(
            f"torch.ops.mover is defined already, so {LIBRARY} was not loaded: a second copy would override its "
            "kernels. Load the library through `import mover.ops` only, from one installation."
        )
    try:
        torch.ops.load_library(str(LIBRARY))
    except OSError as error:
        raise ImportError(f"{LIBRARY} cannot be loaded by torch {torch.__version__}: {error}. {_BUILD}.") from error


def load_cuda_library() -> str:
    """Adds the CUDA kernels. Returns why there are none, with the remedy; "" where there are.

    Never raises: what runs on the CPU goes on. The reason is told when an operator meets a tensor on a CUDA device.
    """
    built_for = f"torch {torch.__version__}"
    if not CUDA_LIBRARY.exists():
        return (
            "this build of mover has no CUDA kernels. Build them where nvcc is installed with "
            "`MOVER_CUDA=1 pip install --no-build-isolation -e .`, or move the inputs with .cpu()"
        )
    if torch.version.cuda is None:
        return f"{built_for} is a build without CUDA. Install one with CUDA, or move the inputs with .cpu()"
    try:
        torch.ops.load_library(str(CUDA_LIBRARY))
    except OSError as error:
        return (
            f"{CUDA_LIBRARY} cannot be loaded by {built_for} with CUDA {torch.version.cuda}: {error}. Build it again "
            "for this torch with `MOVER_CUDA=1 pip install --no-build-isolation -e .`, or move the inputs with .cpu()"
        )
    return ""
