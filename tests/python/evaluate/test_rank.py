"""Rankings of whole sets, dual softmax, and the best candidates of a query, against plain loops over dense matrices."""

from typing import Any

import numpy as np
import pytest
import torch

from mover.errors import UserError
from mover.evaluate import counting
from mover.evaluate import rank as rank_module
from mover.evaluate.directions import Direction, directions
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.rank import Ranking, Sides, rank, rankings, top_candidates
from mover.evaluate.scores import LOWEST_TEMPERATURE

TEXT, VIDEO, AUDIO = ("text",), ("video",), ("audio",)
BOTH = (*VIDEO, *AUDIO)


def make(clips: int = 12, d: int = 6, seed: int = 0, captions: int = 3, copies: float = 0.3) -> Embeddings:
    """Ragged captions in no order; some rows are copies of others, so that scores tie."""
    random = np.random.default_rng(seed)
    centre = random.normal(size=(clips, d))
    owner = random.permutation(np.concatenate([np.arange(clips), random.integers(0, clips, clips * (captions - 1))]))
    vectors = {}
    for m, place in {"text": owner, "video": np.arange(clips), "audio": np.arange(clips)}.items():
        rows = centre[place] + 0.8 * random.normal(size=(len(place), d))
        rows = np.where(random.random((len(place), 1)) < copies, rows[random.integers(0, len(place), len(place))], rows)
        vectors[m] = rows.astype(np.float32)
    return Embeddings([f"clip{i}" for i in range(clips)], vectors, owner, {m: np.ones(clips, bool) for m in vectors})


