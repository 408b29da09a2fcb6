"""Reading features that were computed elsewhere: a row of an array, or a tensor of a file."""

from __future__ import annotations

import numpy as np

from mover.data.clip import FEATURE_EXTENSIONS, Reference
from mover.data.media import MediaError


def read_features(reference: Reference) -> np.ndarray:
    """float32 (…): the clip's part of a feature file, whatever its shape; only that part is read.

    Raises MediaError naming the file when it is not there ("missing"), is no feature file, lacks the row, or holds
    anything but finite numbers ("corrupt").
    """
    path, row = reference.path, reference.row
    suffix = path.suffix.lower()
    if suffix not in FEATURE_EXTENSIONS:
        raise MediaError(path, "corrupt", f"it is no feature file ({', '.join(FEATURE_EXTENSIONS)})")
    if not path.exists():
        raise MediaError(path, "missing", "there is no such file")
    try:
        if suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            values = array if row is None else array[row]
        else:
            from safetensors.numpy import safe_open

            with safe_open(path, framework="numpy") as file:
                values = file.get_tensor(row)
        values = np.array(values, dtype=np.float32)
    except Exception as error:  # two libraries, each with errors of its own
        place = "" if row is None else f" at {row!r}"
        raise MediaError(path, "corrupt", f"no features can be read from it{place}: {error}") from None
    if not np.isfinite(values).all():
        raise MediaError(path, "corrupt", "its features are not all finite")
    return values
