"""Systems on the same clips: known differences, resamples by loops, coverage, and files that do not fit each other."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mover.errors import UserError
from mover.evaluate.compare import System, _rows, compare
from mover.evaluate.compare_tables import CSV_COLUMNS, csv_text, difference_table, kept, markdown, result_tables
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.intervals import resamples
from mover.evaluate.metrics import AVERAGES, retrieval_metrics

THREE = ("text", "video", "audio")


def make(
    clips: int = 30,
    noise: float = 1.0,
    seed: int = 0,
    captions: int = 1,
    modalities: tuple[str, ...] = THREE,
    d: int = 8,
) -> Embeddings:
    """Equal seeds have equal clips, with another noise. Clip i has 1 to `captions` captions."""
    centre = np.random.default_rng(seed).normal(size=(clips, d))
    random = np.random.default_rng(int(1000 * noise) + seed)
    owner = np.array([i for i in range(clips) for _ in range(1 + i % captions)])
    rows = {m: centre[owner] if m == "text" else centre for m in modalities}
    vectors = {m: (v + noise * random.normal(size=v.shape)).astype(np.float32) for m, v in rows.items()}
    return Embeddings([f"clip{i}" for i in range(clips)], vectors, owner, {m: np.ones(clips, bool) for m in modalities})


def systems(**embeddings: Embeddings) -> list[System]:
    return [System(name, "", e, f"{name}.npz") for name, e in embeddings.items()]


def directions_in(found: dict[str, Any]) -> dict[str, Any]:
    (entry,) = found["datasets"].values()
    return entry["directions"]


def test_four_clips() -> None:
    """The second system takes two of four clips for each other: half of the recall, and of the resamples 1 in 16 has
    none of the two, 1 in 16 nothing else."""
    rows = np.eye(4, dtype=np.float32)
    present = {"text": np.ones(4, bool), "video": np.ones(4, bool)}
    right = Embeddings(list("abcd"), {"text": rows, "video": rows}, np.arange(4), present)
    wrong = replace(right, vectors={"text": rows, "video": rows[[1, 0, 2, 3]]})
    got = directions_in(compare(systems(right=right, wrong=wrong)))["T2V"]
    assert got["clips"] == 4
    assert got["systems"]["right"]["R@1"] == 100 and "difference" not in got["systems"]["right"]
    row = got["systems"]["wrong"]
    assert row["R@1"] == 50 and row["R@5"] == 100 and row["queries"] == 4
    assert (row["clips_better"], row["clips_worse"]) == (0, 2)
    assert row["difference"]["R@1"]["value"] == -50
    assert row["difference"]["R@1"]["interval"] == [-100, 0]
    assert row["difference"]["R@1"]["p"] == pytest.approx(2 / 16, abs=0.04)
    assert row["difference"]["R@5"] == {"value": 0, "interval": [0, 0], "p": 1}


def test_equal_files_do_not_differ() -> None:
    embeddings = make(captions=3)
    for entry in directions_in(compare(systems(one=embeddings, two=embeddings))).values():
        row = entry["systems"]["two"]
        for gap in row["difference"].values():
            assert gap == {"value": 0, "interval": [0, 0], "p": 1}
        assert row["clips_better"] == row["clips_worse"] == 0
        assert entry["systems"]["one"] == {
            k: v for k, v in row.items() if k not in ("difference", "clips_better", "clips_worse")
        }


def test_a_shuffled_system_is_worse() -> None:
    good = make(noise=0.2)
    shuffled = replace(good, vectors={**good.vectors, "text": np.roll(good.vectors["text"], 1, axis=0)})
    got = directions_in(compare(systems(good=good, shuffled=shuffled)))
    assert list(got) == ["T2V", "V2T", "T2A", "A2T", "V2A", "A2V", "T2VA", "VA2T"]
    for name, entry in got.items():
        gap = entry["systems"]["shuffled"]["difference"]["R@1"]
        if name in ("V2A", "A2V"):
            assert gap["value"] == 0
        else:
            assert gap["interval"][1] < -40 and gap["p"] < 0.002
    turned = directions_in(compare(systems(good=good, shuffled=shuffled), baseline="shuffled"))
    for name, entry in turned.items():
        there, here = got[name]["systems"]["shuffled"], entry["systems"]["good"]
        low, high = there["difference"]["R@1"]["interval"]
        assert here["difference"]["R@1"]["interval"] == pytest.approx([-high, -low])
        assert (here["clips_better"], here["clips_worse"]) == (there["clips_worse"], there["clips_better"])


@pytest.mark.parametrize("captions", [1, 4])
def test_values_are_those_of_the_evaluation(captions: int) -> None:
    one, two = make(captions=captions), make(noise=1.5, captions=captions)
    got = directions_in(compare(systems(one=one, two=two.select(np.arange(25)))))
    for name, embeddings in (("one", one), ("two", two)):
        expected = retrieval_metrics(embeddings.select(np.arange(25)))
        assert list(got) == list(expected)
        for direction, row in expected.items():
            for metric in AVERAGES:
                assert got[direction]["systems"][name][metric] == pytest.approx(row[metric], abs=1e-3)


def test_resamples_by_loops() -> None:
    """Ragged captions, more of them in one system than in the other: each system's own mean under the same clips."""
    one, two = make(clips=12, captions=3), make(clips=12, noise=1.6)
    ids = sorted(one.ids)
    found = compare(systems(one=one, two=two), count=300, seed=5)
    assert found["datasets"][""]["captions_differ"] == 8
    assert "  8 clips have other numbers of captions in one file than in another" in kept(found)
    got = directions_in(found)["T2V"]["systems"]["two"]
    right = {}
    for name, embeddings in (("one", one), ("two", two)):
        unit = {m: v / np.linalg.norm(v, axis=1, keepdims=True) for m, v in embeddings.vectors.items()}
        best = (unit["text"] @ unit["video"].T).argmax(1)
        right[name] = [(best == i)[embeddings.text_owner == i] for i in (embeddings.ids.index(x) for x in ids)]
    gaps = []
    for weights in (row for block in resamples(12, 300, 5) for row in block):
        drawn = {n: np.concatenate([np.tile(x, w) for x, w in zip(r, weights, strict=True)]) for n, r in right.items()}
        gaps.append(100 * (drawn["two"].mean() - drawn["one"].mean()))
    gap = got["difference"]["R@1"]
    every = {name: 100 * np.concatenate(parts).mean() for name, parts in right.items()}
    assert gap["value"] == pytest.approx(every["two"] - every["one"], abs=1e-3)
    assert gap["interval"] == pytest.approx(np.percentile(gaps, [2.5, 97.5]), abs=1e-3)
    assert gap["p"] == pytest.approx(
        2 * (1 + min(np.sum(np.array(gaps) <= 0), np.sum(np.array(gaps) >= 0))) / 301, 1e-4
    )


