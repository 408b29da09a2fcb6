"""Classes from embeddings: against scikit-learn and plain loops, and classes and rows that are not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

from mover.errors import UserError
from mover.evaluate.classify import CS, Input, classify, inputs_of, mean_captions
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.intervals import resamples
from mover.evaluate.points import points_of

NAMES = ("cat", "dog", "owl")


def make(clips: int, seed: int, noise: float = 0.8, modalities: tuple[str, ...] = ("text", "video", "audio")) -> Any:
    """Clips of three classes around a centre each, with one or two captions; the centres are the same for all seeds."""
    centres = np.random.default_rng(9).normal(size=(3, 8))
    random = np.random.default_rng(seed)
    labels = [int(i) for i in random.integers(0, 3, clips)]
    owner = np.repeat(np.arange(clips), 1 + np.arange(clips) % 2)
    places = {m: owner if m == "text" else np.arange(clips) for m in modalities}
    vectors = {
        m: (centres[np.array(labels)[place]] + noise * (1 + i) * random.normal(size=(len(place), 8))).astype(np.float32)
        for i, (m, place) in enumerate(places.items())
    }
    present = {m: np.ones(clips, bool) for m in modalities}
    owner = owner if "text" in modalities else np.zeros(0, dtype=np.int64)
    return Embeddings([f"c{i}" for i in range(clips)], vectors, owner, present, tuple(NAMES[i] for i in labels))


@pytest.fixture
def splits() -> list[Embeddings]:
    return [make(60, 0), make(30, 1), make(40, 2)]


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def rows_of(e: Embeddings, modality: str) -> np.ndarray:
    """By loops: unit rows; of text, the unit mean of a clip's unit captions."""
    rows = unit(e.vectors[modality])
    if modality != "text":
        return rows
    return unit(np.stack([rows[e.text_owner == i].mean(0) for i in range(len(e.ids))]))


def probe(train: Any, validation: Any, test: Any, labels: list[Any]) -> tuple[float, np.ndarray]:
    best = (-1.0, 0.0, np.array([]))
    for c in CS:
        model = LogisticRegression(C=c, max_iter=2000).fit(train, labels[0])
        score = accuracy_score(labels[1], model.predict(validation))
        if score > best[0]:
            best = (score, c, model.predict(test))
    return best[1], best[2]


def test_which_inputs_there_are() -> None:
    names = [i.name for i in inputs_of(("text", "video", "audio"))]
    assert names == ["text", "video", "audio", "text+video+audio (concatenation)", "text+video+audio (mean)",
                     "video+audio (concatenation)", "video+audio (mean)"]  # fmt: skip
    assert [i.name for i in inputs_of(("text", "image"))] == [
        "text", "image", "text+image (concatenation)", "text+image (mean)"
    ]  # fmt: skip
    assert len(inputs_of(("a", "b", "c"))) == 5, "without text, all are fused once"


def test_the_probe_is_that_of_scikit_learn(splits: list[Embeddings]) -> None:
    found = classify(*splits, resamples=0)
    labels = [list(e.labels or ()) for e in splits]
    three = {m: [rows_of(e, m) for e in splits] for m in ("text", "video", "audio")}
    inputs = dict(three)
    every = [three[m] for m in three]
    inputs["text+video+audio (concatenation)"] = [np.hstack(parts) for parts in zip(*every, strict=True)]
    inputs["text+video+audio (mean)"] = [unit(np.mean(parts, axis=0)) for parts in zip(*every, strict=True)]
    inputs["video+audio (mean)"] = [unit(v + a) for v, a in zip(three["video"], three["audio"], strict=True)]
    for name, rows in inputs.items():
        c, predicted = probe(*rows, labels)
        got = found["inputs"][name]["probe"]
        assert got["C"] == c
        assert got["accuracy"] == pytest.approx(100 * accuracy_score(labels[2], predicted), abs=1e-3)
        assert got["macro_f1"] == pytest.approx(100 * f1_score(labels[2], predicted, average="macro"), abs=1e-3)
    assert found["inputs"]["video"]["clips"] == {"train": 60, "validation": 30, "test": 40}
    assert found["notes"] == [] and found["not_trained"] == [] and found["classes"] == 3
    most = max(NAMES, key=labels[0].count)
    assert found["inputs"]["text"]["majority"] == pytest.approx(100 * labels[2].count(most) / 40)


