"""Reading features that were computed elsewhere: a row of an array, or a tensor of a file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from mover.data.clip import FEATURE_EXTENSIONS, Reference
from mover.data.limits import LIMITS, Limits, size_of_file
from mover.data.media_error import MediaError


def read_features(reference: Reference, limits: Limits = LIMITS) -> np.ndarray:
    """float32 (…): the clip's part of a feature file, whatever its shape; only that part is read.

    Raises MediaError naming the file when it is not there ("missing"), is no feature file, lacks the row, holds
    anything but finite numbers ("corrupt"), or more of them than `limits` let through ("too_large").
    """
    path, row = reference.path, reference.row
    suffix = path.suffix.lower()
    if suffix not in FEATURE_EXTENSIONS:
        raise MediaError(path, "corrupt", f"it is no feature file ({', '.join(FEATURE_EXTENSIONS)})")
    try:
        size_of_file(path)
        values = _of_npy(path, row, limits) if suffix == ".npy" else _of_safetensors(path, row, limits)
    except MediaError:
        raise
    except FileNotFoundError:
        raise MediaError(path, "missing", "there is no such file") from None
    except Exception as error:  # two libraries, each with errors of its own
        place = "" if row is None else f" at {row!r}"
        raise MediaError(path, "corrupt", f"no features can be read from it{place}: {error}") from None
    if not np.isfinite(values).all():
        raise MediaError(path, "corrupt", "its features are not all finite")
    return values


def _of_npy(path: Path, row: int | str | None, limits: Limits) -> np.ndarray:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    values = array if row is None else array[row]
    limits.check_bytes(path, 4 * values.size, "features")
    return _plain(values)


def _of_safetensors(path: Path, row: int | str | None, limits: Limits) -> np.ndarray:
    from safetensors.numpy import safe_open

    with safe_open(path, framework="numpy") as file:
        limits.check_bytes(path, 4 * math.prod(file.get_slice(row).get_shape()), "features")
        return _plain(file.get_tensor(row))


def _plain(values: np.ndarray) -> np.ndarray:
    """A copy in float32; what does not fit is infinite, and no features."""
    with np.errstate(over="ignore"):
        return np.array(values, dtype=np.float32)
