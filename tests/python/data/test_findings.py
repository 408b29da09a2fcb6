"""Numbers in words: levels cut by the training clips, phrases that tell them apart, splits that share no item."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mover.data.made import digits, notes
from mover.data.made.findings import Finding, deal, levels, said
from mover.data.sampling import generator
from mover.errors import UserError


def test_levels_are_equally_frequent_in_training() -> None:
    values = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 50, 60, 3.9])
    training = np.arange(12) < 9
    found = levels(values, training, 3)
    assert found[training].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found[~training].tolist() == [2, 2, 1]
    assert levels(np.ones(4), np.ones(4, bool), 4).tolist() == [3] * 4, "all the same is one level"


def test_every_finding_is_said_in_full() -> None:
    for findings in (digits.FINDINGS, notes.FINDINGS):
        for seed in range(20):
            item = [seed % len(finding.phrases) for finding in findings]
            told = said(findings, item, generator(seed), full=True)
            for finding, level in zip(findings, item, strict=True):
                assert len(set(told) & set(finding.phrases[level])) == 1
            assert len(told) == len(findings)


def test_training_leaves_findings_out() -> None:
    item = [0] * len(notes.FINDINGS)
    lengths = [len(said(notes.FINDINGS, item, generator(seed), full=False)) for seed in range(400)]
    assert np.mean(lengths) == pytest.approx(0.9 * 7, abs=0.1)
    one = [Finding("a", (("x",),))]
    assert all(said(one, [0], generator(seed), full=False) == ["x"] for seed in range(50)), "something is always said"


def test_no_two_levels_share_a_phrase() -> None:
    for findings in (digits.FINDINGS, notes.FINDINGS):
        phrases = [phrase for finding in findings for level in finding.phrases for phrase in level]
        assert len(set(phrases)) == len(phrases)


def test_items_are_dealt_once() -> None:
    dealt = deal(20, {"train": 10, "val": 4, "test": 6}, "things", generator(0))
    assert sorted(item for item, _ in dealt) == list(range(20))
    assert Counter(split for _, split in dealt) == {"train": 10, "val": 4, "test": 6}
    with pytest.raises(UserError, match=r"There are 20 things, and 15 \+ 5 \+ 1 = 21 were asked for"):
        deal(20, {"train": 15, "val": 5, "test": 1}, "things", generator(0))
    with pytest.raises(UserError, match="number of val clips must be at least 1, got 0"):
        deal(20, {"train": 15, "val": 0, "test": 1}, "things", generator(0))
