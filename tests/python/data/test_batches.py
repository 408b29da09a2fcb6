"""Which clips are in which batch: aligned ones, sets in unknown order, modalities drawn apart."""

from typing import Any

import numpy as np
import pytest

from mover.config import DataConfig
from mover.data.batches import AlignedBatches, PartlyAlignedBatches, make_batches
from mover.errors import UserError

NAMES = ("text", "video", "audio")


def batches(count: int = 100, size: int = 16, seed: int = 3, names=NAMES, **settings: Any) -> PartlyAlignedBatches:
    config = DataConfig(**{"aligned_fraction": 0.25, **settings})
    made = make_batches(count, size, names, seed, config)
    assert isinstance(made, PartlyAlignedBatches)
    return made


def others(rows, name: str) -> list[int]:
    return rows.clips[name][rows.aligned :].tolist()


def test_aligned_rows_are_one_clip_in_every_modality_and_always_of_the_same_clips():
    made = batches()
    known = set(made.aligned.tolist())
    assert len(known) == 25
    for step in range(30):
        rows = made.rows(step)
        assert rows.aligned == 4
        first = rows.clips["text"][:4].tolist()
        assert all(rows.clips[name][:4].tolist() == first for name in NAMES)
        assert set(first) <= known and not set(others(rows, "text")) & known


def test_a_set_holds_the_same_clips_in_every_modality_in_orders_of_their_own():
    orders = []
    for step in range(20):
        rows = batches().rows(step)
        text, video, audio = (others(rows, name) for name in NAMES)
        assert len(set(text)) == 12 and set(text) == set(video) == set(audio)
        orders.append(tuple(np.argsort(text)[np.argsort(np.argsort(video))]))
        assert text != video and text != audio and video != audio
    assert len(set(orders)) == 20  # no order that could be learnt
    matched = np.mean([np.mean(np.equal(*(others(batches().rows(s), n) for n in NAMES[:2]))) for s in range(300)])
    assert matched == pytest.approx(1 / 12, abs=0.03)  # equal places by chance only


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 3), (0.5, 6), (1.0, 12)])
def test_so_many_partners_are_in_the_batch_and_no_clip_twice(share, expected):
    made = batches(partners=share)
    for step in range(25):
        rows = made.rows(step)
        sets = [set(others(rows, name)) for name in NAMES]
        assert [len(clips) for clips in sets] == [12] * 3
        assert len(sets[0] & sets[1]) == len(sets[0] & sets[2]) == len(sets[1] & sets[2]) == expected


def test_modalities_whose_order_is_known_stay_together():
    made = batches(unordered=("text",), partners=0.5)
    for step in range(10):
        rows = made.rows(step)
        assert rows.together == ("video", "audio")
        assert others(rows, "video") == others(rows, "audio") != others(rows, "text")
        assert len(set(others(rows, "text")) & set(others(rows, "audio"))) == 6
    for unordered in ((), NAMES, ("text", "audio")):  # one that is left alone has nobody to be with
        assert batches(unordered=unordered).rows(0).together == ()


def test_an_epoch_uses_every_clip_of_its_batches_once_in_every_modality():
    made = batches(partners=0.5)
    steps = len(made.others) // made.other_rows
    for epoch in range(3):
        rows = [made.rows(epoch * steps + step) for step in range(steps)]
        seen = {name: sorted(clip for row in rows for clip in others(row, name)) for name in NAMES}
        assert len(set(seen["text"])) == steps * 12
        assert seen["text"] == seen["video"] == seen["audio"]


def test_a_step_is_the_same_whatever_came_before_and_another_seed_is_another_choice():
    one, two = batches().rows(17), batches().rows(17)
    assert all(np.array_equal(one.clips[name], two.clips[name]) for name in NAMES)
    assert set(batches(seed=4).aligned.tolist()) != set(batches().aligned.tolist())


def test_a_share_of_1_is_the_whole_clips_in_the_order_of_the_epoch():
    made = make_batches(20, 6, NAMES, 0, DataConfig())
    assert isinstance(made, AlignedBatches)
    rows = made.rows(4)
    assert rows.aligned == 6 and rows.epochs.tolist() == [1] * 6
    assert all(np.array_equal(rows.clips[name], rows.clips["text"]) for name in NAMES)


def test_the_number_of_aligned_rows_can_be_set():
    made = batches(aligned_fraction=0.05, aligned_rows=3)
    assert len(made.aligned) == 5 and made.rows(0).aligned == 3 and len(others(made.rows(0), "audio")) == 13


@pytest.mark.parametrize(
    ("count", "settings", "told"),
    [
        (100, {"aligned_fraction": 0.05}, "at least two aligned rows and two others, got 1 and 15"),
        (100, {"aligned_fraction": 0.95}, "got 15 and 1"),
        (100, {"aligned_fraction": 0.05, "aligned_rows": 8}, "needs 8 aligned clips, and there are 5"),
        (40, {"partners": 0.5}, "as many batches as modalities with data.partners = 0.5, 36 in all, and there are 30"),
        (
            17,
            {"aligned_rows": 2, "aligned_fraction": 0.3},
            "needs 14 clips that are not aligned, 14 in all, and there are 12",
        ),
    ],
)
def test_clips_that_do_not_fill_a_batch_are_refused(count, settings, told):
    with pytest.raises(UserError, match=told):
        batches(count, **settings)