def unit(rows: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        rows = rows.astype(np.float64)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def joint_matrix(e: Embeddings, score: str) -> np.ndarray:
    """(captions, clips) of a set in which nothing is missing, larger is better; by determinants and least squares."""
    text, video, audio = (unit(e.vectors[m]) for m in ("text", "video", "audio"))
    if score == "cosine":
        return (text @ video.T + text @ audio.T) / 2
    table = np.empty((len(text), len(video)))
    for j in range(len(video)):
        others = np.stack([video[j], audio[j]])
        if score == "volume":
            for c in range(len(text)):
                rows = np.vstack([text[c], others])
                table[c, j] = -np.sqrt(max(0.0, np.linalg.det(rows @ rows.T)))
        else:
            table[:, j] = -np.linalg.norm(text - text @ np.linalg.pinv(others) @ others, axis=1)
    return np.round(table, 6)  # float32 is what the operators compute in


def ranks(table: np.ndarray, owner: np.ndarray, to_text: bool) -> list[float]:
    """Expected 0-based ranks of rows among columns, or of columns' best rows among the rows of others."""
    found = []
    for query in range(table.shape[to_text]):
        scores = table[:, query] if to_text else table[query]
        mine = owner == query if to_text else np.arange(table.shape[1]) == owner[query]
        best = scores[mine].max()
        own, tied = (scores[mine] == best).sum(), (scores[~mine] == best).sum()
        found.append((scores[~mine] > best).sum() + tied / (own + 1))
    return found


def by_name(found: list[Ranking]) -> dict[str, Ranking]:
    return {ranking.name: ranking for ranking in found}


@pytest.mark.parametrize("seed", range(4))
def test_every_joint_score_against_loops(seed: int) -> None:
    embeddings = make(seed=seed)
    found = by_name(rankings(embeddings, every_score=True))
    for score in ("volume", "span", "cosine"):
        table, suffix = joint_matrix(embeddings, score), "" if score == "volume" else f" {score}"
        if score == "cosine":
            table = np.round(table, 7)
        for name, to_text in ((f"T2VA{suffix}", False), (f"VA2T{suffix}", True)):
            assert found[name].score == score
            got = found[name].standing.expected_rank
            assert got.tolist() == pytest.approx(ranks(table, embeddings.text_owner, to_text))


def test_names_queries_and_clips_of_rankings() -> None:
    embeddings = make()
    embeddings.present["audio"][[2, 5]] = False
    found = by_name(rankings(embeddings, every_score=True, dual_softmax=0.05))
    plain = ["T2V", "V2T", "T2A", "A2T", "V2A", "A2V", "T2VA", "VA2T", "T2VA cosine", "VA2T cosine"]
    assert list(found)[:10] == plain and sorted(found) == sorted(plain + [f"{name} +dsl" for name in plain])
    assert found["T2VA"].score == found["VA2T +dsl"].score == "span"  # where a clip lacks a member, no volume
    assert [r.dual_softmax for r in found.values()] == [None] * 10 + [0.05] * 10
    captions = np.flatnonzero(~np.isin(embeddings.text_owner, [2, 5]))
    assert found["T2A"].query.tolist() == captions.tolist()
    assert found["T2A"].query_clip.tolist() == embeddings.text_owner[captions].tolist()
    assert found["A2T"].query.tolist() == found["A2T"].query_clip.tolist() == found["A2T"].clips.tolist()
    assert found["T2A"].clips.tolist() == [i for i in range(12) if i not in (2, 5)]
    assert found["A2V"].query.tolist() == found["V2A"].query.tolist() == found["T2A"].clips.tolist()
    assert all(len(r.standing) == len(r.query) == len(r.query_clip) for r in found.values())
    alone = rank(embeddings, Direction(AUDIO, TEXT))
    assert alone.expected_rank.tolist() == found["A2T"].standing.expected_rank.tolist()
    embeddings.present["audio"][:] = False
    assert len(rank(embeddings, Direction(AUDIO, TEXT))) == 0


def test_the_mean_of_cosines_is_over_what_a_clip_has() -> None:
    embeddings = make(captions=1, copies=0)
    embeddings.present["audio"][3] = False
    embeddings.vectors["audio"][3] = np.nan
    text, video, audio = (unit(embeddings.vectors[m]) for m in ("text", "video", "audio"))
    table = (text @ video.T + text @ audio.T) / 2
    table[:, 3] = (text @ video.T)[:, 3]
    got = by_name(rankings(embeddings, every_score=True))
    owner = embeddings.text_owner
    assert got["T2VA cosine"].standing.expected_rank.tolist() == ranks(np.round(table, 7), owner, False)
    assert got["VA2T cosine"].standing.expected_rank.tolist() == ranks(np.round(table, 7), owner, True)


def softened(table: np.ndarray, temperature: float, queries: int) -> np.ndarray:
    """The definition, on the whole matrix: s * softmax(s / t) over the axis of the queries."""
    weights = np.exp(table / temperature - (table / temperature).max(axis=queries, keepdims=True))
    return table * (weights / weights.sum(axis=queries, keepdims=True))


@pytest.mark.parametrize("temperature", [LOWEST_TEMPERATURE, 0.01, 0.1, 10.0])
@pytest.mark.parametrize("tile", [(1024, 2048), (7, 5)])
def test_dual_softmax_against_the_whole_matrix(
    temperature: float, tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "TILE", tile)
    embeddings = make(clips=15, copies=0)
    found = by_name(rankings(embeddings, every_score=True, dual_softmax=temperature))
    text, video = (unit(embeddings.vectors[m]) for m in ("text", "video"))
    tables = {"T2V": text @ video.T, "T2VA": 1 + joint_matrix(embeddings, "volume")}
    tables["T2VA cosine"] = joint_matrix(embeddings, "cosine")
    for name, table in tables.items():
        back = {"T2V": "V2T", "T2VA": "VA2T", "T2VA cosine": "VA2T cosine"}[name]
        if name == "T2VA" and temperature < 0.01:
            continue  # the loops are rounded to 6 digits, which such a temperature makes much of
        forward, backward = softened(table, temperature, 0), softened(table, temperature, 1)
        got = found[f"{name} +dsl"].standing, found[f"{back} +dsl"].standing
        assert got[0].expected_rank.tolist() == ranks(forward, embeddings.text_owner, False), name
        assert got[1].expected_rank.tolist() == ranks(backward, embeddings.text_owner, True), back


def test_dual_softmax_by_hand_lowers_a_hub_and_keeps_ties() -> None:
    """Video 0 is close to every text, more than the right ones; the softmax over texts makes nothing of that."""
    angle = np.radians([0, 20, -20])
    text = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    video = np.array(
        [[1, 0], [np.cos(np.radians(55)), np.sin(np.radians(55))], [np.cos(np.radians(55)), -np.sin(np.radians(55))]]
    )
    present = {m: np.ones(3, bool) for m in ("text", "video")}
    embeddings = Embeddings(["a", "b", "c"], {"text": text, "video": video.astype(np.float32)}, np.arange(3), present)
    found = by_name(rankings(embeddings, dual_softmax=0.02))
    assert found["T2V"].standing.expected_rank.tolist() == [0, 1, 1]
    assert found["T2V +dsl"].standing.expected_rank.tolist() == [0, 0, 0]
    for m in ("text", "video"):
        embeddings.vectors[m][1:] = embeddings.vectors[m][2]
    standing = by_name(rankings(embeddings, dual_softmax=0.02))["T2V +dsl"].standing
    assert standing.tied.tolist() == [0, 1, 1]


@pytest.mark.parametrize("temperature", [0.0, -1.0, 0.002, float("nan"), float("inf")])
def test_a_temperature_out_of_range_is_refused(temperature: float) -> None:
    with pytest.raises(UserError, match=r"at least 0\.003"):
        rankings(make(), dual_softmax=temperature)


def test_progress_goes_from_nothing_to_all() -> None:
    seen: dict[str, list[float]] = {}
    rankings(
        make(), progress=lambda name, share: seen.setdefault(name, []).append(share), every_score=True, dual_softmax=1
    )
    names = ["T2V", "T2A", "V2A", "T2VA", "T2VA span", "T2VA cosine"]
    assert sorted(seen) == sorted([*names, *(f"{name} +dsl" for name in names)])
    for shares in seen.values():
        assert shares[0] == 0 and shares == sorted(shares) and shares[-1] == 1


def dense(e: Embeddings, direction: Direction) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (asking, asked), larger is better and NaN where unusable, and the positions of both sides."""
    sides = Sides(e, direction, torch.device("cpu"))
    if sides.one == "text" and len(sides.others) == 2:
        table = joint_matrix(e, "volume")
    else:
        table = unit(e.vectors[sides.one])[sides.rows] @ unit(e.vectors[sides.others[0]])[sides.clips].T
    return (table, sides.rows, sides.clips) if sides.forward else (table.T, sides.clips, sides.rows)


@pytest.mark.parametrize("at_once", [1, 40, 1 << 22])
@pytest.mark.parametrize("topk", [1, 4, 100])
def test_best_candidates_of_every_direction(topk: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_module, "_AT_ONCE", at_once)
    embeddings = make(clips=9)
    random = np.random.default_rng(1)
    for direction in directions(embeddings.modalities):
        table, asking, asked = dense(embeddings, direction)
        top = top_candidates(embeddings, direction, topk)
        joint = len(direction.others) > 1
        assert top.queries.tolist() == asking.tolist() and top.score == ("volume" if joint else "cosine")
        assert top.candidates.shape == (len(asking), min(topk, len(asked)))
        sign = -1 if joint else 1
        for row, candidates, scores in zip(np.round(table, 6), top.candidates, top.scores, strict=True):
            got = sign * scores
            assert np.allclose(row[np.searchsorted(asked, candidates)], got, atol=3e-4 if joint else 2e-6)
            assert (np.diff(got) <= 0).all()
            ties = np.flatnonzero(np.diff(got) == 0)
            assert (candidates[ties] < candidates[ties + 1]).all()
            left = np.setdiff1d(asked, candidates)
            worst = row[np.searchsorted(asked, left)]
            assert len(left) == 0 or worst.max() <= got[-1] + (3e-4 if joint else 2e-6)
        some = random.permutation(asking)[:5]
        few = top_candidates(embeddings, direction, topk, some)
        where = np.searchsorted(asking, some)
        assert few.candidates.tolist() == top.candidates[where].tolist()
        assert np.array_equal(few.scores, top.scores[where])


def test_best_candidates_of_equal_clips_come_in_their_order() -> None:
    embeddings = make(clips=40, copies=0)
    for m in BOTH:
        embeddings.vectors[m][:] = embeddings.vectors[m][0]
    for direction in (Direction(TEXT, VIDEO), Direction(TEXT, BOTH)):
        for topk in (1, 3, 40):
            assert (top_candidates(embeddings, direction, topk).candidates == np.arange(topk)).all()


def test_best_candidates_agree_with_the_ranks() -> None:
    embeddings = make(clips=30, copies=0)
    for direction in directions(embeddings.modalities):
        standing = rank(embeddings, direction)
        top = top_candidates(embeddings, direction, 1).candidates[:, 0]
        if direction.query == TEXT:
            right = embeddings.text_owner == top
        else:
            right = (embeddings.text_owner[top] if direction.target == TEXT else top) == np.arange(30)
        assert (right == (standing.expected_rank == 0)).all()


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_what_cannot_be_used_comes_last_without_a_score(value: float) -> None:
    embeddings = make(clips=6, copies=0)
    embeddings.vectors["video"][2] = value
    top = top_candidates(embeddings, Direction(TEXT, VIDEO), 6)
    assert (top.candidates[:, -1] == 2).all() and np.isnan(top.scores[:, -1]).all()
    assert not np.isnan(top.scores[:, :-1]).any()
    top = top_candidates(embeddings, Direction(VIDEO, TEXT), 2)
    assert np.isnan(top.scores[2]).all() and top.candidates[2].tolist() == [0, 1]
    top = top_candidates(embeddings, Direction(BOTH, TEXT), 2, np.array([2, 0]))
    assert np.isnan(top.scores[0]).all() and not np.isnan(top.scores[1]).any()
    embeddings.vectors["video"][:] = value
    assert np.isnan(top_candidates(embeddings, Direction(TEXT, VIDEO), 2).scores).all()


def test_queries_that_do_not_take_part_are_refused() -> None:
    embeddings = make(clips=6)
    embeddings.present["video"][3] = False
    direction: Any
    for direction, query in ((Direction(VIDEO, TEXT), 3), (Direction(TEXT, VIDEO), 99), (Direction(VIDEO, AUDIO), -1)):
        with pytest.raises(ValueError, match="do not take part"):
            top_candidates(embeddings, direction, 2, np.array([query]))
    embeddings.present["video"][:] = False
    with pytest.raises(ValueError, match="do not take part"):
        top_candidates(embeddings, Direction(VIDEO, TEXT), 2, np.array([0]))
