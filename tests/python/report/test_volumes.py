"""Matched and unmatched groups: every one of them, by the definition of the volume."""

from dataclasses import replace

import numpy as np
import pytest

from cases.reports import embeddings_of
from mover.evaluate.directions import Direction
from mover.report import volumes
from mover.report.volumes import Groups, groups_of, volume_chart

JOINT = Direction(("text",), ("video", "audio"))


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_volumes_are_roots_of_determinants() -> None:
    embeddings = embeddings_of(7)
    first = np.searchsorted(embeddings.text_owner, np.arange(7))
    t, v, a = unit(embeddings.vectors["text"][first]), *(unit(embeddings.vectors[m]) for m in ("video", "audio"))
    expected = np.empty((7, 7))
    for i in range(7):
        for j in range(7):
            rows = np.stack([t[i], v[j], a[j]])
            expected[i, j] = np.sqrt(np.linalg.det(rows @ rows.T))
    found = groups_of(embeddings, JOINT)
    assert found is not None and (found.score, found.clips) == ("volume", 7)
    np.testing.assert_allclose(found.matched, np.diagonal(expected), atol=1e-5)
    np.testing.assert_allclose(np.sort(found.unmatched), np.sort(expected[~np.eye(7, dtype=bool)]), atol=1e-5)


def test_two_modalities_are_compared_by_cosine() -> None:
    embeddings = embeddings_of(5)
    found = groups_of(embeddings, Direction(("video",), ("audio",)))
    v, a = unit(embeddings.vectors["video"]), unit(embeddings.vectors["audio"])
    assert found is not None and found.score == "cosine"
    np.testing.assert_allclose(found.matched, (v * a).sum(1))
    assert len(found.unmatched) == 20


def test_clips_without_all_of_them_are_left_out() -> None:
    embeddings = embeddings_of(6)
    embeddings.present["video"][2] = False
    embeddings.vectors["audio"][4] = np.nan
    found = groups_of(embeddings, JOINT)
    assert found is not None and found.clips == 4 and np.isfinite(found.unmatched).all()
    kept = groups_of(embeddings.select(np.array([0, 1, 3, 5])), JOINT)
    assert kept is not None and np.array_equal(kept.matched, found.matched)
    assert groups_of(embeddings.select(np.array([0])), JOINT) is None
    assert groups_of(embeddings, Direction(("a",), tuple("bcdefghi"))) is None


def test_a_clip_without_captions_is_left_out() -> None:
    embeddings = embeddings_of(4)
    kept = embeddings.text_owner != 1
    vectors = {**embeddings.vectors, "text": embeddings.vectors["text"][kept]}
    present = {**embeddings.present, "text": np.array([True, False, True, True])}
    some = replace(embeddings, vectors=vectors, text_owner=embeddings.text_owner[kept], present=present)
    found, expected = groups_of(some, JOINT), groups_of(embeddings.select(np.array([0, 2, 3])), JOINT)
    assert found is not None and expected is not None
    assert np.array_equal(found.matched, expected.matched)


def test_many_clips_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "CLIPS", 9)
    found = groups_of(embeddings_of(40), JOINT, seed=1)
    assert found is not None and (len(found.matched), len(found.unmatched), found.clips) == (9, 72, 40)


@pytest.mark.parametrize("score", ["volume", "cosine"])
def test_told_apart_counts_pairs(score: str) -> None:
    random = np.random.default_rng(0)
    matched, unmatched = random.integers(0, 6, 11) / 5, random.integers(2, 9, 17) / 5  # with ties
    sign = 1 if score == "volume" else -1
    wins = [(sign * m < sign * u) + 0.5 * (m == u) for m in matched for u in unmatched]
    assert Groups(score, matched, unmatched, 11).told_apart == pytest.approx(100 * np.mean(wins))


def test_the_label_tells_the_medians() -> None:
    groups = Groups("volume", np.array([0.1, 0.2, 0.3]), np.array([0.8, 0.9, 0.9]), 3)
    label = volume_chart(groups).label
    assert "3 matched and 3 unmatched" in label and "0.20 and 0.90" in label and "100.0 %" in label
    assert volume_chart(Groups("volume", np.zeros(2), np.zeros(2), 2)).svg  # all equal
