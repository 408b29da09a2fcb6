"""Metrics of embeddings: every direction against plain loops, missing modalities, NaN rows, ties."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from mover.errors import UserError
from mover.evaluate import counting
from mover.evaluate.directions import Direction, directions, headline, joint_score
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.intervals import resamples
from mover.evaluate.metrics import retrieval_metrics
from mover.evaluate.rank import rankings

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


def dense_cosines(e: Embeddings) -> np.ndarray:
    """(captions, clips): the whole matrix of the cosines of text and video."""
    text, video = (e.vectors[m].astype(np.float64) for m in ("text", "video"))
    return (text / np.linalg.norm(text, axis=1)[:, None]) @ (video / np.linalg.norm(video, axis=1)[:, None]).T


def test_every_metric_of_random_ties_is_the_mean_over_orders() -> None:
    """Cosines that tie in bulk: noise far below their spacing breaks the ties; means over it are what is reported."""
    random = np.random.default_rng(3)
    clips, corners = 12, np.eye(4, dtype=np.float32)
    owner = np.repeat(np.arange(clips), 2)
    vectors = {"text": corners[random.integers(0, 4, 24)], "video": corners[random.integers(0, 4, clips)]}
    present = {m: np.ones(clips, dtype=bool) for m in vectors}
    got = retrieval_metrics(Embeddings([str(i) for i in range(clips)], vectors, owner, present))
    cosine = dense_cosines(Embeddings([], vectors, owner, present))
    drawn: dict[str, list[list[float]]] = {"T2V": [], "V2T": []}
    for _ in range(1500):
        noisy = cosine + 1e-3 * random.random(cosine.shape)
        right = noisy[np.arange(24), owner]
        ranks = [[int((noisy[c] > right[c]).sum())] for c in range(24)]
        drawn["T2V"].append(of_places(ranks))
        ranks = []
        for j in range(clips):
            order = np.argsort(-noisy[:, j])
            ranks.append(list(np.flatnonzero(owner[order] == j)))
        drawn["V2T"].append(of_places(ranks))
    for name, values in drawn.items():
        mean, error = np.mean(values, axis=0), np.std(values, axis=0) / np.sqrt(len(values))
        row = [got[name][column] for column in ("R@1", "R@5", "MnR", "MRR", "mAP@10")]
        assert row == pytest.approx(mean, abs=5 * error.max() + 1e-3), name


def of_places(places: list[list[int]]) -> list[float]:
    """R@1, R@5, MnR, MRR, mAP@10 of queries whose right answers stand at these 0-based places."""
    first = np.array([p[0] for p in places])
    precision = [sum((i + 1) / (p + 1) for i, p in enumerate(q) if p < 10) / min(len(q), 10) for q in places]
    return [100 * (first < 1).mean(), 100 * (first < 5).mean(), first.mean() + 1, 100 * (1 / (first + 1)).mean(),
            100 * np.mean(precision)]  # fmt: skip


def test_against_torchmetrics_and_scikit_learn() -> None:
    """Where no two scores tie, these define the same numbers; torchmetrics does for scores above 0."""
    from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, top_k_accuracy_score
    from torchmetrics.functional.retrieval import (
        retrieval_average_precision,
        retrieval_hit_rate,
        retrieval_reciprocal_rank,
    )

    embeddings = make(clips=40, noise=1.2)
    table, owner = dense_cosines(embeddings), embeddings.text_owner
    got = retrieval_metrics(embeddings)
    mine = owner[:, None] == np.arange(40)
    single = got["T2V"]
    for k in (1, 5, 10):
        assert single[f"R@{k}"] == pytest.approx(100 * top_k_accuracy_score(owner, table, k=k), abs=1e-3)
    assert single["MRR"] == pytest.approx(100 * label_ranking_average_precision_score(mine, table), abs=1e-3)
    pairs = [(torch.from_numpy(2 + s), torch.from_numpy(m)) for s, m in zip(table, mine, strict=True)]
    best = [float(retrieval_average_precision(s, m, top_k=10)) for s, m in pairs]
    assert single["mAP@10"] == pytest.approx(100 * np.mean(best), abs=1e-3)

    several = got["V2T"]  # the first of a clip's captions, the others taken away before it is looked for
    for k in (1, 5, 10, 50):
        hits = [float(retrieval_hit_rate(*without_later(table[:, j], mine[:, j]), top_k=k)) for j in range(40)]
        assert several[f"R@{k}"] == pytest.approx(100 * np.mean(hits), abs=1e-3)
    first = [float(retrieval_reciprocal_rank(*without_later(table[:, j], mine[:, j]))) for j in range(40)]
    assert several["MRR"] == pytest.approx(100 * np.mean(first), abs=1e-3)

    few = make(clips=5, noise=1.2)  # nine captions: average precision at 10 looks at all of them
    table, mine = dense_cosines(few), few.text_owner[:, None] == np.arange(5)
    whole = [average_precision_score(mine[:, j], table[:, j]) for j in range(5)]
    torchs = [float(retrieval_average_precision(torch.from_numpy(2 + table[:, j]), torch.from_numpy(mine[:, j])))
              for j in range(5)]  # fmt: skip
    assert retrieval_metrics(few)["V2T"]["mAP@10"] == pytest.approx(100 * np.mean(whole), abs=1e-3)
    assert np.mean(torchs) == pytest.approx(np.mean(whole))


def without_later(scores: np.ndarray, mine: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Without the right answers but the best one, which count neither for nor against it."""
    kept = ~mine
    kept[np.flatnonzero(mine)[scores[mine].argmax()]] = True
    return torch.from_numpy(2 + scores[kept]), torch.from_numpy(mine[kept])


