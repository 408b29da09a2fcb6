"""Pictures are made from whatever a run has logged, and are not blank."""

from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from mover.evaluate.pictures import draw_curves, draw_plans

TRAIN = [
    {"kind": "train", "step": s, "terms": {"pairwise": 3.0 - s / 50, "total": 4.0} | ({"mover": 0.5} if s > 20 else {})}
    for s in range(1, 41)
]
CHECKS = [{"kind": "validation", "step": s, "R@1": {"T2V": s / 2.0, "T2VA": 2.0 * s}} for s in (10, 20, 40)]


@pytest.mark.parametrize("log", [[], TRAIN[:1], TRAIN, CHECKS[:1], TRAIN + CHECKS])
def test_curves(tmp_path: Path, log: list[dict[str, Any]]) -> None:
    path = tmp_path / "new" / "curves.png"
    draw_curves(log, path, "a run")
    image = matplotlib.image.imread(path)
    assert image.shape[0] > 400
    assert image.shape[1] > 1000
    assert [p.name for p in path.parent.iterdir()] == ["curves.png"]


def test_the_curves_are_in_the_picture(tmp_path: Path) -> None:
    def ink(log: list[dict[str, Any]]) -> int:
        draw_curves(log, tmp_path / "c.png", "a run")
        image = matplotlib.image.imread(tmp_path / "c.png")[..., :3]
        return int((np.abs(image - image.mean(-1, keepdims=True)).max(-1) > 0.1).sum())  # coloured, not grey

    assert ink([]) == 0
    assert 0 < ink(TRAIN) < ink(TRAIN + CHECKS)


FIVE = [f"{m}-{n}" for m, n in combinations(("text", "video", "audio", "image", "depth"), 2)]


@pytest.mark.parametrize("pairs", [["text-video"], ["text-video", "text-audio", "video-audio"], FIVE[:6], FIVE])
def test_plans(tmp_path: Path, pairs: list[str]) -> None:
    def bright(plan: np.ndarray) -> int:
        draw_plans(dict.fromkeys(pairs, plan), tmp_path / "plan.png", "plans")
        return int((matplotlib.image.imread(tmp_path / "plan.png")[..., :3].mean(-1) < 0.2).sum())

    certain, flat = np.eye(8) / 8, np.full((8, 8), 1 / 64)
    assert bright(flat) != bright(certain)
