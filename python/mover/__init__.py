"""MOVER: optimal transport and volumes for multimodal learning.

`mover.ops` holds the operators (C kernels behind `torch.ops.mover`), `mover.losses` the objectives built on them,
`mover.data`, `mover.models`, `mover.train` and `mover.evaluate` the way from media files to retrieval numbers.
Importing `mover` alone loads none of them.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("torch-mover")
except PackageNotFoundError:  # a source tree on the path, never installed
    __version__ = "0+unknown"