def test_intervals_cover() -> None:
    """Correlated systems that are right with probability .7 and .6: the interval of the difference holds -10 in about
    95 of 100 draws of the clips, and is shorter than one that forgets the pairing."""
    random = np.random.default_rng(0)
    covered, lengths, unpaired = 0, [], []
    for trial in range(200):
        hard = random.random(80)
        right = {n: (hard + 0.1 * random.normal(size=80) < limit) * 100.0 for n, limit in (("a", 0.7), ("b", 0.6))}
        found = {n: (np.arange(80), np.tile(r[:, None], (1, len(AVERAGES)))) for n, r in right.items()}
        rows = _rows(found, 80, "a", 400, trial)
        low, high = rows["b"]["difference"]["R@1"]["interval"]
        covered += low <= -10 <= high
        lengths.append(high - low)
        each = [rows[n]["intervals"]["R@1"] for n in "ab"]
        unpaired.append(np.hypot(*(top - bottom for bottom, top in each)))
    assert 0.88 <= covered / 200 <= 0.99
    assert np.mean(lengths) < 0.8 * np.mean(unpaired)


def test_order_does_not_matter() -> None:
    one, two = make(captions=2), make(noise=1.4, captions=2)
    expected = compare(systems(one=one, two=two))
    order = np.random.default_rng(1).permutation(30)
    assert compare(systems(one=one, two=two.select(order))) == expected
    assert compare(systems(one=one.select(order), two=two)) == expected


