"""Features from files: rows, tensors, and files that hold something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mover.data import MediaError, Reference, read_features


@pytest.fixture
def files(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", np.arange(12, dtype=np.float16).reshape(3, 4))
    save_file({"clip one": np.ones((2, 3), np.float64), "bad": np.array([np.nan])}, tmp_path / "a.safetensors")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-3])
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 9)
    return tmp_path


def test_rows_and_tensors(files: Path) -> None:
    whole = read_features(Reference(files / "a.npy"))
    assert whole.dtype == np.float32 and whole.tolist() == np.arange(12).reshape(3, 4).tolist()
    assert read_features(Reference(files / "a.npy", 2)).tolist() == [8, 9, 10, 11]
    found = read_features(Reference(files / "a.safetensors", "clip one"))
    assert found.dtype == np.float32 and found.tolist() == np.ones((2, 3)).tolist()


@pytest.mark.parametrize(
    ("name", "row", "status", "message"),
    [
        ("none.npy", None, "missing", "there is no such file"),
        ("a.jpg", None, "corrupt", "it is no feature file (.npy, .safetensors)"),
        ("a.npy", 3, "corrupt", "no features can be read from it at 3"),
        ("a.safetensors", "clip two", "corrupt", "no features can be read from it at 'clip two'"),
        ("a.safetensors", "bad", "corrupt", "its features are not all finite"),
        ("objects.npy", 0, "corrupt", "no features can be read from it at 0"),
        ("cut.npy", None, "corrupt", "no features can be read from it"),
        ("cut.safetensors", "x", "corrupt", "no features can be read from it at 'x'"),
    ],
)
def test_what_cannot_be_read(files: Path, name: str, row: int | str | None, status: str, message: str) -> None:
    with pytest.raises(MediaError) as caught:
        read_features(Reference(files / name, row))
    assert caught.value.status == status and message in str(caught.value) and str(files / name) in str(caught.value)