def test_the_nearest_text_by_loops(splits: list[Embeddings]) -> None:
    found = classify(*splits, resamples=0)["inputs"]
    train, _, test = splits
    text = rows_of(train, "text")
    texts = {n: text[[label == n for label in train.labels or ()]].mean(0) for n in NAMES}
    for name, rows in (("video", rows_of(test, "video")), ("text", rows_of(test, "text"))):
        predicted = [max(NAMES, key=lambda n: float(row @ texts[n] / np.linalg.norm(texts[n]))) for row in rows]
        got = found[name]["nearest_text"]
        assert got["accuracy"] == pytest.approx(100 * accuracy_score(test.labels, predicted), abs=1e-3)
        assert got["macro_f1"] == pytest.approx(100 * f1_score(test.labels, predicted, average="macro"), abs=1e-3)
    assert found["text+video+audio (concatenation)"]["nearest_text"] is None, "not of the width of a text"
    assert found["video+audio (mean)"]["nearest_text"] is not None


def test_texts_may_be_given(splits: list[Embeddings]) -> None:
    texts = {"cat": np.eye(8)[0] * 5, "emu": -np.eye(8)[0]}
    got = classify(*splits, texts, resamples=0)["inputs"]["video"]["nearest_text"]
    test = splits[2]
    right = [label == "cat" and v[0] >= 0 for label, v in zip(test.labels or (), test.vectors["video"], strict=True)]
    assert got["accuracy"] == pytest.approx(100 * np.mean(right))


def test_intervals_are_those_of_a_bootstrap(splits: list[Embeddings]) -> None:
    got = classify(*splits, resamples=100, seed=4)["inputs"]["audio"]["probe"]
    rows = [rows_of(e, "audio") for e in splits]
    labels = [list(e.labels or ()) for e in splits]
    right = 100.0 * (probe(*rows, labels)[1] == np.array(labels[2]))
    drawn = [float((w * right).sum() / w.sum()) for w in np.concatenate(list(resamples(40, 100, 4)))]
    np.testing.assert_allclose(got["interval"], np.percentile(drawn, [2.5, 97.5]), atol=1e-3)


def test_c_is_chosen_on_validation_alone(splits: list[Embeddings]) -> None:
    """Another test split changes no C; with validation labels that no C can tell, the smallest is taken."""
    train, validation, test = splits
    other = classify(train, validation, make(12, 7), resamples=0)["inputs"]
    for name, row in classify(*splits, resamples=0)["inputs"].items():
        assert other[name]["probe"]["C"] == row["probe"]["C"]
    blind = replace(validation, labels=("emu",) * 30)
    assert all(r["probe"]["C"] == CS[0] for r in classify(train, blind, test, resamples=0)["inputs"].values())


def test_a_class_absent_in_training(splits: list[Embeddings]) -> None:
    train, validation, test = splits
    fewer = replace(train, labels=tuple("" if label == "owl" else label for label in train.labels or ()))
    found = classify(fewer, validation, test, resamples=0)
    assert found["not_trained"] == ["owl"] and found["classes"] == 2
    owls = sum(label == "owl" for label in test.labels or ())
    for row in found["inputs"].values():
        assert row["probe"]["accuracy"] <= 100 * (40 - owls) / 40 and row["probe"]["macro_f1"] <= 100 * 2 / 3
    assert found["inputs"]["video"]["clips"]["train"] == sum(label != "owl" for label in train.labels or ())


