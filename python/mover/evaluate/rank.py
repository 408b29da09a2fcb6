"""Ranks of every direction between the modalities of a set, and the best candidates of a query; exact, at any size.

Two modalities are compared by the cosine. One modality and all the others jointly are compared by the volume that the
vectors span, by the distance of the one from the span of the others, and by the mean of the cosines. Volumes of clips
that lack different modalities cannot be compared: where a clip lacks any, the span takes their place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mover.errors import UserError
from mover.evaluate.counting import Step, Usable, both_ways, tiles
from mover.evaluate.directions import Direction, directions, members_present, taking_part
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.scores import LOWEST_TEMPERATURE, CosineScores, DualSoftmax, JointScores, on_grid, unit_rows
from mover.evaluate.standing import Standing

JOINT_SCORES = ("volume", "span", "cosine")
_AT_ONCE = 1 << 22
"""Bound on the scores that are searched together for the best candidates."""

Progress = Callable[[str, float], None]
"""Told the name of the comparison at work, and which share of it is done."""


@dataclass(frozen=True)
class Ranking:
    """The standings of all queries of one direction by one score.

    name: of the direction, with what distinguishes it: "T2VA", "T2VA span", "T2V +dsl". score: "cosine", "volume" or
    "span". dual_softmax: its temperature, if it is one. clips: int64, the positions of the clips that are ranked.
    query: int64 (Q,), the position of each query's caption, or of its clip where the direction does not ask with text.
    query_clip: int64 (Q,), that of its clip.
    """

    name: str
    direction: Direction
    score: str
    dual_softmax: float | None
    standing: Standing
    clips: np.ndarray
    query: np.ndarray
    query_clip: np.ndarray


@dataclass(frozen=True)
class TopCandidates:
    """The best candidates of some queries, best first, equal ones in their order.

    queries: int64 (q,), candidates: int64 (q, K), positions of captions or of clips. scores: float64 (q, K), NaN last.
    score: what they are, "cosine", of which large ones are good, "volume" or "span", of which small ones are.
    """

    queries: np.ndarray
    candidates: np.ndarray
    scores: np.ndarray
    score: str


class Sides:
    """What a comparison takes from a set: rows of one modality, and columns of one or several others.

    one, others: the modalities. clips: int64 (n,), positions of the clips that take part. rows: int64 (C,), positions
    of their captions, or the clips again where the one modality is no text. forward: whether the direction asks with
    the rows. whole: whether every clip has all of the others.
    """

    def __init__(self, embeddings: Embeddings, direction: Direction, device: torch.device) -> None:
        single, others = direction.single, direction.others
        self.one, self.others = ("text", (single,)) if others == ("text",) else (single, others)
        self.forward = direction.query == (self.one,)
        self.clips = taking_part(embeddings, direction)
        place = np.full(len(embeddings.ids), -1, dtype=np.int64)
        place[self.clips] = np.arange(len(self.clips))
        text = self.one == "text"
        self.rows = np.flatnonzero(place[embeddings.text_owner] >= 0) if text else self.clips
        self.owner = place[embeddings.text_owner[self.rows]] if text else np.arange(len(self.clips))
        members = members_present(embeddings, Direction((self.one,), self.others), self.clips)
        self.whole = bool(members.all())

        rows = unit_rows(embeddings.vectors[self.one][self.rows], device)
        columns = [unit_rows(embeddings.vectors[m][self.clips], device) for m in self.others]
        used = ~torch.isnan(rows[:, 0])
        lost = torch.stack([torch.isnan(column[:, 0]) for column in columns], dim=1)
        lost = (lost & torch.from_numpy(members).to(device)).any(1)
        self.usable = Usable(self.owner, used.cpu().numpy(), (~lost).cpu().numpy())
        self._members = None if self.whole else torch.from_numpy(members).to(device)[~lost]
        self._rows = rows if used.all() else rows[used]
        self._columns = [column[~lost] for column in columns] if lost.any() else columns

    def scores(self, score: str) -> CosineScores | JointScores:
        """Of the usable rows with the usable columns."""
        if score == "cosine":
            return CosineScores(self._rows, self._columns[0] if len(self.others) == 1 else self._mean())
        groups = torch.stack([column.float() for column in self._columns], dim=1)
        return JointScores(self._rows.float(), groups, self._members, score)

    def score_names(self, every: bool = False) -> tuple[str, ...]:
        """What can be compared here, the one that stands for all first; without `every` only that."""
        if len(self.others) == 1:
            return ("cosine",)
        names = JOINT_SCORES if self.whole else JOINT_SCORES[1:]
        return names if every else names[:1]

    def _mean(self) -> Tensor:
        """The mean of the unit rows of the members that are there: its products are the means of their cosines."""
        total = torch.zeros_like(self._columns[0])
        for i, column in enumerate(self._columns):
            total += column if self._members is None else column.masked_fill(~self._members[:, i, None], 0)
        count = len(self.others) if self._members is None else self._members.sum(1, keepdim=True)
        return on_grid(total.div_(count))


def rankings(
    embeddings: Embeddings,
    device: torch.device | None = None,
    progress: Progress | None = None,
    anchor: str | None = None,
    *,
    every_score: bool = False,
    dual_softmax: float | None = None,
) -> list[Ranking]:
    """The standings of all directions, over the clips that have what each needs; one without clips is left out.

    Args:
        embeddings: what to rank.
        device: where to compute the scores; default: the CPU.
        progress: called while scores are computed.
        anchor: as in `directions`.
        every_score: the joint directions by span and by cosine, too, as "T2VA span" and "T2VA cosine".
        dual_softmax: a temperature; all of them again with scores times their softmax over all queries, as
            "T2V +dsl". That makes use of the whole set of queries.

    Returns:
        the directions in their order, then the joint ones by other scores, then those by dual softmax.

    Raises:
        UserError: a temperature for which float64 does not suffice, or an anchor that does not fit.
    """
    if dual_softmax is not None and not LOWEST_TEMPERATURE <= dual_softmax < float("inf"):
        raise UserError(
            f"The temperature of the dual softmax must be at least {LOWEST_TEMPERATURE}, got {dual_softmax}."
        )
    device = device or torch.device("cpu")
    found = directions(embeddings.modalities, anchor)
    plain: list[Ranking] = []
    others: list[Ranking] = []
    softened: list[Ranking] = []
    for forward, backward in zip(found[::2], found[1::2], strict=True):
        if not len(taking_part(embeddings, forward)):
            continue
        sides = Sides(embeddings, forward, device)
        owner = embeddings.text_owner[sides.rows] if sides.one == "text" else sides.rows
        asked = ((forward, sides.rows, owner), (backward, sides.clips, sides.clips))
        for score in sides.score_names(every_score):
            suffix = "" if score == sides.score_names()[0] else f" {score}"
            scores = sides.scores(score)
            standings = both_ways(scores, sides.usable, _share_of(progress, forward.name + suffix))
            kept = others if suffix else plain
            for (direction, query, clip), standing in zip(asked, standings, strict=True):
                name = direction.name + suffix
                kept.append(Ranking(name, direction, score, None, standing, sides.clips, query, clip))
            if dual_softmax is None:
                continue
            share = _share_of(progress, f"{forward.name}{suffix} +dsl", passes=4)
            standings = _soft_both_ways(scores, sides.usable, dual_softmax, share)
            for (direction, query, clip), standing in zip(asked, standings, strict=True):
                name = f"{direction.name}{suffix} +dsl"
                softened.append(Ranking(name, direction, score, dual_softmax, standing, sides.clips, query, clip))
    return plain + others + softened


def rank(embeddings: Embeddings, direction: Direction, device: torch.device | None = None) -> Standing:
    """The standing of the queries of one direction, by the score that stands for it; both ways cost no more.

    Returns:
        in the order of the captions, where the direction asks with text, else of the clips that take part.
    """
    if not len(taking_part(embeddings, direction)):
        empty = np.zeros(0, dtype=np.int64)
        return Standing(empty, empty, empty)
    sides = Sides(embeddings, direction, device or torch.device("cpu"))
    forward, backward = both_ways(sides.scores(sides.score_names()[0]), sides.usable)
    return forward if sides.forward else backward


def top_candidates(
    embeddings: Embeddings,
    direction: Direction,
    topk: int,
    queries: np.ndarray | None = None,
    device: torch.device | None = None,
) -> TopCandidates:
    """The best candidates of queries, by the score that stands for the direction; equal ones in their order.

    Args:
        embeddings: the set.
        direction: one of `directions(embeddings.modalities)`.
        topk: how many, at least 1; all of them where there are fewer.
        queries: int64 (q,), positions of captions where the direction asks with text, else of clips; default: all.
        device: where to compute the scores; default: the CPU.

    Returns:
        candidates that cannot be used come last, with NaN for their scores, as do all of a query that cannot be used.

    Raises:
        ValueError: a query that does not take part in the direction.
    """
    sides = Sides(embeddings, direction, device or torch.device("cpu"))
    asking, asked = (sides.rows, sides.clips) if sides.forward else (sides.clips, sides.rows)
    queries = asking if queries is None else np.asarray(queries, dtype=np.int64)
    place = np.searchsorted(asking, queries)
    if len(asking) == 0 or (place == len(asking)).any() or (asking[place] != queries).any():
        raise ValueError(f"{direction.name} was asked for queries that do not take part in it")
    name = sides.score_names()[0]
    topk = min(topk, len(asked))
    scores = sides.scores(name)
    found = np.empty((len(queries), topk), dtype=np.int64)
    values = np.empty((len(queries), topk), dtype=np.float64)
    size = max(1, _AT_ONCE // len(asked))
    for start in range(0, len(queries), size):
        some = slice(start, start + size)
        best, where = _best(_against_all(scores, sides, place[some]), topk)
        found[some], values[some] = asked[where.cpu().numpy()], best.double().cpu().numpy()
    values[values == -np.inf] = np.nan
    return TopCandidates(queries, found, values if name == "cosine" else -values, name)


def _against_all(scores: CosineScores | JointScores, sides: Sides, asking: np.ndarray) -> Tensor:
    """The scores of some queries with all candidates, larger is better, -inf where one of both cannot be used."""
    usable = (sides.usable.rows, sides.usable.columns)
    queries, candidates = usable if sides.forward else usable[::-1]
    block = torch.full((len(asking), len(candidates)), -torch.inf, dtype=torch.float64, device=scores.device)
    among = np.cumsum(queries) - 1
    chosen = torch.from_numpy(among[asking[queries[asking]]]).to(scores.device)
    every = slice(0, scores.shape[1 if sides.forward else 0])
    if len(chosen) and every.stop:
        some = scores.rows_at(chosen) if sides.forward else scores.columns_at(chosen)
        tile = some.tile(slice(0, some.shape[0]), slice(0, some.shape[1]))
        tile = (tile if sides.forward else tile.T).double()
        rows = torch.from_numpy(np.flatnonzero(queries[asking])).to(scores.device)
        block[rows[:, None], torch.from_numpy(np.flatnonzero(candidates)).to(scores.device)] = tile
    return block


def _best(scores: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """The largest scores of each row and where they are, equal ones in their order; both (rows, topk)."""
    least = torch.topk(scores, topk, dim=1).values[:, -1:]
    at_least = scores >= least
    crowded = at_least.sum(1) > topk  # the last place is tied: torch.topk takes any of those
    where = torch.empty((len(scores), topk), dtype=torch.int64, device=scores.device)
    where[crowded] = torch.sort(scores[crowded], dim=1, descending=True, stable=True).indices[:, :topk]
    where[~crowded] = torch.nonzero(at_least[~crowded])[:, 1].view(-1, topk)
    values, order = torch.sort(scores.gather(1, where), dim=1, descending=True, stable=True)
    return values, where.gather(1, order)


def _soft_both_ways(
    scores: CosineScores | JointScores, usable: Usable, temperature: float, step: Step | None
) -> tuple[Standing, Standing]:
    """As `both_ways`, by dual softmax over the rows for the one, over the columns for the other."""
    standings = []
    for of_columns in (False, True):
        soft = DualSoftmax(scores, temperature, of_columns)
        for rows, columns in tiles(scores.shape, scores.device):
            soft.gather(rows, columns)
            if step is not None:
                step((rows.stop - rows.start) * (columns.stop - columns.start), scores.shape[0] * scores.shape[1])
        standings.append(both_ways(soft, usable, step)[of_columns])
    return standings[0], standings[1]


def _share_of(progress: Progress | None, name: str, passes: int = 1) -> Step | None:
    """Turns counts of scores computed in several passes into the share that is done."""
    if progress is None:
        return None
    done = 0

    def step(computed: int, total: int) -> None:
        nonlocal done
        done += computed
        progress(name, min(1.0, done / (passes * total)))

    progress(name, 0.0)
    return step
