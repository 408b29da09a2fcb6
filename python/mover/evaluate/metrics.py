"""Recall@K, median and mean rank of every direction between the modalities of a set.

Two modalities are compared by cosine. With three to eight, one of them, text where there is any, is also compared with
all the others jointly, by the volume that the vectors span (smaller is better). Directions from text ask with every
caption; those to text look for the best of a clip's captions.

A direction is ranked over the clips that have what it needs: both modalities; or, jointly, the one and at least one of
the others. Volumes of clips that lack different modalities cannot be compared: where one of these clips lacks any, the
joint score of all of them is the distance of the one vector from the span of those that are there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from mover.errors import UserError
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.rank import ScoreBlock, Standing, rank_best_of, rank_single
from mover.losses.embeddings import MOST_MODALITIES

RECALL_AT = (1, 5, 10)
_LETTERS = {"text": "T", "video": "V", "audio": "A"}


@dataclass(frozen=True)
class Direction:
    """Ask with the modalities `query`, find among `target`: Direction(("text",), ("video", "audio")) is T2VA.

    One of the two sides is a single modality.
    """

    query: tuple[str, ...]
    target: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name in tables and metrics.json: T2V, image2T, T2VA+depth."""
        return "2".join(_side_name(side) for side in (self.query, self.target))

    @property
    def single(self) -> str:
        """The modality that is compared with the others: the query's where both sides are one."""
        return self.query[0] if len(self.query) == 1 else self.target[0]

    @property
    def others(self) -> tuple[str, ...]:
        """What it is compared with, jointly if these are several."""
        return self.target if len(self.query) == 1 else self.query


def directions(modalities: Sequence[str], anchor: str | None = None) -> list[Direction]:
    """Every pair both ways, then one modality with all the others jointly, both ways, where there are three to eight.

    Args:
        modalities: in the order of the names.
        anchor: the one modality of the joint directions, where there is no text; default: the first.

    Raises:
        UserError: an anchor that is not there, or two directions of one name.
    """
    if anchor is not None and anchor not in modalities:
        raise UserError(f"The anchor '{anchor}' is not among the modalities {list(modalities)}.")
    sides: list[tuple[tuple[str, ...], tuple[str, ...]]] = [((m,), (n,)) for m, n in combinations(modalities, 2)]
    if 3 <= len(modalities) <= MOST_MODALITIES:
        one = "text" if "text" in modalities else anchor or modalities[0]
        sides.append(((one,), tuple(m for m in modalities if m != one)))
    found = [Direction(*pair) for one, other in sides for pair in ((one, other), (other, one))]
    twice = [name for name, count in Counter(direction.name for direction in found).items() if count > 1]
    if twice:
        raise UserError(f"Two directions between {list(modalities)} are called {twice[0]}: rename a modality.")
    return found


def _side_name(side: Sequence[str]) -> str:
    letters = "".join(_LETTERS[m] for m in side if m in _LETTERS)
    return "+".join([letters] * bool(letters) + [m for m in side if m not in _LETTERS])


def headline(names: Sequence[str]) -> str:
    """Of the names of a set's directions, in their order, the one that stands for all: the joint one, if there is one.

    The last two are the two ways of one comparison.
    """
    return names[-2] if len(names) > 1 else names[0]


def retrieval_metrics(
    embeddings: Embeddings,
    device: torch.device | None = None,
    progress: Callable[[str], None] | None = None,
    anchor: str | None = None,
) -> dict[str, dict[str, float]]:
    """The metrics of all directions, over the clips that have what each needs.

    Args:
        embeddings: what to rank.
        device: where to compute the scores; default: the CPU.
        progress: called with the name of a direction before it is ranked.
        anchor: as in `directions`.

    Returns:
        per direction {"R@1", "R@5", "R@10" (percent), "MdR", "MnR" (1-based), "N" (queries), "clips"}; a direction
        without clips is left out.
    """
    metrics = {}
    for direction in directions(embeddings.modalities, anchor):
        clips = taking_part(embeddings, direction)
        if not len(clips):
            continue
        if progress is not None:
            progress(direction.name)
        standing = rank(embeddings, direction, device or torch.device("cpu"))
        metrics[direction.name] = {**summarise(standing), "clips": len(clips)}
    return metrics


def joint_score(embeddings: Embeddings, anchor: str | None = None) -> str | None:
    """What the joint directions are ranked by: "volume", "span" where a clip lacks a modality, None without any."""
    joint = [d for d in directions(embeddings.modalities, anchor) if len(d.others) > 1]
    if not joint:
        return None
    return "volume" if _members(embeddings, joint[0], taking_part(embeddings, joint[0])).all() else "span"


