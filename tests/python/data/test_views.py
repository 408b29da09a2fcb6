"""Views of a latent: equal seeds give equal bytes, every view tells the latent, and a linear model can retrieve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mover.configs import load_config
from mover.data import read_manifest
from mover.data.features import read_features
from mover.data.made.views import draw_views, make_views
from mover.errors import UserError
from mover.train.trainer import train

SMALL = {"train": 8, "validation": 3, "test": 4}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    first, again, other = (
        make_views(tmp_path / name, **SMALL, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert content(first.parent) == content(again.parent)
    assert set(content(first.parent)) == {"view1.npy", "view2.npy", "view3.npy", "manifest.jsonl", "dataset.json"}
    assert content(first.parent)["view2.npy"] != content(other.parent)["view2.npy"]


def test_row_i_of_every_file_is_clip_i(tmp_path: Path) -> None:
    clips = read_manifest(make_views(tmp_path / "a", **SMALL, views=2, seed=3))
    assert [clip.split for clip in clips] == ["train"] * 8 + ["val"] * 3 + ["test"] * 4
    assert clips[0].modalities() == ("view1", "view2")
    for v, rows in enumerate(draw_views(15, 2, 0.5, 3), start=1):
        assert rows.dtype == np.float32 and rows.shape == (15, 48)
        np.testing.assert_array_equal([read_features(clip.others[f"view{v}"]) for clip in clips], rows)


def test_views_are_linear_maps_of_one_latent_and_noise() -> None:
    """Without noise all views together have rank 16; the noise is what is added to that, of the deviation asked for."""
    clean, noisy = draw_views(4000, 3, 0.0, 0), draw_views(4000, 3, 0.5, 0)
    assert np.linalg.matrix_rank(np.hstack(clean)) == 16 == np.linalg.matrix_rank(clean[1])
    for before, after in zip(clean, noisy, strict=True):
        assert np.std(after - before) == pytest.approx(0.5, rel=0.01)
        assert np.var(before) == pytest.approx(1, rel=0.2)
    added = [(after - before).ravel() for before, after in zip(clean, noisy, strict=True)]
    assert abs(np.corrcoef(added)[np.triu_indices(3, 1)]).max() < 0.01, "each view has noise of its own"


def test_more_views_leave_the_others_as_they_are() -> None:
    for two, four in zip(draw_views(5, 2, 0.5, 0), draw_views(5, 4, 0.5, 0), strict=False):
        np.testing.assert_array_equal(two, four)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"train": 0}, "number of train clips must be at least 1, got 0"),
        ({"test": -1}, "number of test clips must be at least 1, got -1"),
        ({"views": 1}, "at least two views, got 1"),
        ({"noise": -0.1}, "at least 0; got -0.1"),
        ({"noise": float("nan")}, "at least 0; got nan"),
    ],
)
def test_what_cannot_be_made_is_refused(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_views(tmp_path / "x", **{**SMALL, **wrong})
    assert not (tmp_path / "x").exists()


def test_the_configuration_trains_on_it(tmp_path: Path) -> None:
    manifest = make_views(tmp_path / "views", train=400, validation=100, test=1)
    config = load_config(
        "views",
        {"data.manifest": str(manifest), "output": str(tmp_path), "train.steps": 120, "train.validate_every": 120},
    )
    outcome = train(config, console=Console(quiet=True))
    assert outcome.best is not None
    assert np.mean(list(outcome.best["R@1"].values())) > 60, "chance is 1"
