"""Numbers of an embedding space: closed forms, plain loops, scikit-learn where it defines the same, hostile rows."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from mover.evaluate import classes, geometry
from mover.evaluate.analysis import analyse, classes_of
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.points import points_of, unit_rows

THREE = ("text", "video", "audio")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make(rows: dict[str, Any], labels: tuple[str, ...] | None = None, owner: Any = None) -> Embeddings:
    """One caption per clip unless `owner` says otherwise."""
    clips = len(next(v for m, v in rows.items() if m != "text"))
    vectors = {m: np.asarray(v, dtype=np.float64) for m, v in rows.items()}
    own = np.arange(clips if "text" in rows else 0) if owner is None else np.array(owner)
    return Embeddings([f"clip{i}" for i in range(clips)], vectors, own, {m: np.ones(clips, bool) for m in rows}, labels)


def random_set(clips: int = 40, d: int = 8, kinds: int = 4, seed: int = 0, noise: float = 0.8) -> Embeddings:
    random = np.random.default_rng(seed)
    group = random.integers(0, kinds, clips)
    centre = random.normal(size=(kinds, d))
    rows = {m: centre[group] + noise * random.normal(size=(clips, d)) + 0.5 * i for i, m in enumerate(THREE)}
    return make(rows, tuple(f"kind{g}" for g in group))


def test_two_orthogonal_classes() -> None:
    rows = np.array([[1.0, 0, 0]] * 3 + [[0, 1.0, 0]] * 3)
    got = analyse(make({"text": rows, "video": 7 * rows, "audio": rows}, ("a",) * 3 + ("b",) * 3))
    assert got["silhouette_by_class"] == {"text": 1, "video": 1, "audio": 1, "all": 1}
    assert got["silhouette_by_modality"] == pytest.approx(-1 / 6)  # 0.6 to the rest of its own, 0.5 to others
    for numbers in got["neighbours"].values():
        assert numbers == {"1": 100, "5": 40, "10": None, "chance": 40, "questions": 6, "candidates": 6}
    for numbers in got["kmeans"].values():
        assert numbers["nmi"] == numbers["ari"] == {"mean": 1, "low": 1, "high": 1}
        assert numbers["clusters"] == 2
    for numbers in got["text_to_class"].values():
        assert numbers == {"classes": 2, "cosine": 1, "others": 0, "margin": 1, "nearest": 100, "rows": 6}
    assert got["text_to_clip"] == {"clips": 6, "mean": pytest.approx(1), "std": pytest.approx(0)}
    assert got["volume"] == {"modalities": list(THREE), "clips": 6, "matched": 0, "unmatched": 0}
    assert got["notes"] == []


def test_antipodal_modalities() -> None:
    rows = np.tile([[0.6, 0.8]], (5, 1))
    got = analyse(make({"text": rows, "video": -rows}))
    assert got["pairs"]["text-video"] == {
        "clips": 5,
        "gap": pytest.approx(2),
        "angle": pytest.approx(180),
        "matched": pytest.approx(-1),
        "unmatched": pytest.approx(-1),
        "alignment": pytest.approx(4),
    }
    assert got["silhouette_by_modality"] == pytest.approx(1)
    assert got["text_to_clip"]["mean"] == pytest.approx(-1)
    assert got["modalities"]["text"] == {
        "rows": 5,
        "centroid": pytest.approx(1),
        "effective_rank": pytest.approx(1),
        "uniformity": pytest.approx(0),
        "uniformity_sample": 5,
    }
    assert "silhouette_by_class" not in got and "No clip has a label" in got["notes"][0]


def test_modalities_that_agree() -> None:
    rows = np.eye(4)
    got = analyse(make(dict.fromkeys(THREE, rows)))
    for numbers in got["pairs"].values():
        assert numbers["gap"] == numbers["angle"] == numbers["alignment"] == 0
        assert numbers["matched"] == 1 and numbers["unmatched"] == 0
    # Six pairs at squared distance 2: log exp(-2 * 2). Four equal singular values: rank 4. Mean of four axes: 1/2.
    for numbers in got["modalities"].values():
        assert numbers["uniformity"] == pytest.approx(-4)
        assert numbers["effective_rank"] == pytest.approx(4)
        assert numbers["centroid"] == pytest.approx(0.5)
    assert got["volume"]["matched"] == 0
    assert got["volume"]["unmatched"] == pytest.approx(1)  # rows of three different clips are orthogonal


def test_uniformity_of_a_simplex() -> None:
    """k + 1 points of a regular simplex: all cosines -1/k, squared distances 2 + 2/k."""
    for k in (1, 2, 5):
        corners = np.eye(k + 1) - 1 / (k + 1)
        assert geometry.uniformity(unit(corners)) == pytest.approx(-2 * (2 + 2 / k))


def test_angle_of_close_centroids_keeps_its_digits() -> None:
    x, y = np.array([[1.0, 0.0]]), np.array([[math.cos(1e-7), math.sin(1e-7)]])
    assert geometry.pair(x, y)["angle"] == pytest.approx(math.degrees(1e-7), rel=1e-6)
    assert geometry.pair(np.array([[1.0, 0], [-1, 0]]), np.array([[1.0, 0], [1, 0]]))["angle"] is None


def test_pairs_and_uniformity_by_loops() -> None:
    points = points_of(random_set(clips=23))
    x, y = points.rows["text"], points.rows["audio"]
    got = geometry.pair(x, y)
    apart = [x[i] @ y[j] for i in range(23) for j in range(23) if i != j]
    assert got["matched"] == pytest.approx(np.mean([x[i] @ y[i] for i in range(23)]))
    assert got["unmatched"] == pytest.approx(np.mean(apart))
    assert got["alignment"] == pytest.approx(np.mean([((x[i] - y[i]) ** 2).sum() for i in range(23)]))
    squares = [((x[i] - x[j]) ** 2).sum() for i in range(23) for j in range(i)]
    assert geometry.uniformity(x) == pytest.approx(math.log(np.mean(np.exp(-2 * np.array(squares)))))
    values = np.linalg.svd(x, compute_uv=False)
    shares = values / values.sum()
    assert geometry.effective_rank(x) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = random_set(clips=30)
    whole = json.dumps(analyse(embeddings))
    monkeypatch.setattr(geometry, "_BLOCK", 7)
    monkeypatch.setattr(classes, "_BLOCK_ELEMENTS", 65)
    parts = analyse(embeddings)
    assert _flat(parts) == pytest.approx(_flat(json.loads(whole)))


def _flat(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [x for entry in value.values() for x in _flat(entry)]
    return [float(value)] if isinstance(value, (int, float)) else []


@pytest.mark.parametrize("seed", range(4))
def test_silhouette_is_that_of_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = unit(random.normal(size=(50, 5)))
    group = random.integers(0, 6, 50)
    group[group == 5] = 4
    group[0] = 9  # alone
    expected = silhouette_score(rows, group, metric="cosine")
    assert classes.silhouette(rows, group) == pytest.approx(expected, abs=1e-12)


def test_silhouette_where_it_is_not_defined_or_flat() -> None:
    rows = np.tile([[1.0, 0.0]], (6, 1))
    assert classes.silhouette(rows, np.zeros(6, int)) is None
    assert classes.silhouette(rows, np.arange(6)) is None
    assert classes.silhouette(rows, np.array([0, 0, 0, 1, 1, 2])) == 0  # all distances are 0
    rows = unit(np.random.default_rng(0).normal(size=(1, 7)))
    assert classes.silhouette(np.tile(rows, (6, 1)), np.array([0, 0, 0, 1, 1, 2])) == 0  # to rounding


def neighbours_by_loops(e: Embeddings, asking: str, among: str, k: int) -> float:
    """No ties expected."""
    points, group = points_of(e), classes_of(e).group
    shares = []
    for row, clip in zip(points.rows[asking], points.clips[asking], strict=True):
        others = [(float(row @ y), int(c)) for y, c in zip(points.rows[among], points.clips[among], strict=True)]
        nearest = sorted((s, c) for s, c in others if c != clip)[-k:]
        shares.append(np.mean([group[c] == group[clip] for _, c in nearest]))
    return 100 * float(np.mean(shares))


def test_neighbours_by_loops() -> None:
    embeddings = random_set(clips=31)
    embeddings.present["audio"][[3, 4, 20]] = False
    got = analyse(embeddings)["neighbours"]
    assert set(got) == {f"{m}-{n}" for m in THREE for n in THREE}
    for name, numbers in got.items():
        for k in (1, 5, 10):
            assert numbers[str(k)] == pytest.approx(neighbours_by_loops(embeddings, *name.split("-"), k)), (name, k)
    assert (got["text-audio"]["questions"], got["text-audio"]["candidates"]) == (31, 28)
    counts = classes_of(embeddings).counts
    assert got["text-text"]["chance"] == pytest.approx(100 * (counts * (counts - 1)).sum() / (31 * 30))


def test_neighbours_share_places_among_ties() -> None:
    """One question, three candidates of one score of which two are alike: one place is alike with chance 2/3."""
    rows = np.array([[1.0, 0.0]] + [[0.6, 0.8]] * 3 + [[0.0, 1.0]])
    group = np.array([0, 0, 0, 1, 1])
    everyone = np.arange(5)

    def share(ks: tuple[int, ...]) -> dict[str, float | None]:
        return classes.neighbours(rows[:1], everyone[:1], rows, everyone, group, ks)

    assert share((1, 2, 3, 4, 5)) == {
        "1": pytest.approx(200 / 3),
        "2": pytest.approx(200 / 3),
        "3": pytest.approx(200 / 3),
        "4": 50,
        "5": None,
    }


def test_copies_tie_wherever_they_stand() -> None:
    """Products of equal rows differ in their last digit from tile to tile."""
    copies = np.tile(unit(np.random.default_rng(1).normal(size=(2, 37))), (150, 1)) + 0.0
    group = np.arange(300) // 2 % 3
    everyone = np.arange(300)
    got = classes.neighbours(copies, everyone, copies, everyone, group, (1, 10))
    assert got == {"1": pytest.approx(100 * 49 / 149), "10": pytest.approx(100 * 49 / 149)}


def test_a_clip_is_never_its_own_neighbour() -> None:
    rows = np.eye(6)
    got = analyse(make(dict.fromkeys(THREE, rows), tuple("aabbcc")))
    for numbers in got["neighbours"].values():  # all others tie
        assert numbers["1"] == pytest.approx(100 / 5)


def test_texts_as_centres_by_loops() -> None:
    embeddings = random_set(clips=33, noise=2.0)
    labels = list(embeddings.labels or ())
    labels[5] = "alone"
    embeddings = replace(embeddings, labels=tuple(labels))
    embeddings.present["text"][[1, 2]] = False
    points, group = points_of(embeddings), classes_of(embeddings).group
    got = analyse(embeddings)["text_to_class"]["video"]

    def towards(rows: list[np.ndarray]) -> np.ndarray:
        return np.mean(rows, axis=0) / np.linalg.norm(np.mean(rows, axis=0))

    text = dict(zip(points.clips["text"].tolist(), points.rows["text"], strict=True))
    video = points.rows["video"]
    kinds = range(group.max() + 1)
    own, others, margins = [], [], []
    for kind in kinds:
        centre = towards([video[i] for i in range(33) if group[i] == kind])
        cosines = {g: towards([text[i] for i in text if group[i] == g]) @ centre for g in kinds}
        own.append(cosines.pop(kind))
        others += list(cosines.values())
        margins.append(own[-1] - max(cosines.values()))
    assert got["classes"] == len(kinds) == 5
    assert got["cosine"] == pytest.approx(np.mean(own))
    assert got["others"] == pytest.approx(np.mean(others))
    assert got["margin"] == pytest.approx(np.mean(margins))
    right = []
    for i in range(33):
        rest = {g: [text[j] for j in text if group[j] == g and (j != i or g != group[i])] for g in kinds}
        if rest[group[i]]:
            scores = {g: towards(rows) @ video[i] for g, rows in rest.items()}
            right.append(max(scores, key=lambda g: scores[g]) == group[i])
    assert got["rows"] == len(right) == 32
    assert 0 < got["nearest"] < 100
    assert got["nearest"] == pytest.approx(100 * np.mean(right))


def test_text_to_clip_by_loops() -> None:
    embeddings = random_set(clips=9)
    embeddings.present["audio"][2] = False
    embeddings.present["video"][2] = False
    embeddings.present["video"][4] = False
    points = points_of(embeddings)
    cosines = []
    for i in range(9):
        rows = [points.rows[m][points.clips[m] == i] for m in ("video", "audio")]
        total = np.concatenate(rows).sum(0)
        if i != 2:
            cosines.append(float(points.rows["text"][i] @ total / np.linalg.norm(total)))
    got = analyse(embeddings)["text_to_clip"]
    assert got == {"clips": 8, "mean": pytest.approx(np.mean(cosines)), "std": pytest.approx(np.std(cosines))}


def test_volume_against_determinants() -> None:
    embeddings = random_set(clips=12)
    embeddings.present["audio"][3] = False
    points = points_of(embeddings)
    every = [i for i in range(12) if i != 3]
    groups = [np.array([points.rows[m][points.clips[m] == i][0] for m in THREE]) for i in every]
    got = analyse(embeddings)["volume"]
    assert got["clips"] == 11
    assert got["matched"] == pytest.approx(np.mean([math.sqrt(np.linalg.det(g @ g.T)) for g in groups]))
    assert got["matched"] < got["unmatched"] <= 1


def test_text_of_a_clip_is_the_mean_of_its_captions() -> None:
    rows = {"text": [[2.0, 0], [0, 9], [1, 0], [-1, 0], [np.nan, 0], [0, 3]], "video": np.ones((3, 2))}
    points = points_of(make(rows, owner=[0, 0, 1, 1, 2, 2]))
    assert points.clips["text"].tolist() == [0, 2]  # the captions of clip 1 cancel out
    assert points.rows["text"] == pytest.approx(np.array([[0.5**0.5, 0.5**0.5], [0, 1]]))
    assert points.unusable == {"text": 1, "video": 0}


def test_rows_that_cannot_be_used_change_nothing() -> None:
    embeddings = random_set(clips=20)
    expected = analyse(embeddings.select(np.arange(15)))
    for place, foreign in enumerate((np.nan, np.inf, 0.0)):
        for rows in embeddings.vectors.values():
            rows[15 + place] = foreign
    for m in THREE:
        embeddings.present[m][18:] = False
        embeddings.vectors[m][18:] = 1e30
    got = analyse(embeddings)
    assert got["unusable"] == {"text": 3, "video": 3, "audio": 3}
    assert got["without"] == {"text": 2, "video": 2, "audio": 2}
    for name in ("pairs", "neighbours", "silhouette_by_class", "text_to_class", "modalities"):
        assert _flat(got[name]) == pytest.approx(_flat(expected[name])), name


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e160, 1e-160])
def test_length_does_not_matter(scale: float) -> None:
    embeddings = random_set(clips=12)
    scaled = replace(embeddings, vectors={m: rows * scale for m, rows in embeddings.vectors.items()})
    assert _flat(analyse(scaled)) == pytest.approx(_flat(analyse(embeddings)))
    assert unit_rows(np.array([[3 * scale, 4 * scale]]))[0] == pytest.approx(np.array([[0.6, 0.8]]))


def test_odd_sets() -> None:
    one = make({"video": np.ones((1, 3)), "audio": np.ones((1, 3))}, ("a",))
    got = analyse(one)
    assert got["pairs"]["video-audio"]["unmatched"] is None
    assert got["modalities"]["video"]["uniformity"] is None
    assert got["silhouette_by_class"] == {"video": None, "audio": None, "all": None}
    assert got["kmeans"] == {"video": None, "audio": None, "all": None}
    assert got["text_to_clip"] is got["text_to_class"] is None
    assert any("one class, 'a'" in note for note in got["notes"])
    assert any("no text beside" in note for note in got["notes"])

    copies = make(dict.fromkeys(THREE, np.ones((6, 3))), tuple("aabbcc"))
    got = analyse(copies)
    assert got["silhouette_by_class"]["all"] == 0 and got["kmeans"]["all"] is None
    assert got["neighbours"]["text-video"]["1"] == pytest.approx(20) == got["neighbours"]["text-video"]["chance"]

    nothing = make(dict.fromkeys(THREE, np.zeros((4, 3))), tuple("aabb"))
    got = analyse(nothing)
    assert got["unusable"] == dict.fromkeys(THREE, 4) and len(got["notes"]) == 3

    gone = random_set(clips=8)
    gone.present["audio"][:] = False
    got = analyse(gone)
    assert list(got["pairs"]) == ["text-video"] and "No clip has a usable row of audio" in got["notes"][0]
    assert got["volume"]["modalities"] == ["text", "video"]

    apart = random_set(clips=8)
    apart.present["video"][:4], apart.present["audio"][4:] = False, False
    assert analyse(apart)["volume"] is None

    alone = replace(random_set(clips=8), labels=("", "x", "", "", "y", "z", "", ""))
    got = analyse(alone)
    assert got["classes"] == {
        "labelled": 3, "unlabelled": 5, "count": 3, "of_one_clip": 3, "largest": {"x": 1, "y": 1, "z": 1}
    }  # fmt: skip
    assert got["silhouette_by_class"]["text"] is None and got["neighbours"]["text-audio"]["1"] == 0
    for result in (got, analyse(nothing), analyse(one)):
        json.dumps(result, allow_nan=False)


def test_a_sample_is_said_and_the_same_each_time() -> None:
    embeddings = random_set(clips=60)
    got = analyse(embeddings, sample=20)
    assert got["modalities"]["text"]["uniformity_sample"] == 20 and got["modalities"]["text"]["rows"] == 60
    assert got["neighbours"]["text-video"]["questions"] == 20
    assert got["neighbours"]["text-video"]["candidates"] == 60
    assert got["kmeans"]["text"]["rows"] == 20 and got["kmeans"]["all"]["rows"] == 60
    assert analyse(embeddings, sample=20) == got != analyse(embeddings, sample=20, seed=1)
    for name in ("pairs", "silhouette_by_class", "text_to_class"):
        assert analyse(embeddings)[name] == got[name]  # exact whatever the sample


def test_better_spaces_have_better_numbers() -> None:
    good, bad = (analyse(random_set(clips=60, noise=noise)) for noise in (0.3, 3.0))
    assert good["silhouette_by_class"]["all"] > bad["silhouette_by_class"]["all"]
    assert good["neighbours"]["text-audio"]["5"] > bad["neighbours"]["text-audio"]["5"]
    assert good["kmeans"]["all"]["nmi"]["mean"] > bad["kmeans"]["all"]["nmi"]["mean"]
    assert good["volume"]["matched"] < bad["volume"]["matched"]
    assert good["text_to_class"]["video"]["nearest"] > bad["text_to_class"]["video"]["nearest"]
