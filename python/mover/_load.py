"""Loads libmover_torch.so, which defines `torch.ops.mover`. Importing `mover.ops` does this once."""

from pathlib import Path

import torch

LIBRARY = Path(__file__).with_name("lib") / "libmover_torch.so"
OLDEST_TORCH = (2, 11)

_BUILD = "Build it from the checkout with scripts/bootstrap, or with `pip install --no-build-isolation -e .`"


def load_library() -> None:
    """Defines the operators of `torch.ops.mover`.

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
