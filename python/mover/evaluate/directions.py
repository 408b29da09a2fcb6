"""The directions between the modalities of a set, and the clips that each is ranked over.

Two modalities are compared with each other. With three to eight, one of them, text where there is any, is also compared
with all the others jointly. A direction is ranked over the clips that have what it needs: both modalities; or, jointly,
the one and at least one of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mover.errors import UserError
from mover.evaluate.embeddings import Embeddings
from mover.losses.embeddings import MOST_MODALITIES

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

    The last two are the two ways of one comparison. Rows by other scores, "T2VA span" and "T2V +dsl", do not count.
    """
    names = [name for name in names if " " not in name]
    return names[-2] if len(names) > 1 else names[0]


def joint_score(embeddings: Embeddings, anchor: str | None = None) -> str | None:
    """What the joint directions are ranked by: "volume", "span" where a clip lacks a modality, None without any."""
    joint = [d for d in directions(embeddings.modalities, anchor) if len(d.others) > 1]
    if not joint:
        return None
    return "volume" if members_present(embeddings, joint[0], taking_part(embeddings, joint[0])).all() else "span"


def taking_part(embeddings: Embeddings, direction: Direction) -> np.ndarray:
    """int64: the positions of the clips that a direction is ranked over."""
    others = np.logical_or.reduce([embeddings.present[m] for m in direction.others])
    return np.flatnonzero(embeddings.present[direction.single] & others)


def members_present(embeddings: Embeddings, direction: Direction, clips: np.ndarray) -> np.ndarray:
    """bool (clips, others): which of a direction's others these clips have."""
    return np.stack([embeddings.present[m][clips] for m in direction.others], axis=1)