def test_clips_that_not_all_have_are_left_out_and_counted() -> None:
    one, two = make(), make(noise=1.2)
    more = replace(two, ids=[f"x{i}" if i < 10 else name for i, name in enumerate(two.ids)])
    found = compare(systems(one=one, two=two.select(np.arange(28)), three=more))
    entry = found["datasets"][""]
    assert entry["clips"] == 18
    assert {n: (s["listed"], s["left_out"]) for n, s in entry["systems"].items()} == {
        "one": (30, 12), "two": (28, 10), "three": (30, 12)
    }  # fmt: skip
    said = kept(found)
    assert said[0] == "18 clips are in all 3 files"
    assert "  two: 10 of 28 clips are not in all files, left out" in said


def test_modalities_that_not_all_have() -> None:
    three, two = make(), make(noise=1.2, modalities=("text", "video"))
    three.present["audio"][:4] = False
    two.present["video"][4:6] = False
    found = compare(systems(three=three, two=two))
    got = directions_in(found)
    assert {name: (entry["clips"], list(entry["systems"])) for name, entry in got.items()} == {
        "T2V": (28, ["three", "two"]),
        "V2T": (28, ["three", "two"]),
        **dict.fromkeys(("T2A", "A2T", "V2A", "A2V", "T2VA", "VA2T"), (26, ["three"])),
    }
    gone = np.setdiff1d(np.arange(30), [4, 5])
    assert got["T2V"]["systems"]["three"]["R@1"] == pytest.approx(
        retrieval_metrics(three.select(gone))["T2V"]["R@1"], abs=1e-3
    )
    # Clips that lack audio are left out of the joint direction, which then goes by the volume for all.
    whole = retrieval_metrics(three.select(np.arange(4, 30)))["T2VA"]
    assert got["T2VA"]["systems"]["three"]["R@1"] == pytest.approx(whole["R@1"], abs=1e-3)
    assert "  three: 4 without audio: left out, for all systems, of what needs it" in kept(found)
    text = markdown(found)
    assert text.splitlines()[0] == "|  | T2V | V2T | T2A | A2T | V2A | A2V | T2VA | VA2T |"
    assert text.splitlines()[3].endswith("| – | – | – | – | – | – |")
    only = compare(systems(three=three, two=two), only=["V2T"])
    assert list(directions_in(only)) == ["V2T"]
    assert directions_in(only)["V2T"] == got["V2T"]
    two.present["video"][1:] = False
    few = compare(systems(three=three, two=two))
    assert few["datasets"][""]["too_few_clips"] == {"T2V": 1, "V2T": 1}
    assert "  too few clips have what it needs, not compared: T2V (1), V2T (1)" in kept(few)


def test_rows_that_cannot_be_used() -> None:
    one, two = make(), make(noise=1.2)
    two.vectors["video"][3] = np.nan
    with pytest.raises(UserError, match=r"two\.npz: 1 of 30 video rows"):
        compare(systems(one=one, two=two))
    last = directions_in(compare(systems(one=one, two=two), unusable="last"))
    assert last["T2V"]["clips"] == 30
    gone = directions_in(compare(systems(one=one, two=two), unusable="missing"))
    assert {name: entry["clips"] for name, entry in gone.items()} == {
        **dict.fromkeys(("T2V", "V2T", "V2A", "A2V", "T2VA", "VA2T"), 29), "T2A": 30, "A2T": 30
    }  # fmt: skip


def test_several_data_sets() -> None:
    entries = [
        System("a", "X", make(), "ax.npz"), System("b", "X", make(noise=1.3), "bx.npz"),
        System("b", "Y | Z", make(clips=20, modalities=("text", "audio")), "by.npz"),
        System("c", "Y | Z", make(clips=20, noise=1.3, modalities=("text", "audio")), "cy.npz"),
    ]  # fmt: skip
    found = compare(entries, only=["T2V", "T2A"])
    assert found["systems"] == ["a", "b", "c"] and found["baseline"] == "a"
    assert list(found["datasets"]["X"]["directions"]) == ["T2V", "T2A"]
    alone = found["datasets"]["Y | Z"]["directions"]["T2A"]["systems"]
    assert set(alone) == {"b", "c"} and "difference" not in alone["b"] | alone["c"]
    lines = markdown(found).splitlines()
    assert lines[0] == r"|  | X T2V | X T2A | Y \| Z T2A |"
    assert lines[2].startswith("| a | ") and lines[2].endswith(" | – |")
    assert all(line.replace(r"\|", "").count("|") == 5 for line in lines[:5])
    rows = list(csv.DictReader(io.StringIO(csv_text(found))))
    assert tuple(rows[0]) == CSV_COLUMNS and len(rows) == 6 * len(AVERAGES)
    assert [row["difference"] != "" for row in rows if row["metric"] == "R@1"] == [
        False,
        True,
        False,
        True,
        False,
        False,
    ]
    assert {row["dataset"] for row in rows} == {"X", "Y | Z"}
    json.dumps(found, allow_nan=False)
    one = compare([*entries[:2], entries[2]])
    assert "Y | Z: only b has embeddings, 20 clips" in kept(one)