def test_a_class_absent_in_test_takes_no_part_in_the_mean_of_f1(splits: list[Embeddings]) -> None:
    train, validation, test = splits
    fewer = replace(test, labels=tuple("" if label == "owl" else label for label in test.labels or ()))
    got = classify(train, validation, fewer, resamples=0)["inputs"]["audio"]
    kept = [i for i, label in enumerate(test.labels or ()) if label != "owl"]
    labels = [list(e.labels or ()) for e in splits]
    _, predicted = probe(*(rows_of(e, "audio") for e in splits), labels)
    assert "owl" in predicted[kept], "a class that is predicted, and is not there"
    scores = [f1_score([labels[2][i] == name for i in kept], predicted[kept] == name) for name in ("cat", "dog")]
    assert got["probe"]["macro_f1"] == pytest.approx(100 * np.mean(scores), abs=1e-3)


def test_rows_that_are_not_usable_are_left_out(splits: list[Embeddings]) -> None:
    train, validation, test = splits
    video = train.vectors["video"].copy()
    video[:10], video[10:15] = np.nan, 0
    spoiled = replace(train, vectors={**train.vectors, "video": video})
    found = classify(spoiled, validation, test, resamples=0)["inputs"]
    labels = [list(e.labels or ()) for e in splits]
    c, predicted = probe(
        rows_of(train, "video")[15:],
        rows_of(validation, "video"),
        rows_of(test, "video"),
        [labels[0][15:], *labels[1:]],
    )
    assert found["video"]["clips"]["train"] == 45 == found["text+video+audio (mean)"]["clips"]["train"]
    assert found["audio"]["clips"]["train"] == 60
    assert found["video"]["probe"]["C"] == c
    assert found["video"]["probe"]["accuracy"] == pytest.approx(100 * accuracy_score(labels[2], predicted), abs=1e-3)


def test_a_modality_that_a_split_lacks(splits: list[Embeddings]) -> None:
    train, validation, test = splits

    def without(e: Embeddings) -> Embeddings:
        return replace(e, present={**e.present, "audio": np.zeros(len(e.ids), bool)})

    found = classify(train, validation, without(test), resamples=0)
    assert found["inputs"]["audio"]["probe"] is None and found["inputs"]["audio"]["nearest_text"] is None
    assert "audio: no test clip has it and a label." in found["notes"]
    found = classify(train, without(validation), test, resamples=0)
    assert found["inputs"]["audio"]["probe"] is None and found["inputs"]["audio"]["nearest_text"] is not None
    assert "audio: no probe, since no validation clip has it and a label." in found["notes"]
    only = replace(
        train, present={**train.present, "audio": np.array([label == "cat" for label in train.labels or ()])}
    )
    found = classify(only, validation, test, resamples=0)
    assert "audio: no probe, since its training clips are of one class." in found["notes"]


def test_without_text(splits: list[Embeddings]) -> None:
    bare = [make(30, seed, modalities=("video", "audio")) for seed in range(3)]
    found = classify(*bare, resamples=0)["inputs"]
    assert list(found) == ["video", "audio", "video+audio (concatenation)", "video+audio (mean)"]
    assert all(row["nearest_text"] is None and row["probe"] is not None for row in found.values())


def test_captions_that_cancel_out_make_no_text() -> None:
    e = make(2, 0)
    e = replace(
        e, text_owner=np.array([0, 1, 1]), labels=("cat", "cat"),
        vectors={**e.vectors, "text": np.array([[1.0] + [0] * 7, [-1.0] + [0] * 7, [-1.0] + [0] * 7])},
    )  # fmt: skip
    assert mean_captions(points_of(e), np.array(e.labels)) == {}
    assert Input(("text", "video"), "mean").name == "text+video (mean)"


def test_what_cannot_be_classified(splits: list[Embeddings]) -> None:
    train, validation, test = splits
    one = replace(train, labels=("cat",) * 60)
    with pytest.raises(UserError, match="training clips are of one class"):
        classify(one, validation, test)
    with pytest.raises(UserError, match="No test clip has a label"):
        classify(train, validation, replace(test, labels=None))
    with pytest.raises(UserError, match="and the validation clips text, video: embed all"):
        classify(train, make(9, 3, modalities=("text", "video")), test)
    narrow = replace(test, vectors={m: v[:, :5] for m, v in test.vectors.items()})
    with pytest.raises(UserError, match="The test rows have other widths"):
        classify(train, validation, narrow)