def test_the_gain_of_joint_directions_with_its_interval() -> None:
    embeddings = make(clips=60, noise=1.5)
    metrics = retrieval_metrics(embeddings, every_score=True, dual_softmax=0.1, resamples=300, seed=1)
    assert {name for name, row in metrics.items() if "gain" in row} == {n for n in metrics if "VA" in n}
    for name in ("T2VA", "VA2T", "T2VA span", "VA2T cosine", "T2VA +dsl", "VA2T span +dsl"):
        soft = " +dsl" if "+dsl" in name else ""
        singles = [f"{s}{soft}" for s in (("T2V", "T2A") if name.startswith("T") else ("V2T", "A2T"))]
        best = max(metrics[single]["R@1"] for single in singles)
        assert metrics[name]["gain"] == pytest.approx(metrics[name]["R@1"] - best, abs=1e-3)
    assert metrics["T2VA +dsl"]["score"] == "volume"

    # the same resamples, drawn and ranked one by one
    found = {ranking.name: ranking for ranking in rankings(embeddings)}
    gains = []
    for weights in resamples(60, 300, seed=1):
        for row in weights:
            recall = {}
            for name in ("T2V", "T2A", "T2VA"):
                times = row[found[name].query_clip]
                recall[name] = 100 * np.repeat(found[name].standing.recall_at(1), times).mean()
            gains.append(recall["T2VA"] - max(recall["T2V"], recall["T2A"]))
    assert metrics["T2VA"]["intervals"]["gain"] == pytest.approx(np.percentile(gains, [2.5, 97.5]), abs=1e-3)
    low, high = metrics["T2VA"]["intervals"]["R@1"]
    assert low < metrics["T2VA"]["R@1"] < high

    embeddings.present["audio"][0] = False  # the joint directions rank clip 0, those of the audio do not
    masked = retrieval_metrics(embeddings, resamples=20)
    assert masked["T2VA"]["gain"] is masked["VA2T"]["gain"] is None and "gain" not in masked["T2VA"]["intervals"]
    assert masked["T2A"]["clips"] == 59 and "R@1" in masked["T2A"]["intervals"]


def test_few_candidates_and_one_clip() -> None:
    one = make(clips=1)
    metrics = retrieval_metrics(one, every_score=True, resamples=50)
    assert all(row[f"R@{k}"] == 100 for row in metrics.values() for k in (1, 5, 10, 50))
    assert not any("intervals" in row for row in metrics.values())
    few = retrieval_metrics(make(clips=4, noise=5.0))
    assert all(row["R@10"] == row["R@50"] == 100 for row in few.values())


def test_any_float_type_and_length_of_rows() -> None:
    embeddings = make(clips=20)
    expected = retrieval_metrics(embeddings)
    found = []
    for dtype in (np.float16, np.float32, np.float64):
        small = Embeddings(
            embeddings.ids, {m: v.astype(np.float16).astype(dtype) for m, v in embeddings.vectors.items()},
            embeddings.text_owner, embeddings.present,
        )  # fmt: skip
        found.append(retrieval_metrics(small))
    assert found[0] == found[1] == found[2]
    for scale in (1e-150, 2.0, 1e150):
        large = {m: v.astype(np.float64) * scale for m, v in embeddings.vectors.items()}
        scaled = Embeddings(embeddings.ids, large, embeddings.text_owner, embeddings.present)
        assert retrieval_metrics(scaled) == expected


@pytest.mark.parametrize("lost", THREE)
def test_where_no_row_of_a_modality_can_be_used_every_rank_is_the_last(lost: str) -> None:
    embeddings = make()
    embeddings.vectors[lost][:] = np.nan
    for name, row in retrieval_metrics(embeddings, every_score=True, dual_softmax=0.1, resamples=9).items():
        letter = lost[0].upper()
        if letter not in name.split()[0]:
            assert row["MnR"] < 5
            continue
        wrong = 16 if "2T" in name else 8  # of 18 captions two are a clip's own, on average
        assert (row["R@1"], row["R@50"], row["MnR"]) == (0, 100, wrong + 1)
