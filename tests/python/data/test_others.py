"""Images and features of a name of their own: samples, batches, and what is wrong with their files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from mover.config import DataConfig, FeatureTowerConfig, ImageTowerConfig
from mover.data import Clip, ClipDataset, MediaError, Reference, make_loader
from mover.data.others import read_other
from mover.errors import UserError

OTHERS = {
    "photo": ImageTowerConfig(kind="image"),
    "depth": FeatureTowerConfig(kind="features", input_size=3),
    "notes": FeatureTowerConfig(kind="features", input_size=2, length=2),
}
NAMES = tuple(OTHERS)


def build(clips: Sequence[Clip], training: bool = True, **options: Any) -> ClipDataset:
    given = {name: options.pop(name) for name in list(options) if name in DataConfig.model_fields}
    fields = {"image_size": 16, "workers": 0} | given
    config = DataConfig(**fields, missing=options.pop("mask", "drop"))
    names = options.pop("modalities", NAMES)
    return ClipDataset(clips, config, names, None, training=training, progress=False, others=OTHERS, **options)


def rows_of(number: int) -> np.ndarray:
    """float32 (1 + number % 4, 2), different for every clip."""
    return np.arange(2 * (1 + number % 4), dtype=np.float32).reshape(-1, 2) + 100 * number


@pytest.fixture
def pictured(tmp_path: Path) -> list[Clip]:
    """Eight clips: a grey photo, a row of depth.npy, 1 to 4 rows under its name in notes.safetensors."""
    np.save(tmp_path / "depth.npy", np.arange(24, dtype=np.float64).reshape(8, 3))
    save_file({f"clip{n}": rows_of(n) for n in range(8)}, tmp_path / "notes.safetensors")
    for n in range(8):
        picture = av.VideoFrame.from_ndarray(np.full((20, 30, 3), 20 * n, np.uint8), format="rgb24")
        with av.open(str(tmp_path / f"clip{n}.png"), "w", format="image2") as container:
            stream = container.add_stream("png")
            stream.width, stream.height, stream.pix_fmt = 30, 20, "rgb24"
            container.mux(stream.encode(picture))
            container.mux(stream.encode())
    return [
        Clip(
            id=f"clip{n}",
            others={
                "photo": Reference(tmp_path / f"clip{n}.png"),
                "depth": Reference(tmp_path / "depth.npy", n),
                "notes": Reference(tmp_path / "notes.safetensors", f"clip{n}"),
            },
        )
        for n in range(8)
    ]


@pytest.mark.parametrize("options", [{}, {"cache": "memory"}, {"cache": "memory", "workers": 2}, {"cache": "disk"}])
@pytest.mark.parametrize("training", [True, False])
def test_batches_hold_what_the_files_hold(
    pictured: list[Clip], tmp_path: Path, training: bool, options: dict[str, Any]
) -> None:
    options = {"cache_folder": tmp_path / "cache", **options}
    batches = list(make_loader(build(pictured, training, **options), 4, steps=2))
    assert sorted(name for batch in batches for name in batch["ids"]) == [f"clip{n}" for n in range(8)]
    for batch in batches:
        of_training = {"aligned", "together", "owner"} if training else set()
        assert set(batch) == {"ids", "index", "present", *of_training, *NAMES}
        assert batch["photo"]["pixels"].shape == (4, 1, 3, 16, 16) and batch["photo"]["pixels"].dtype == torch.uint8
        assert batch["depth"]["features"].shape == (4, 1, 3) and batch["depth"]["features"].dtype == torch.float32
        assert batch["depth"]["length"].tolist() == [1] * 4 and batch["depth"]["length"].dtype == torch.int64
        assert all(flags.all() for flags in batch["present"].values())
        most = int(batch["notes"]["length"].max())
        assert batch["notes"]["features"].shape == (4, most, 2)
        for row, name in enumerate(batch["ids"]):
            n = int(name.removeprefix("clip"))
            assert (batch["photo"]["pixels"][row].float() - 20 * n).abs().max() <= 1
            assert batch["depth"]["features"][row, 0].tolist() == [3 * n, 3 * n + 1, 3 * n + 2]
            expected = rows_of(n)
            if len(expected) > 2:  # the middle rows of two equal parts
                expected = expected[[len(expected) // 4, 3 * len(expected) // 4]]
            length = int(batch["notes"]["length"][row])
            assert batch["notes"]["features"][row, :length].tolist() == expected.tolist()
            assert not batch["notes"]["features"][row, length:].any()


def test_rows_are_spread_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for count, most, expected in ((10, 5, [1, 3, 5, 7, 9]), (7, 3, [1, 3, 5]), (3, 3, [0, 1, 2]), (2, 5, [0, 1])):
        np.save(path, np.repeat(np.arange(count, dtype=np.float32)[:, None], 2, axis=1))
        tower = FeatureTowerConfig(kind="features", input_size=2, length=most)
        assert read_other(Reference(path), tower, 16)[:, 0].tolist() == expected


def test_what_is_missing_is_flagged_when_masking(pictured: list[Clip], tmp_path: Path) -> None:
    pictured[0] = replace(pictured[0], others={"depth": pictured[0].others["depth"]})
    pictured[1] = replace(pictured[1], status={"depth": "corrupt"})
    (tmp_path / "clip2.png").write_bytes(b"no picture")
    dataset = build(pictured, mask="mask")
    (batch,) = make_loader(dataset, 8, steps=1)
    lacking = {"clip0": {"photo", "notes"}, "clip1": {"depth"}, "clip2": {"photo"}}
    for row, name in enumerate(batch["ids"]):
        for modality in NAMES:
            there = modality not in lacking.get(name, set())
            assert bool(batch["present"][modality][row]) == there
            if not there:
                assert not any(tensor[row].any() for tensor in batch[modality].values())
    assert {m: sorted(without) for m, without in dataset.absent.items()} == {
        "photo": ["clip0", "clip2"], "depth": ["clip1"], "notes": ["clip0"]
    }  # fmt: skip


def test_a_batch_without_any_row(pictured: list[Clip]) -> None:
    bare = [replace(clip, others={"depth": clip.others["depth"]}) for clip in pictured[:7]]
    batches = list(make_loader(build([*bare, pictured[7]], mask="mask"), 2, steps=4))
    empty = [batch for batch in batches if not batch["present"]["notes"].any()]
    assert len(empty) == 3
    for batch in empty:
        assert batch["notes"]["features"].shape == (2, 1, 2) and batch["notes"]["length"].tolist() == [0, 0]
        assert not batch["photo"]["pixels"].any()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (np.zeros((8, 4)), r"its features at 3 have the shape \(4,\), expected \(3,\) or \(rows, 3\)"),
        (np.zeros((8, 2, 4)), r"shape \(2, 4\), expected"),
        (np.zeros((8, 2, 2, 3)), r"shape \(2, 2, 3\), expected"),
        (np.zeros((8, 0, 3)), r"shape \(0, 3\), expected"),
        (np.full((8, 3), np.nan), "not all finite"),
        (np.zeros((3, 3)), "no features can be read from it at 3"),
        (None, "there is no such file"),
    ],
)
@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_bad_features_are_bad_media(
    pictured: list[Clip], tmp_path: Path, caplog: pytest.LogCaptureFixture, content: Any, sentence: str, cache: str
) -> None:
    path = tmp_path / "bad.npy"
    if content is not None:
        np.save(path, content)
    bad = Reference(path, 3)
    with pytest.raises(MediaError, match=sentence):
        read_other(bad, OTHERS["depth"], 16)
    pictured[3] = replace(pictured[3], others={**pictured[3].others, "depth": bad})
    dataset = build(pictured, cache=cache, cache_folder=tmp_path / "cache")
    with caplog.at_level(logging.WARNING):
        (batch,) = make_loader(dataset, 7, steps=1)
    assert "clip3" not in batch["ids"]
    assert "bad.npy" in dataset.skipped["clip3"]
    assert any("'clip3'" in record.message and "bad.npy" in record.message for record in caplog.records)
    with pytest.raises(UserError, match=r"'clip3' .*cannot be evaluated: .*bad\.npy"):
        list(make_loader(build(pictured, training=False, cache=cache, cache_folder=tmp_path / "cache"), 8))


@pytest.mark.parametrize("mask", ["drop", "mask"])
def test_a_width_that_no_file_has_ends_the_run(pictured: list[Clip], tmp_path: Path, mask: str) -> None:
    np.save(tmp_path / "depth.npy", np.zeros((8, 5)))
    with pytest.raises(UserError, match=r"shape \(5,\), expected \(3,\)") as raised:
        list(make_loader(build(pictured, mask=mask), 4, steps=4))
    assert ("None of 8 clips has depth" if mask == "mask" else "A batch of 4 needs") in str(raised.value)


def test_files_of_another_kind_than_the_configuration_says(pictured: list[Clip]) -> None:
    wrong = replace(pictured[2], others={**pictured[2].others, "photo": pictured[2].others["depth"]})
    with pytest.raises(UserError, match=r"photo\.kind is image, but clip 'clip2' has a file of features, .*depth\.npy"):
        build([*pictured[:2], wrong])
    wrong = replace(pictured[2], others={**pictured[2].others, "depth": pictured[2].others["photo"]})
    with pytest.raises(UserError, match=r"depth\.kind is features, but clip 'clip2' has an image, .*clip2\.png"):
        build([wrong])
    assert len(build([wrong], modalities=("notes",))) == 1, "what the run does not use is not looked at"
    with pytest.raises(ValueError, match="section"):
        build(pictured, modalities=("smell",))
    with pytest.raises(UserError, match="None of 8 clips can be used; the last one: photo missing"):
        build([replace(clip, others={}) for clip in pictured])
