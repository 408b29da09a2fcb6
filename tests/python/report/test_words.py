"""Sentences and gains, by hand."""

from typing import Any

import pytest

from mover.evaluate.directions import directions
from mover.report.words import asked, gains, letters, listed, summary

EVERY = directions(("text", "video", "audio"))


def rows(**recall: float) -> dict[str, dict[str, Any]]:
    return {name: {"R@1": value, "N": 1234} for name, value in recall.items()}


def test_names_in_words() -> None:
    assert listed(["video"]) == "video"
    assert listed(["video", "audio", "depth"]) == "video, audio and depth"
    assert asked(EVERY[-2]) == "text → video and audio"
    assert letters(("text", "video", "depth")) == "T is text, V is video"


def test_the_headline() -> None:
    metrics = rows(T2V=10, T2VA=61.234)
    assert summary(metrics, EVERY) == (
        "Asked with text, the model puts the right video and audio first for 61.2 % of 1,234 queries."
    )
    metrics["T2VA"]["intervals"] = {"R@1": [58.0, 64.4]}
    assert summary(metrics, EVERY).endswith("of 1,234 queries (95 % interval: 58.0 to 64.4 %).")
    assert summary(rows(other=5.0), EVERY) == "other puts the right answer first for 5.0 % of 1,234 queries."


def test_gains_are_over_the_best_single_one_of_the_same_question_or_answer() -> None:
    metrics = rows(T2V=50, V2T=70, T2A=60, A2T=40, V2A=95, A2V=96, T2VA=75, VA2T=68)
    forward, backward = gains(metrics, EVERY)
    assert (forward.joint, forward.single, forward.points, forward.low) == ("T2VA", "T2A", 15, None)
    assert (backward.joint, backward.single, backward.points) == ("VA2T", "V2T", -2)


def test_gains_that_are_told_are_taken() -> None:
    metrics = rows(T2V=50, V2T=70, T2A=60, A2T=40, T2VA=75, VA2T=68)
    metrics["T2VA"] |= {"gain": 14.5, "intervals": {"gain": [10.0, 19.0]}}
    metrics["VA2T"] |= {"gain": None}  # ranked over other clips than the single ones
    (found,) = gains(metrics, EVERY)
    assert (found.points, found.low, found.high) == (pytest.approx(14.5), 10, 19)
    assert gains(rows(T2V=1, V2T=2), directions(("text", "video"))) == []