def taking_part(embeddings: Embeddings, direction: Direction) -> np.ndarray:
    """int64: the positions of the clips that a direction is ranked over."""
    others = np.logical_or.reduce([embeddings.present[m] for m in direction.others])
    return np.flatnonzero(embeddings.present[direction.single] & others)


def _members(embeddings: Embeddings, direction: Direction, clips: np.ndarray) -> np.ndarray:
    """bool (clips, others): which of the others these clips have."""
    return np.stack([embeddings.present[m][clips] for m in direction.others], axis=1)


def summarise(standing: Standing) -> dict[str, float]:
    """Recall@K in percent, median and mean rank counted from 1, and the number of queries."""
    rank = standing.expected_rank
    metrics = {f"R@{k}": round(100 * float(standing.recall_at(k).mean()), 4) for k in RECALL_AT}
    return metrics | {"MdR": float(np.median(rank)) + 1, "MnR": round(float(rank.mean()) + 1, 4), "N": len(standing)}


def rank(embeddings: Embeddings, direction: Direction, device: torch.device) -> Standing:
    """Rank one direction over the clips that take part in it."""
    modalities = set(direction.query + direction.target)
    clips = taking_part(embeddings, direction)
    if len(clips) == 0:
        empty = np.zeros(0, dtype=np.int64)
        return Standing(empty, empty, empty)
    place = np.full(len(embeddings.ids), -1, dtype=np.int64)
    place[clips] = np.arange(len(clips))
    sides = {m: _unit(embeddings.vectors[m][clips], device) for m in sorted(modalities - {"text"})}
    if "text" in modalities:
        captions = np.flatnonzero(place[embeddings.text_owner] >= 0)
        owner = torch.from_numpy(place[embeddings.text_owner[captions]])
        sides["text"] = _unit(embeddings.vectors["text"][captions], device)

    scores = _scores(direction, sides, torch.from_numpy(_members(embeddings, direction, clips)).to(device))
    if direction.query == ("text",):
        return rank_single(scores, owner, len(clips))
    if direction.target == ("text",):
        return rank_best_of(scores, owner, len(clips))
    return rank_single(scores, torch.arange(len(clips)), len(clips))


def _scores(direction: Direction, sides: dict[str, Tensor], members: Tensor) -> ScoreBlock:
    if len(direction.others) == 1:
        query, target = sides[direction.query[0]], sides[direction.target[0]]
        # Products in float64, rounded once: equal vectors get equal scores whatever the tiling of the product.
        return lambda rows: (query[rows] @ target.T).float()
    single, others = sides[direction.single], torch.stack([sides[m] for m in direction.others], dim=1)
    score = "volume" if bool(members.all()) else "span"
    if len(direction.query) == 1:
        return lambda rows: -_volumes(single[rows], others, members, score)
    return lambda rows: -_volumes(single, others[rows], members[rows], score).T


def _volumes(anchor: Tensor, others: Tensor, members: Tensor, score: str) -> Tensor:
    """Scores (n, m) of unit rows anchor (n, d) with others (m, k-1, d), of which `members` (m, k-1) are there.

    NaN wherever a row that is there is NaN.
    """
    from mover.ops import volume_scores  # loads the C library, which cosine directions do not need

    bad = (torch.isnan(others).any(2) & members).any(1)
    lost = torch.isnan(anchor).any(1)[:, None] | bad[None, :]
    mask = None if score == "volume" else members
    return volume_scores(_finite(anchor), _finite(others), mask, score=score).masked_fill(lost, torch.nan)


def _finite(rows: Tensor) -> Tensor:
    """float32, any unit vector in place of NaN: the operators take unit rows only."""
    stand_in = torch.zeros(rows.shape[-1], device=rows.device)
    stand_in[0] = 1
    return torch.where(torch.isnan(rows), stand_in, rows).float().contiguous()


def _unit(vectors: np.ndarray, device: torch.device) -> Tensor:
    """Rows of length 1 in float64; a row that is zero or not finite becomes NaN and so stands last."""
    rows = torch.from_numpy(np.ascontiguousarray(vectors)).to(device, torch.float64)
    rows = torch.where(torch.isfinite(rows).all(1, keepdim=True), rows, torch.nan)
    return rows / rows.norm(dim=1, keepdim=True)
