"""Metrics of embeddings: every direction against plain loops, missing modalities, NaN rows, ties."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mover.evaluate import rank as rank_module
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.metrics import DIRECTIONS, retrieval_metrics
from mover.evaluate.report import COLUMNS, META, metrics_table, provenance, write_metrics

NAMES = ["T2V", "V2T", "T2A", "A2T", "V2A", "A2V", "T2VA", "VA2T"]


def make(clips: int = 9, d: int = 6, seed: int = 0, noise: float = 0.7) -> Embeddings:
    """Clips with one to three captions, all modalities around one centre per clip."""
    random = np.random.default_rng(seed)
    centre = random.normal(size=(clips, d))
    owner = np.array([i for i in range(clips) for _ in range(1 + i % 3)])
    rows = {
        "text": centre[owner] + noise * random.normal(size=(len(owner), d)),
        "video": centre + noise * random.normal(size=(clips, d)),
        "audio": centre + noise * random.normal(size=(clips, d)),
    }
    vectors = {m: (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for m, v in rows.items()}
    present = {m: np.ones(clips, dtype=bool) for m in rows}
    return Embeddings([f"clip{i}" for i in range(clips)], vectors, owner, present)


def score(left: list[np.ndarray], right: list[np.ndarray]) -> float:
    """Cosine of two vectors; minus the volume of three, by the determinant of their Gram matrix."""
    rows = np.array([*left, *right], dtype=np.float64)
    if len(rows) == 2:
        return float(rows[0] @ rows[1])
    return -math.sqrt(max(0.0, float(np.linalg.det(rows @ rows.T))))


def brute_force(e: Embeddings, query: tuple[str, ...], target: tuple[str, ...]) -> list[int]:
    """0-based ranks by loops, no ties expected."""
    clips = [i for i in range(len(e.ids)) if all(e.present[m][i] for m in query + target)]

    def entries(side: tuple[str, ...]) -> list[tuple[int, list[np.ndarray]]]:
        if side == ("text",):
            return [(int(o), [v]) for o, v in zip(e.text_owner, e.vectors["text"], strict=True) if o in clips]
        return [(i, [e.vectors[m][i] for m in side]) for i in clips]

    ranks = []
    for owner, left in entries(query):
        scored = [(score(left, right), other == owner) for other, right in entries(target)]
        best = max(s for s, mine in scored if mine)
        ranks.append(sum(s > best for s, mine in scored if not mine))
    return ranks


@pytest.mark.parametrize("absent", [False, True])
def test_every_direction_against_loops(absent: bool) -> None:
    embeddings = make()
    if absent:
        embeddings.present["audio"][[1, 4]] = False
        embeddings.present["video"][2] = False
    metrics = retrieval_metrics(embeddings)
    assert list(metrics) == NAMES
    for direction in DIRECTIONS:
        ranks = np.array(brute_force(embeddings, direction.query, direction.target))
        row = metrics[direction.name]
        assert row["N"] == len(ranks)
        for k in (1, 5, 10):
            assert row[f"R@{k}"] == pytest.approx(100 * (ranks < k).mean(), abs=1e-3)
        assert row["MdR"] == np.median(ranks) + 1
        assert row["MnR"] == pytest.approx(ranks.mean() + 1, abs=1e-3)


def test_missing_modalities_leave_only_their_directions() -> None:
    embeddings = make()
    embeddings.present["audio"][[1, 4]] = False
    metrics = retrieval_metrics(embeddings)
    assert (metrics["V2A"]["N"], metrics["VA2T"]["N"]) == (7, 7)
    assert metrics["V2T"]["N"] == 9
    embeddings.present["audio"][:] = False
    assert list(retrieval_metrics(embeddings)) == ["T2V", "V2T"]


def test_two_modalities_have_two_directions() -> None:
    embeddings = make()
    del embeddings.vectors["text"], embeddings.present["text"]
    assert list(retrieval_metrics(embeddings)) == ["V2A", "A2V"]


def test_small_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = retrieval_metrics(make())
    monkeypatch.setattr(rank_module, "BLOCK_ELEMENTS", 25)
    assert retrieval_metrics(make()) == whole


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


def test_report(tmp_path: Path) -> None:
    import io
    import json

    from rich.console import Console

    embeddings = make()
    metrics = retrieval_metrics(embeddings, torch.device("cpu"))
    path = tmp_path / "new" / "metrics.json"
    write_metrics(path, metrics, {"split": "test", **provenance(embeddings, "fail")})
    written = json.loads(path.read_text())
    meta = written.pop(META)
    assert written == metrics
    assert all(set(row) == set(COLUMNS) for row in written.values())
    assert (meta["clips"], meta["captions"], meta["split"], meta["missing_policy"]) == (9, 18, "test", "fail")
    assert len(meta["ids_sha256"]) == 64
    assert not [p for p in path.parent.iterdir() if p != path]

    console = Console(file=io.StringIO(), width=100)
    console.print(metrics_table(metrics, "title"))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(word in shown for word in itertools.chain(NAMES, COLUMNS))
