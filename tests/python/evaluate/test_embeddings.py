"""Embeddings in memory: choosing clips; the policies for rows that are missing or unusable; lengths."""

from typing import Any

import numpy as np
import pytest

from mover.errors import UserError
from mover.evaluate.embeddings import Embeddings, Lengths, row_blocks, unusable_rows


def four(**changed: Any) -> Embeddings:
    """Clips a, b, c, d with 2, 1, 1, 1 captions, not sorted by clip; b has no video."""
    random = np.random.default_rng(0)
    entries: dict[str, Any] = {
        "ids": ["a", "b", "c", "d"],
        "vectors": {
            "text": random.normal(size=(5, 3)),
            "video": random.normal(size=(4, 3)),
            "audio": random.normal(size=(4, 3)),
        },
        "text_owner": np.array([3, 0, 2, 0, 1]),
        "present": {
            "text": np.ones(4, bool), "video": np.array([True, False, True, True]), "audio": np.ones(4, bool)
        },
        "labels": ("x", "y", "", "x"),
        "provenance": {"split": "test"},
    }  # fmt: skip
    return Embeddings(**{**entries, **changed})


def test_clips_are_chosen_with_their_captions_and_labels() -> None:
    given = four()
    got = given.select(np.array([2, 0]))
    assert got.ids == ["c", "a"] and got.labels == ("", "x") and got.provenance == {"split": "test"}
    assert got.text_owner.tolist() == [0, 1, 1]
    assert np.array_equal(got.vectors["text"], given.vectors["text"][[2, 1, 3]])
    assert np.array_equal(got.vectors["video"], given.vectors["video"][[2, 0]])
    assert got.present["video"].tolist() == [True, True]
    none = given.select(np.zeros(0, np.int64))
    assert none.ids == [] and none.vectors["text"].shape == (0, 3) and none.labels == ()
    with pytest.raises(ValueError, match="at most once"):
        given.select(np.array([1, 1]))


def test_drop_leaves_the_clips_that_have_everything() -> None:
    given = four()
    assert given.under("mask") is given and given.under("fail") is given
    got = given.under("drop")
    assert got.ids == ["a", "c", "d"]
    assert got.text_owner.tolist() == [0, 0, 1, 2]
    assert np.array_equal(got.vectors["text"], given.vectors["text"][[1, 3, 2, 0]])
    assert all(flags.all() for flags in got.present.values())


def with_bad_rows() -> Embeddings:
    """One caption of a and the only one of b, the video of b, which is not there, and of c, and the audio of d."""
    given = four()
    given.vectors["text"][1] = 0
    given.vectors["text"][4, 2] = np.inf
    given.vectors["video"][1] = np.nan
    given.vectors["video"][2] = np.nan
    given.vectors["audio"][3, 0] = np.nan
    return given


def test_unusable_rows_are_named_and_absent_ones_are_not() -> None:
    given = with_bad_rows()
    assert {m: given.unusable(m) for m in given.modalities} == {"text": ["a", "b"], "video": ["c"], "audio": ["d"]}
    assert given.under("mask", "last") is given
    assert four().under("mask", "fail").ids == ["a", "b", "c", "d"]


def test_unusable_rows_are_refused_with_their_numbers() -> None:
    with pytest.raises(UserError) as raised:
        with_bad_rows().under("mask", "fail")
    assert str(raised.value) == (
        "2 of 5 text rows, 1 of 4 video rows, 1 of 4 audio rows are zero or not finite, first that of 'a': repair "
        "them, or rank them last with --unusable last, or take them as not there with --unusable missing."
    )
    with pytest.raises(ValueError, match="expected one of"):
        with_bad_rows().under("mask", "hide")


def test_unusable_rows_as_not_there() -> None:
    given = with_bad_rows()
    got = given.under("mask", "missing")
    assert got.ids == given.ids
    assert got.missing("text") == ["b"]  # a has another caption
    assert got.missing("video") == ["b", "c"] and got.missing("audio") == ["d"]
    assert got.text_owner.tolist() == [3, 2, 0]
    assert np.array_equal(got.vectors["text"], given.vectors["text"][[0, 2, 3]])
    assert all(got.unusable(m) == [] for m in got.modalities)
    assert given.missing("video") == ["b"]  # what was given is as it was
    assert given.under("drop", "missing").ids == ["a"]


def test_lengths_of_rows() -> None:
    rows = np.array([[1, 0, 0], [0.6, 0.8, 0], [0.2, 0.1, 0.2], [17, 0, 0]], np.float32)
    given = four()
    given.vectors["video"] = rows
    assert given.lengths("video") == pytest.approx([1, 1, 0.3, 17], rel=1e-6)
    assert given.not_unit("video") == Lengths(2, 3, pytest.approx(0.3, rel=1e-6), 17.0)  # b has none
    given.vectors["video"] = rows[[0, 3, 1, 0]]
    assert given.not_unit("video") is None
    half = np.random.default_rng(0).normal(size=(4, 3))
    given.vectors["audio"] = (half / np.linalg.norm(half, axis=1, keepdims=True)).astype(np.float16)
    assert given.not_unit("audio") is None


def test_lengths_of_rows_that_overflow_or_are_unusable() -> None:
    given = four()
    given.vectors["video"] = np.array([[3e300, 4e300, 0], [0, 0, 0], [np.inf, 1, 0], [0, 0, 0]])
    lengths = given.lengths("video")
    assert lengths[:2] == pytest.approx([5e300, 0]) and np.isnan(lengths[2]) and lengths[3] == 0
    assert given.not_unit("video") == Lengths(1, 1, pytest.approx(5e300), pytest.approx(5e300))
    given.vectors["video"] = np.zeros((4, 3))
    assert given.not_unit("video") is None


def test_rows_are_looked_at_in_blocks_that_cover_all() -> None:
    for shape in ((1000, 7), (3, 1 << 23), (5,), (0, 4), (4, 0)):
        blocks = list(row_blocks(shape, 64))
        assert [i for part in blocks for i in range(part.start, part.stop)] == list(range(shape[0]))
    rows = np.random.default_rng(0).normal(size=(9000, 1000)).astype(np.float32)  # several blocks
    rows[[0, 4500, 8999]] = 0
    rows[7777, 999] = np.nan
    assert np.flatnonzero(unusable_rows(rows)).tolist() == [0, 4500, 7777, 8999]
