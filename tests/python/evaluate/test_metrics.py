"""Metrics of embeddings: every direction against plain loops, missing modalities, NaN rows, ties."""

import math
from typing import Any

import numpy as np
import pytest

from mover.errors import UserError
from mover.evaluate import counting
from mover.evaluate.directions import Direction, directions, headline, joint_score
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.metrics import retrieval_metrics

NAMES = ["T2V", "V2T", "T2A", "A2T", "V2A", "A2V", "T2VA", "VA2T"]


THREE = ("text", "video", "audio")
NAMED = [
    ("video", "audio"),
    ("text", "image"),
    ("image", "notes"),
    THREE,
    ("text", "image", "notes"),
    ("image", "notes", "audio"),
    (*THREE, "depth"),
    (*THREE, "depth", "notes"),
    ("depth", "image", "notes", "video", "audio"),
]


def make(clips: int = 9, d: int = 6, seed: int = 0, noise: float = 0.7, modalities: Any = THREE) -> Embeddings:
    """Clips with one to three captions, all modalities around one centre per clip."""
    random = np.random.default_rng(seed)
    centre = random.normal(size=(clips, d))
    owner = np.array([i for i in range(clips) for _ in range(1 + i % 3)])
    places = {m: owner if m == "text" else np.arange(clips) for m in modalities}
    rows = {m: centre[place] + noise * random.normal(size=(len(place), d)) for m, place in places.items()}
    vectors = {m: (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for m, v in rows.items()}
    present = {m: np.ones(clips, dtype=bool) for m in rows}
    owner = owner if "text" in modalities else np.zeros(0, dtype=np.int64)
    return Embeddings([f"clip{i}" for i in range(clips)], vectors, owner, present)


def volume(one: np.ndarray, others: np.ndarray) -> float:
    """The volume of a vector with others, by the determinant of their Gram matrix."""
    rows = np.vstack([one, others]).astype(np.float64)
    return math.sqrt(max(0.0, float(np.linalg.det(rows @ rows.T))))


def span(one: np.ndarray, others: np.ndarray) -> float:
    """The distance of a vector from the span of others, by least squares."""
    one, others = one.astype(np.float64), others.astype(np.float64)
    return float(np.linalg.norm(one - np.linalg.pinv(others) @ others @ one))


def brute_force(e: Embeddings, direction: Direction) -> tuple[list[int], int]:
    """0-based ranks by loops, no ties expected, and the number of clips ranked."""
    single, others = direction.single, direction.others
    having = {i: [m for m in others if e.present[m][i]] for i in range(len(e.ids))}
    clips = [i for i in having if e.present[single][i] and having[i]]
    gaps = any(len(having[i]) < len(others) for i in clips)
    if single == "text":
        ones = [(int(o), v) for o, v in zip(e.text_owner, e.vectors["text"], strict=True) if o in clips]
    else:
        ones = [(i, e.vectors[single][i]) for i in clips]
    groups = [(i, np.array([e.vectors[m][i] for m in having[i]])) for i in clips]
    if others == ("text",):
        own = zip(e.text_owner, e.vectors["text"], strict=True)
        groups = [(int(o), v[None]) for o, v in own if o in clips]

    def score(one: np.ndarray, group: np.ndarray) -> float:
        if len(others) == 1:
            return float(one.astype(np.float64) @ group[0].astype(np.float64))
        return -span(one, group) if gaps else -volume(one, group)

    asking, asked = (ones, groups) if direction.query == (single,) else (groups, ones)
    ranks = []
    for owner, left in asking:
        scored = [
            (score(left, right) if asking is ones else score(right, left), other == owner) for other, right in asked
        ]
        best = max(s for s, mine in scored if mine)
        ranks.append(sum(s > best for s, mine in scored if not mine))
    return ranks, len(clips)


@pytest.mark.parametrize("missing", ["fail", "drop", "mask"])
@pytest.mark.parametrize("modalities", NAMED, ids="-".join)
def test_every_direction_against_loops(modalities: tuple[str, ...], missing: str) -> None:
    embeddings = make(clips=14, modalities=modalities)
    if missing != "fail":
        random = np.random.default_rng(len(modalities))
        for m in modalities:
            embeddings.present[m] &= random.random(14) > 0.25
            gone = ~embeddings.present[m]
            embeddings.vectors[m][gone[embeddings.text_owner] if m == "text" else gone] = np.nan
    complete = [i for i in range(14) if all(flags[i] for flags in embeddings.present.values())]
    ranked = embeddings.under(missing)
    assert len(complete) < 14 or missing == "fail"
    assert ranked.ids == [f"clip{i}" for i in (complete if missing == "drop" else range(14))]
    anchor = modalities[1]
    metrics = retrieval_metrics(ranked, anchor=anchor)
    assert list(metrics) == [d.name for d in directions(ranked.modalities, anchor)]
    for direction in directions(ranked.modalities, anchor):
        ranks, clips = brute_force(ranked, direction)
        row = metrics[direction.name]
        assert (row["N"], row["clips"]) == (len(ranks), clips)
        for k in (1, 5, 10):
            assert row[f"R@{k}"] == pytest.approx(100 * (np.array(ranks) < k).mean(), abs=1e-3)
        assert row["MdR"] == np.median(ranks) + 1
        assert row["MnR"] == pytest.approx(np.mean(ranks) + 1, abs=1e-3)
    counts = {row["clips"] for row in metrics.values()}
    assert counts == {len(complete)} if missing == "drop" else len(counts) == 1 or missing == "mask"
    expected = {"fail": "volume", "drop": "volume", "mask": "span"}[missing]
    assert joint_score(ranked, anchor) == (expected if len(modalities) > 2 else None)


def test_names_and_order_of_directions() -> None:
    def names(*modalities: str, anchor: str | None = None) -> list[str]:
        return [direction.name for direction in directions(modalities, anchor)]

    assert names("text", "image") == ["T2image", "image2T"]
    assert names(*THREE, anchor="video")[-2:] == ["T2VA", "VA2T"]
    assert names(*THREE, "depth", "notes")[-2:] == ["T2VA+depth+notes", "VA+depth+notes2T"]
    assert names("video", "depth", "notes")[-2:] == ["V2depth+notes", "depth+notes2V"]
    assert names("video", "depth", "notes", anchor="depth")[-2:] == ["depth2V+notes", "V+notes2depth"]
    assert len(names(*THREE, "a", "b", "c", "d", "e")) == 8 * 7 + 2
    assert len(names(*THREE, "a", "b", "c", "d", "e", "f")) == 9 * 8
    assert headline(names("text", "image")) == "T2image" and headline(NAMES) == "T2VA"
    with pytest.raises(UserError, match="anchor 'smell' is not among"):
        names("video", "depth", anchor="smell")
    with pytest.raises(UserError, match="a2b2c"):
        names("a", "b2c", "a2b", "c")


def test_what_a_clip_lacks_leaves_it_out_of_what_needs_it() -> None:
    embeddings = make()
    embeddings.present["audio"][[1, 4]] = False
    embeddings.present["text"][2] = False
    embeddings.present["video"][1] = False  # nothing is left to compare clip 1's captions with
    counts = {name: row["clips"] for name, row in retrieval_metrics(embeddings).items()}
    assert counts == {"T2V": 7, "V2T": 7, "T2A": 6, "A2T": 6, "V2A": 7, "A2V": 7, "T2VA": 7, "VA2T": 7}
    assert {row["clips"] for row in retrieval_metrics(embeddings.under("drop")).values()} == {6}
    embeddings.present["audio"][:] = False
    assert list(retrieval_metrics(embeddings)) == ["T2V", "V2T", "T2VA", "VA2T"]
    assert embeddings.under("drop").ids == []


def test_rows_that_are_not_there_are_not_read() -> None:
    embeddings = make(modalities=(*THREE, "depth"))
    for place, m in enumerate(embeddings.modalities):
        embeddings.present[m][[place, place + 4]] = False
    expected = retrieval_metrics(embeddings)
    for foreign in (0.0, np.nan, np.inf, 1e30):
        for m in ("video", "audio", "depth"):
            embeddings.vectors[m][~embeddings.present[m]] = foreign
        assert retrieval_metrics(embeddings) == expected


def test_two_modalities_have_two_directions() -> None:
    embeddings = make()
    del embeddings.vectors["text"], embeddings.present["text"]
    assert list(retrieval_metrics(embeddings)) == ["V2A", "A2V"]


def test_small_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = make(clips=40)
    whole = retrieval_metrics(embeddings, every_score=True, dual_softmax=0.1)
    monkeypatch.setattr(counting, "TILE", (7, 5))
    assert retrieval_metrics(embeddings, every_score=True, dual_softmax=0.1) == whole


def test_identical_clips_share_the_places() -> None:
    embeddings = make(clips=4)
    for m in ("video", "audio"):
        embeddings.vectors[m][:] = embeddings.vectors[m][0]
    metrics = retrieval_metrics(embeddings)
    for name in ("T2V", "T2A", "T2VA"):
        assert metrics[name]["R@1"] == pytest.approx(25)
        assert metrics[name]["MnR"] == pytest.approx(2.5)


def test_scale_does_not_matter() -> None:
    embeddings = make()
    scaled = Embeddings(
        embeddings.ids, {m: 37 * v for m, v in embeddings.vectors.items()}, embeddings.text_owner, embeddings.present
    )
    assert retrieval_metrics(scaled) == retrieval_metrics(embeddings)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_unusable_rows_rank_last_and_disturb_no_other(value: float) -> None:
    clean, embeddings = make(noise=0.01), make(noise=0.01)
    assert all(row["R@1"] == 100 for row in retrieval_metrics(clean).values())
    embeddings.vectors["video"][3] = value
    assert embeddings.unusable("video") == ["clip3"]
    metrics = retrieval_metrics(embeddings)
    captions, own = len(embeddings.text_owner), int((embeddings.text_owner == 3).sum())
    assert metrics["T2V"]["R@1"] == pytest.approx(100 * (1 - own / captions), abs=1e-3)
    assert metrics["T2VA"]["R@1"] == pytest.approx(100 * (1 - own / captions), abs=1e-3)
    assert metrics["T2V"]["MnR"] == pytest.approx(1 + own * 8 / captions, abs=1e-3)
    for name in ("V2T", "VA2T", "V2A", "A2V"):
        assert metrics[name]["R@1"] == pytest.approx(100 * 8 / 9, abs=1e-3)
    assert metrics["T2A"]["R@1"] == 100


def test_random_tie_breaking_gives_the_reported_recall() -> None:
    """Cosines that tie in bulk: noise far below their spacing breaks the ties; its mean is what we report."""
    random = np.random.default_rng(3)
    clips, corners = 12, np.eye(4, dtype=np.float32)
    owner = np.repeat(np.arange(clips), 2)
    vectors = {"text": corners[random.integers(0, 4, 24)], "video": corners[random.integers(0, 4, clips)]}
    present = {m: np.ones(clips, dtype=bool) for m in vectors}
    got = retrieval_metrics(Embeddings([str(i) for i in range(clips)], vectors, owner, present))
    cosine = vectors["text"] @ vectors["video"].T
    forward, backward = [], []
    for _ in range(4000):
        noisy = cosine + 1e-3 * random.random(cosine.shape)
        right = noisy[np.arange(24), owner]
        forward.append(((noisy > right[:, None]).sum(1) < 5).mean())
        back = noisy.T
        best = np.where(owner[None] == np.arange(clips)[:, None], back, -9).max(1)
        wrong = (back > best[:, None]) & (owner[None] != np.arange(clips)[:, None])
        backward.append((wrong.sum(1) < 1).mean())
    assert got["T2V"]["R@5"] == pytest.approx(100 * np.mean(forward), abs=0.5)
    assert got["V2T"]["R@1"] == pytest.approx(100 * np.mean(backward), abs=0.5)
