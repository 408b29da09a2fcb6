"""Generalised zero-shot retrieval: both kinds of classes against plain loops, chance, intervals, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mover.cli import main
from mover.data import Clip
from mover.data.manifest import write_manifest
from mover.errors import UserError
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.intervals import resamples
from mover.evaluate.rank import rankings
from mover.evaluate.zero_shot import generalised, harmonic, split_of, unseen_classes

LABELS = ("cat", "dog", "owl", "")


def make(clips: int = 24, noise: float = 0.3, seed: int = 0) -> Embeddings:
    """Clips of three classes and without one in turn, with one or two captions; owls are noisier than the rest."""
    random = np.random.default_rng(seed)
    centre = random.normal(size=(clips, 6))
    labels = tuple(LABELS[i % 4] for i in range(clips))
    spread = np.array([1.5 * noise if label == "owl" else noise for label in labels])
    owner = np.repeat(np.arange(clips), 1 + np.arange(clips) % 2)
    text = centre[owner] + spread[owner, None] * random.normal(size=(len(owner), 6))
    others = {m: centre + spread[:, None] * random.normal(size=(clips, 6)) for m in ("video", "audio")}
    vectors = {m: rows.astype(np.float32) for m, rows in {"text": text, **others}.items()}
    present = {m: np.ones(clips, bool) for m in vectors}
    return Embeddings([f"c{i}" for i in range(clips)], vectors, owner, present, labels)


def hits_of_video(e: Embeddings, label: set[str], gallery: set[str]) -> float:
    """R@1 of V2T by loops: a clip hits where one of its captions is the nearest."""
    unit = {m: v / np.linalg.norm(v, axis=1, keepdims=True) for m, v in e.vectors.items()}
    assert e.labels is not None
    captions = [j for j, owner in enumerate(e.text_owner) if e.labels[owner] in gallery]
    hits = []
    for i, name in enumerate(e.labels):
        if name in label:
            best = max(captions, key=lambda j: float(unit["video"][i] @ unit["text"][j]))
            hits.append(e.text_owner[best] == i)
    return 100 * float(np.mean(hits))


def test_both_kinds_are_those_of_loops() -> None:
    e = make()
    found = rankings(e, every_score=True)
    split = split_of(e, ["owl"])
    assert split.seen.tolist() == [i for i in range(24) if i % 4 in (0, 1)]
    assert split.held_out.tolist() == list(range(2, 24, 4)) and split.unknown == 6
    rows = generalised(e, found, split, resamples=0)
    assert list(rows) == [ranking.name for ranking in found]
    row, every = rows["V2T"], set(LABELS)
    assert row["seen"]["R@1"] == pytest.approx(hits_of_video(e, {"cat", "dog"}, every), abs=1e-3)
    assert row["unseen"]["R@1"] == pytest.approx(hits_of_video(e, {"owl"}, every), abs=1e-3)
    assert row["seen"]["alone"] == pytest.approx(hits_of_video(e, {"cat", "dog"}, {"cat", "dog"}), abs=1e-3)
    assert row["unseen"]["alone"] == pytest.approx(hits_of_video(e, {"owl"}, {"owl"}), abs=1e-3)
    s, u = row["seen"]["R@1"], row["unseen"]["R@1"]
    assert 0 < u < s and row["harmonic"] == pytest.approx(2 * s * u / (s + u), abs=1e-3)
    assert (row["seen"]["N"], row["unseen"]["N"]) == (12, 6)
    text = rows["T2V"]
    assert (text["seen"]["N"], text["seen"]["clips"]) == (18, 12), "cats have one caption, dogs two"


def test_the_two_kinds_make_up_the_whole() -> None:
    e = make()
    e = replace(e, labels=tuple(label or "pig" for label in e.labels or ()))
    for ranking in rankings(e):
        row = generalised(e, [ranking], split_of(e, ["pig", "cat"]), resamples=0)[ranking.name]
        whole = sum(row[g]["R@1"] * row[g]["N"] for g in ("seen", "unseen")) / len(ranking.standing)
        assert whole == pytest.approx(100 * ranking.standing.recall_at(1).mean(), abs=1e-3)


def test_equal_vectors_are_at_chance() -> None:
    """All candidates tie: one of 24 for each kind, whatever the class; alone one of 12, and of 6."""
    e = make()
    e = replace(e, vectors={m: np.ones_like(v) for m, v in e.vectors.items()})
    row = generalised(e, rankings(e), split_of(e, ["owl"]), resamples=0)["T2V"]
    assert row["seen"]["R@1"] == row["unseen"]["R@1"] == row["harmonic"] == pytest.approx(100 / 24, abs=1e-3)
    assert row["seen"]["alone"] == pytest.approx(100 / 12, abs=1e-3)
    assert row["unseen"]["alone"] == pytest.approx(100 / 6, abs=1e-3)


def test_harmonic_mean() -> None:
    assert harmonic(50.0, 100.0) == pytest.approx(200 / 3)
    assert harmonic(0.0, 0.0) == 0 and harmonic(0.0, 90.0) == 0
    assert np.isnan(harmonic(np.array([np.nan]), np.array([1.0])))[0] and harmonic(80.0, 80.0) == 80


def test_intervals_are_those_of_a_bootstrap_over_clips() -> None:
    e = make()
    (ranking,) = (r for r in rankings(e) if r.name == "V2A")
    row = generalised(e, [ranking], split_of(e, ["owl"]), resamples=200, seed=3)["V2A"]
    hits = 100 * ranking.standing.recall_at(1)
    seen, unseen = (np.array([label in names for label in e.labels or ()]) for names in (("cat", "dog"), ("owl",)))
    drawn = []
    for weights in np.concatenate(list(resamples(24, 200, 3))):
        s, u = (float((weights * hits)[of].sum() / weights[of].sum()) for of in (seen, unseen))
        drawn.append((s, u, 2 * s * u / (s + u) if s + u else 0.0))
    expected = np.percentile(drawn, [2.5, 97.5], axis=0).T
    got = [row["intervals"][name] for name in ("seen", "unseen", "harmonic")]
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_a_direction_without_queries_of_one_kind() -> None:
    e = make()
    owl = np.array([label == "owl" for label in e.labels or ()])
    e = replace(e, present={**e.present, "audio": ~owl})
    rows = generalised(e, rankings(e), split_of(e, ["owl"]), resamples=50)
    assert rows["V2A"]["unseen"] == {"R@1": None, "N": 0, "clips": 0, "alone": None}
    assert rows["V2A"]["harmonic"] is None and "intervals" not in rows["V2A"]
    assert rows["T2V"]["harmonic"] is not None
    assert rows["T2VA"]["seen"]["alone"] is None, "among all by the span, alone by the volume"


def test_what_cannot_be_split() -> None:
    e = make()
    with pytest.raises(UserError, match="No clip has the class 'cow'. The classes are: cat, dog, owl."):
        split_of(e, ["owl", "cow"])
    with pytest.raises(UserError, match="No clip is of a class that is seen"):
        split_of(e, ["cat", "dog", "owl"])
    with pytest.raises(UserError, match="No clip is of a class that is unseen"):
        split_of(e, [])
    with pytest.raises(UserError, match="The clips have no labels"):
        split_of(replace(e, labels=None), ["owl"])


def test_unseen_classes_of_a_manifest(tmp_path: Path) -> None:
    clips = [Clip(f"c{i}", ("x",), label=LABELS[i % 3], split="test", extra={"unseen": i % 3 > 0}) for i in range(6)]
    write_manifest(tmp_path / "m.jsonl", clips)
    assert unseen_classes([str(tmp_path / "m.jsonl")]) == ("dog", "owl")
    write_manifest(tmp_path / "m.jsonl", clips[::3])
    with pytest.raises(UserError, match="marks no class as unseen"):
        unseen_classes([str(tmp_path / "m.jsonl")])
    assert unseen_classes(["b", "a", "b"]) == ("b", "a")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    e = make()
    path = tmp_path / "e.npz"
    arrays = {m: e.vectors[m] for m in e.modalities}
    np.savez(path, ids=e.ids, text_owner=e.text_owner, labels=np.array(e.labels), **arrays)
    assert main(["evaluate", str(path), "--unseen", "owl,cat"]) == 0
    shown = capsys.readouterr().out
    assert "R@1 by class of the query, in a gallery of all" in shown and "unseen: owl, cat" in shown
    written = json.loads((tmp_path / "e.metrics.json").read_text())
    assert written["_meta"]["zero_shot"] == {
        "unseen": ["owl", "cat"], "seen_clips": 6, "unseen_clips": 12, "unlabelled_clips": 6,
        "gallery": "clips of all classes",
    }  # fmt: skip
    row = written["T2VA"]["zero_shot"]
    low, high = row["intervals"]["harmonic"]
    assert low <= row["harmonic"] <= high
    assert main(["evaluate", str(path), "--unseen", "cow"]) == 2
    assert "No clip has the class 'cow'" in capsys.readouterr().err
    assert main(["evaluate", str(path), "--unseen", ","]) == 2
    assert "expected names of classes, got ','" in capsys.readouterr().err
    assert main(["evaluate", str(path)]) == 0
    written = json.loads((tmp_path / "e.metrics.json").read_text())
    assert "zero_shot" not in written["_meta"] and "zero_shot" not in written["T2V"]
