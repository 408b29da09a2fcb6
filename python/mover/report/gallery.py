"""What retrieval finds: queries with their first results, worst failures first, then some that succeeded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from mover.data.clip import Clip
from mover.data.progress import progress_bar
from mover.evaluate.directions import Direction
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.rank import Ranking, top_candidates
from mover.evaluate.standing import Standing
from mover.report.thumbnails import Thumbnail, thumbnails

RESULTS = 5
"""Results shown of each query."""
SUCCESSES = 4
"""One in so many queries shown is one that succeeded."""


@dataclass(frozen=True)
class Shown:
    """A clip or one of its captions. caption: None where it is not known, or a clip without any."""

    id: str
    caption: str | None
    thumbnails: tuple[Thumbnail, ...] = ()


@dataclass(frozen=True)
class Hit:
    """A result. place: from 1. right: whether it is the right answer. score: volume, span or cosine."""

    place: int
    shown: Shown
    right: bool
    score: float


@dataclass(frozen=True)
class Query:
    """hits: the first results, best first. rank: where the right answer stands, in words. right: the right answer,
    where it is not among the hits."""

    shown: Shown
    hits: tuple[Hit, ...]
    rank: str
    right: Shown | None


@dataclass(frozen=True)
class Gallery:
    """direction: asked and answered. score: its name. candidates: how many there are. failed, succeeded: of all."""

    direction: Direction
    score: str
    candidates: int
    failures: tuple[Query, ...]
    successes: tuple[Query, ...]
    failed: int
    succeeded: int


def choose(standing: Standing, owners: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The queries to show: failures, the worst first, no clip twice, and some successes, drawn by `seed`.

    Args:
        standing: of all queries. owners: int64 (Q,), the clip of each.
        count: how many to show; one in `SUCCESSES` is a success, or more where there are fewer failures.

    A success is a right answer that is expected in the first place: nothing is better and nothing ties.
    """
    rank = standing.expected_rank
    order = np.lexsort((np.arange(len(rank)), -rank))
    order = order[rank[order] > 0]
    _, first = np.unique(owners[order], return_index=True)
    failures = order[np.sort(first)]
    right = np.random.default_rng(seed).permutation(np.flatnonzero(rank == 0))
    _, first = np.unique(owners[right], return_index=True)
    right = right[np.sort(first)]
    kept = max(count - max(1, count // SUCCESSES), count - len(right))
    failures = failures[:kept]
    return failures, right[: count - len(failures)]


def candidates_of(embeddings: Embeddings, ranking: Ranking) -> tuple[np.ndarray, np.ndarray]:
    """int64 (M,), the positions of the candidates of a direction, captions or clips, and int64 (M,), their clips."""
    if ranking.direction.target != ("text",):
        return ranking.clips, ranking.clips
    captions = np.flatnonzero(np.isin(embeddings.text_owner, ranking.clips))
    return captions, embeddings.text_owner[captions]


def gallery(
    embeddings: Embeddings,
    ranking: Ranking,
    clips: Mapping[str, Clip],
    captions: Sequence[str | None],
    *,
    count: int,
    seed: int,
    device: torch.device,
    progress: bool = False,
) -> Gallery:
    """The gallery of one direction.

    Args:
        embeddings: what was ranked, and where `ranking` gives the right answers.
        clips: id to clip, for media. captions: of each row of text, None where it is not known.
        count: queries to show. seed: of the successes among them.
        device: where scores are computed.
        progress: whether to draw a bar while media are read.
    """
    direction, standing = ranking.direction, ranking.standing
    positions, owners = candidates_of(embeddings, ranking)
    failures, successes = choose(standing, ranking.query_clip, count, seed)
    chosen = np.concatenate([failures, successes])
    top = top_candidates(embeddings, direction, RESULTS, ranking.query[chosen], device)
    owner_of = dict(zip(positions.tolist(), owners.tolist(), strict=True))
    show = partial(_shown, embeddings, captions, _first_captions(embeddings))
    queries: list[Query] = []
    for row, query in enumerate(chosen):
        owner = int(ranking.query_clip[query])
        hits = tuple(
            Hit(place, show(direction.target, int(candidate)), owner_of[int(candidate)] == owner, float(value))
            for place, (candidate, value) in enumerate(zip(top.candidates[row], top.scores[row], strict=True), start=1)
        )
        found = any(hit.right for hit in hits)
        right = None if found else show(direction.target, int(positions[owners == owner][0]))
        asked = show(direction.query, int(ranking.query[query]))
        queries.append(Query(asked, hits, _told(standing, int(query)), right))
    queries = _with_pictures(queries, clips, direction, progress)
    failed = int((standing.expected_rank > 0).sum())
    return Gallery(
        direction, top.score, len(positions), tuple(queries[: len(failures)]), tuple(queries[len(failures) :]),
        failed, len(standing) - failed,
    )  # fmt: skip


def _shown(
    embeddings: Embeddings, captions: Sequence[str | None], first: np.ndarray, side: tuple[str, ...], position: int
) -> Shown:
    """A caption, or a clip with the first of its captions."""
    if side == ("text",):
        return Shown(embeddings.ids[embeddings.text_owner[position]], captions[position])
    caption = None if first[position] < 0 else captions[first[position]]
    return Shown(embeddings.ids[position], caption)


def _first_captions(embeddings: Embeddings) -> np.ndarray:
    """int64 (N,): the first caption of each clip, -1 without any."""
    first = np.full(len(embeddings.ids), -1, dtype=np.int64)
    owners, places = np.unique(embeddings.text_owner, return_index=True)
    first[owners] = places
    return first


def _with_pictures(
    queries: Sequence[Query], clips: Mapping[str, Clip], direction: Direction, progress: bool
) -> list[Query]:
    """The queries with thumbnails of the clips among them; each clip is read once."""
    asks, finds = (side != ("text",) for side in (direction.query, direction.target))
    wanted: dict[str, tuple[str, ...]] = {}
    for query in queries:
        if asks:
            wanted[query.shown.id] = direction.query
        if finds:
            right = [query.right] if query.right else []
            wanted |= {shown.id: direction.target for shown in [*(hit.shown for hit in query.hits), *right]}
    known = [name for name in wanted if name in clips]
    pictures: dict[str, tuple[Thumbnail, ...]] = {}
    with (
        progress_bar(f"{direction.name} gallery", len(known), progress) as advance,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        for name, found in zip(known, pool.map(lambda n: thumbnails(clips[n], wanted[n]), known), strict=True):
            pictures[name] = found
            advance()

    def dressed(shown: Shown) -> Shown:
        return replace(shown, thumbnails=pictures.get(shown.id, ()))

    return [
        replace(
            query,
            shown=dressed(query.shown) if asks else query.shown,
            hits=tuple(replace(hit, shown=dressed(hit.shown)) if finds else hit for hit in query.hits),
            right=dressed(query.right) if finds and query.right else query.right,
        )
        for query in queries
    ]


def _told(standing: Standing, query: int) -> str:
    """The rank of the right answer in words, ties included."""
    first, tied = int(standing.better[query]) + 1, int(standing.tied[query])
    return f"{first:,}" if not tied else f"{first:,} to {first + tied:,} (tied)"