def test_modalities_in_any_order_and_none_in_common() -> None:
    names = ("text", "notes", "depth")
    one, two = make(modalities=names), make(noise=1.4, modalities=names)
    other = replace(two, vectors={m: two.vectors[m] for m in reversed(names)})
    got = compare(systems(one=one, two=other))
    assert got == compare(systems(one=one, two=two))
    assert list(directions_in(got))[-1] == "depth+notes2T"
    assert all(set(entry["systems"]) == {"one", "two"} for entry in directions_in(got).values())
    apart = compare(systems(one=make(modalities=("text", "video")), two=make(modalities=("video", "audio"))))
    assert list(directions_in(apart)) == ["T2V", "V2T", "V2A", "A2V"]
    assert "one shares no direction with another system: there are values, but no differences" in kept(apart)
    assert difference_table(apart).row_count == 0


def test_tables_fit_the_terminal() -> None:
    found = compare(systems(one=make(), **{"two [b]": make(noise=1.5)}))
    assert [len(table.columns) for table in result_tables(found, 80)] == [5, 5]
    assert [len(table.columns) for table in result_tables(found, 10)] == [2] * 8
    assert [len(table.columns) for table in result_tables(found, 300)] == [9]
    assert difference_table(found).row_count == 8


def test_the_best_is_bold_and_a_sure_difference_has_a_star() -> None:
    good = make(noise=0.2, modalities=("text", "video"))
    bad = replace(good, vectors={**good.vectors, "text": np.roll(good.vectors["text"], 1, axis=0)})
    lines = markdown(compare(systems(good=good, also=good, bad=bad), only=["T2V"])).splitlines()
    recall = directions_in(compare(systems(good=good, also=good)))["T2V"]["systems"]["good"]["R@1"]
    assert lines[2].startswith(f"| good | **{recall:.1f}** (")
    assert lines[3].startswith(f"| also | **{recall:.1f}** (")
    assert r"\* (" in lines[4] and "**" not in lines[4]


def test_what_does_not_fit() -> None:
    one, two = make(), make(noise=1.2)
    other = replace(two, ids=[f"other{i}" for i in range(30)])
    with pytest.raises(
        UserError, match=r"No clips are in all of the 2 files.*'clip0' in one\.npz, 'other0' in two\.npz"
    ):
        compare(systems(one=one, two=other))
    with pytest.raises(UserError, match="1 clip is in all"):
        compare(systems(one=one, two=replace(other, ids=["clip0", *other.ids[1:]])))
    with pytest.raises(UserError, match="one system"):
        compare(systems(one=one))
    with pytest.raises(UserError, match=r"a\.npz and b\.npz are both called 'x': name them"):
        compare([System("x", "", one, "a.npz"), System("x", "", two, "b.npz")])
    with pytest.raises(UserError, match=r"are both called 'x' of Y"):
        compare([System("x", "Y", one, "a.npz"), System("x", "Y", two, "a.npz"), System("z", "Y", two, "c.npz")])
    with pytest.raises(UserError, match="baseline 'three' is none of the systems one, two"):
        compare(systems(one=one, two=two), baseline="three")
    with pytest.raises(UserError, match="to compare in T2smell; there are T2V, V2T"):
        compare(systems(one=one, two=two), only=["T2V", "T2smell"])
    gone = make(noise=1.2)
    for flags in gone.present.values():
        flags[1:] = False
    with pytest.raises(UserError, match="No direction has 2 clips"):
        compare(systems(one=one, two=gone))
    wider = make(noise=1.2, d=20)
    assert directions_in(compare(systems(one=one, two=wider)))["T2V"]["systems"]["two"]["R@1"] > 0
