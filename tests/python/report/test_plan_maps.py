"""Heat maps of plans: the share on the diagonal, and pictures that hold the plan."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from cases.reports import plans_of
from mover.report.plan_maps import chosen_steps, diagonal, plan_chart, plan_strips


def test_the_diagonal_by_hand() -> None:
    assert diagonal(np.eye(5)) == (100, 100)
    assert diagonal(np.full((4, 4), 0.25)) == (25, 25)  # all are largest: the diagonal is by one chance in four
    assert diagonal(np.eye(4)[::-1]) == (0, 0)
    plan = np.array([[0.6, 0.4, 0], [0.4, 0.2, 0.4], [0, 0, 0]])  # the last clip lacks a modality
    assert diagonal(plan) == pytest.approx((40, 50))
    assert np.isnan(diagonal(np.zeros((2, 2)))).all()


def test_steps_are_spread_over_the_run() -> None:
    assert chosen_steps([10, 20, 30]) == [10, 20, 30]
    assert chosen_steps([]) == []
    assert chosen_steps(list(range(0, 1000, 10))) == [0, 200, 400, 590, 790, 990]


def test_a_map_holds_the_square_root_of_the_plan() -> None:
    plan = np.random.default_rng(0).random((6, 6)).astype(np.float32)
    strip = plan_strips({7: {"text-audio": plan}})[0]
    assert (strip.pair, strip.maps[0].step, strip.maps[0].size) == ("text – audio", 7, 6)
    head, _, data = strip.maps[0].png.partition(",")
    assert head == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.mode == "L"
    np.testing.assert_allclose(np.asarray(image) / 255, np.sqrt(plan), atol=0.5 / 255 + 1e-6)


def test_pairs_that_come_and_go() -> None:
    plans = plans_of((10, 20, 30))
    del plans[10]["text-audio"]
    strips = {strip.pair: [m.step for m in strip.maps] for strip in plan_strips(plans)}
    assert strips == {"text – video": [10, 20, 30], "video – audio": [10, 20, 30], "text – audio": [20, 30]}
    label = plan_chart(plans).label
    assert "text – video: mass on the diagonal from 12 to 100 %" in label
    assert plan_strips({}) == []
