"""Which queries are shown, what is marked as right, and what stands in for media that cannot be read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cases.reports import embeddings_of, material_of
from mover.data.manifest import Clip
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.rank import Ranking, rankings
from mover.evaluate.standing import Standing
from mover.report.gallery import RESULTS, Gallery, choose, gallery
from mover.report.material import Material
from mover.report.page import build_report

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("plain_charts")


def standing(better: list[int], tied: list[int] | None = None) -> Standing:
    counts = np.array(better)
    return Standing(counts, np.zeros_like(counts) if tied is None else np.array(tied), np.ones_like(counts))


def test_worst_failures_come_first_and_no_clip_twice() -> None:
    owners = np.array([0, 0, 1, 2, 3, 3, 4, 5])
    failures, successes = choose(standing([9, 7, 0, 4, 0, 2, 0, 8]), owners, 4, seed=0)
    assert failures.tolist() == [0, 7, 3]  # 9, 8 and 4 better; query 1 is of the same clip as query 0
    assert len(successes) == 1 and successes[0] in (2, 4, 6)
    failures, successes = choose(standing([9, 7, 0, 4, 0, 2, 0, 8]), owners, 20, seed=0)
    assert failures.tolist() == [0, 7, 3, 5]
    assert sorted(successes.tolist()) == [2, 4, 6]


def test_a_tie_for_the_first_place_is_no_success() -> None:
    failures, successes = choose(standing([0, 0, 0], [0, 3, 0]), np.arange(3), 2, seed=1)
    assert failures.tolist() == [1] and len(successes) == 1 and 1 not in successes


@pytest.mark.parametrize(("better", "expected"), [([0] * 6, (0, 4)), ([3] * 6, (4, 0)), ([3, 3, 0, 0, 0, 0], (2, 2))])
def test_what_is_lacking_of_one_kind_is_filled_up_with_the_other(better: list[int], expected: tuple[int, int]) -> None:
    failures, successes = choose(standing(better), np.arange(6), 4, seed=0)
    assert (len(failures), len(successes)) == expected


def ranking_of(embeddings: Embeddings, name: str) -> Ranking:
    return next(ranking for ranking in rankings(embeddings) if ranking.name == name)


def shown(embeddings: Embeddings, name: str, clips: dict[str, Clip] | None = None, **options: Any) -> Gallery:
    captions = [f"caption {i}" for i in range(len(embeddings.text_owner))]
    settings = {"count": 12, "seed": 0, "device": CPU, **options}
    return gallery(embeddings, ranking_of(embeddings, name), clips or {}, captions, **settings)


@pytest.mark.parametrize("name", ["T2VA", "VA2T", "T2V", "A2T", "V2A"])
def test_hits_are_the_best_of_all_scores(name: str) -> None:
    embeddings = embeddings_of(9, noise=1.0)
    found = shown(embeddings, name, count=9)
    ranking = ranking_of(embeddings, name)
    unit = {}
    for m, rows in embeddings.vectors.items():
        unit[m] = rows.astype(np.float64) / np.linalg.norm(rows, axis=1, keepdims=True)

    def nearness(query: int, candidate: int) -> float:
        sides = [(ranking.direction.query, query), (ranking.direction.target, candidate)]
        rows = np.stack([unit[m][position] for side, position in sides for m in side])
        if len(rows) == 2:
            return float(rows[0] @ rows[1])
        return -float(np.sqrt(np.linalg.det(rows @ rows.T)))

    to_text = ranking.direction.target == ("text",)
    candidates = range(len(embeddings.text_owner) if to_text else 9)
    for query in (*found.failures, *found.successes):
        from_text = ranking.direction.query == ("text",)
        asked = int(query.shown.caption.split()[1]) if from_text else embeddings.ids.index(query.shown.id)  # type: ignore[union-attr]
        scores = {c: nearness(asked, c) for c in candidates}
        best = sorted(scores, key=lambda c: -scores[c])[:RESULTS]
        owner = embeddings.text_owner[asked] if from_text else asked
        owners = [int(embeddings.text_owner[c]) if to_text else c for c in best]
        assert [hit.shown.id for hit in query.hits] == [embeddings.ids[o] for o in owners]
        assert [hit.right for hit in query.hits] == [o == owner for o in owners]
        assert [hit.place for hit in query.hits] == [1, 2, 3, 4, 5]
        if to_text:
            assert [hit.shown.caption for hit in query.hits] == [f"caption {c}" for c in best]
        sign = 1 if found.score == "cosine" else -1
        np.testing.assert_allclose([hit.score for hit in query.hits], [sign * scores[c] for c in best], atol=1e-4)
        if any(hit.right for hit in query.hits):
            assert query.right is None
            place = next(hit.place for hit in query.hits if hit.right)
            assert to_text or query.rank == str(place)
        else:
            assert query.right is not None and query.right.id == embeddings.ids[owner]
            wrong = sum(scores[c] > scores[owner] for c in candidates) if not to_text else None
            assert to_text or query.rank == str(wrong + 1)  # type: ignore[operator]
    assert found.failed + found.succeeded == len(ranking.standing)
    assert found.candidates == len(candidates)


def test_ties_are_told() -> None:
    embeddings = embeddings_of(6)
    for m in ("video", "audio"):
        embeddings.vectors[m][:] = embeddings.vectors[m][0]
    found = shown(embeddings, "T2VA", count=2)
    assert {query.rank for query in found.failures} == {"1 to 6 (tied)"} and not found.successes


def test_candidates_and_queries_that_cannot_be_used() -> None:
    embeddings = embeddings_of(4)
    embeddings.vectors["video"][2] = np.nan
    found = shown(embeddings, "T2VA", count=9)
    last = [query.hits[-1] for query in (*found.failures, *found.successes)]
    assert all(hit.shown.id == "clip2" and np.isnan(hit.score) for hit in last)
    lost = next(query for query in found.failures if query.shown.id == "clip2")
    assert lost.rank == "4" and lost.hits[-1].right
    assert "no score" in build_report(material_of(embeddings, {}), queries=4)


def test_fewer_candidates_than_results() -> None:
    found = shown(embeddings_of(3), "T2VA")
    assert all(len(query.hits) == 3 and query.right is None for query in (*found.failures, *found.successes))


def test_media_are_shown_where_they_can_be_read(clips: list[Clip], tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    embeddings = embeddings_of(4)
    found = {
        "clip0": clips[0],
        "clip1": replace(clips[1], video=broken, audio=tmp_path / "gone.wav"),
        "clip2": replace(clips[2], audio=None, status={"audio": "no_audio_track"}),
    }
    result = shown(embeddings, "T2VA", found, count=4)
    looks = {
        hit.shown.id: hit.shown.thumbnails for query in (*result.failures, *result.successes) for hit in query.hits
    }
    assert [t.modality for t in looks["clip0"]] == ["video", "audio"]
    assert all(t.image and t.image.startswith("data:image/jpeg;base64,") for t in looks["clip0"])
    assert [(t.image, t.problem) for t in looks["clip1"]] == [
        (None, "video cannot be read (corrupt)"), (None, "audio cannot be read (missing)")
    ]  # fmt: skip
    assert [t.problem for t in looks["clip2"]] == ["", "no audio (no_audio_track)"]
    assert looks["clip3"] == ()  # not in the manifest
    asked = shown(embeddings, "VA2T", found, count=4)
    queries = {query.shown.id: query for query in (*asked.failures, *asked.successes)}
    assert len(queries["clip0"].shown.thumbnails) == 2
    assert all(hit.shown.thumbnails == () for hit in queries["clip0"].hits)


def test_as_many_queries_as_asked_for(material: Material) -> None:
    for count in (0, 1, 5):
        assert build_report(material, queries=count).count('<article class="query') == count
    few = build_report(material, queries=3, seed=1)
    assert few == build_report(material, queries=3, seed=1)


def test_captions_that_do_not_match_the_manifest_are_not_shown(material: Material) -> None:
    name = material.embeddings.ids[3]
    clips = {**material.clips, name: replace(material.clips[name], captions=("one", "too", "many for", "this clip"))}
    assert "many for" not in build_report(replace(material, clips=clips), queries=12)
