"""Counts of better and tied candidates, both ways in one pass: by hand, by brute force, whatever the tiles."""

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from mover.evaluate import counting
from mover.evaluate.counting import Usable, both_ways, tiles
from mover.evaluate.scores import CosineScores, JointScores, NearCosines, _rounded, on_grid, unit_rows
from mover.evaluate.standing import Standing, average_precision

CPU = torch.device("cpu")


class Table:
    """Scores that are given."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = torch.from_numpy(table)
        self.shape, self.device = tuple(table.shape), CPU

    def tile(self, rows: slice, columns: slice) -> torch.Tensor:
        return self.table[rows, columns].clone()

    def right(self, column: torch.Tensor) -> torch.Tensor:
        return self.table.gather(1, column.clamp(min=0)[:, None])[:, 0].masked_fill(column < 0, torch.nan)


def usable(owner: np.ndarray, columns: int) -> Usable:
    return Usable(owner, np.ones(len(owner), dtype=bool), np.ones(columns, dtype=bool))


def by_loops(scores: np.ndarray, owner: np.ndarray) -> tuple[Standing, Standing]:
    """Both standings from the whole matrix, NaN where a score cannot be used; one query at a time."""
    rows, columns = scores.shape
    forward, backward = [], []
    for c in range(rows):
        mine, others = scores[c, owner[c]], np.delete(scores[c], owner[c])
        forward.append((columns - 1, 0) if np.isnan(mine) else ((others > mine).sum(), (others == mine).sum()))
    precision = []
    for j in range(columns):
        right, wrong = scores[owner == j, j], scores[owner != j, j]
        right = right[np.argsort(-right)]
        best = right[0]
        lost = np.isnan(best)
        backward.append(
            (len(wrong), 0, 1) if lost else ((wrong > best).sum(), (wrong == best).sum(), (right == best).sum())
        )
        counts = [(len(wrong), 0) if np.isnan(s) else ((wrong > s).sum(), (wrong == s).sum()) for s in right]
        better, tied = np.array(counts).T
        precision.append(average_precision(np.zeros(len(right), dtype=np.int64), right, better, tied)[0])
    better, tied = np.array(forward).reshape(-1, 2).T
    one = Standing(better, tied, np.ones_like(better))
    return one, Standing(*np.array(backward).reshape(-1, 3).T, np.array(precision))


def assert_same(got: tuple[Standing, Standing], expected: tuple[Standing, Standing]) -> None:
    for one, other in zip(got, expected, strict=True):
        assert one.better.tolist() == other.better.tolist()
        assert one.tied.tolist() == other.tied.tolist()
        assert one.own.tolist() == other.own.tolist()
    assert got[1].precision() == pytest.approx(expected[1].precision(), abs=1e-12)


def test_ranks_by_hand() -> None:
    table = np.array([[0.9, 0.1, 0.5], [0.7, 0.2, 0.7], [0.3, 0.3, 0.3]])
    forward, backward = both_ways(Table(table), usable(np.arange(3), 3))
    assert (forward.better.tolist(), forward.tied.tolist()) == ([0, 2, 0], [0, 0, 2])
    assert forward.expected_rank.tolist() == [0, 2, 1]
    assert forward.recall_at(1) == pytest.approx([1, 0, 1 / 3])
    # columns: 0.9 is best of the first; 0.2 has 0.3 above; 0.3 has 0.5 and 0.7 above
    assert (backward.better.tolist(), backward.tied.tolist()) == ([0, 1, 2], [0, 0, 0])
    assert backward.average_precision is None


def test_the_best_of_several_captions_by_hand() -> None:
    # clip 0 has the captions 0 and 2, clip 1 the captions 1, 3 and 4
    owner = np.array([0, 1, 0, 1, 1])
    table = np.array([[0.4, 0.1], [0.6, 0.3], [0.8, 0.5], [0.8, 0.5], [0.1, 0.5]])
    forward, backward = both_ways(Table(table), usable(owner, 2))
    # caption 1 prefers clip 0, caption 3 too, caption 4 its own
    assert forward.better.tolist() == [0, 1, 0, 1, 0]
    # clip 0: best own .8, tied with caption 3 of the other. Clip 1: best own .5 twice, tied with caption 2.
    assert (backward.better.tolist(), backward.tied.tolist(), backward.own.tolist()) == ([0, 0], [1, 1], [1, 2])
    assert backward.recall_at(1) == pytest.approx([1 / 2, 2 / 3])
    # clip 0: .8 own or wrong first, then .6 wrong, then .4 own: (1 + 2/4) / 2 or (1/2 + 2/4) / 2
    # clip 1: own, own, wrong in any order at places 1 to 3 (orders rrw, rwr, wrr), then own .3 at place 4, of 5
    first = ((1 + 1 / 2) / 2 + (1 / 2 + 1 / 2) / 2) / 2
    second = np.mean([1 + 1, 1 + 2 / 3, 1 / 2 + 2 / 3]) + 3 / 4
    assert backward.precision() == pytest.approx([first, second / 3])


def test_a_right_answer_that_cannot_be_used_is_last() -> None:
    table = np.array([[0.9, 0.1], [0.7, 0.2]])  # of the usable rows 1, 2 with the usable columns 0, 2
    some = Usable(np.array([0, 0, 2, 1]), np.array([False, True, True, False]), np.array([True, False, True]))
    forward, backward = both_ways(Table(table), some)
    assert forward.better.tolist() == [2, 0, 1, 2]
    # column 1 cannot be used: its row stands behind all three others
    assert backward.better.tolist() == [0, 3, 0]
    assert backward.own.tolist() == [1, 1, 1]
    # column 0: the usable own one first, the lost one behind the two wrong: (1 + 2/4) / 2
    assert backward.precision() == pytest.approx([(1 + 2 / 4) / 2, 1 / 4, 1])


def random_owner(random: np.random.Generator, columns: int, more: int) -> np.ndarray:
    """Ragged and not sorted; every column owns a row."""
    return random.permutation(np.concatenate([np.arange(columns), random.integers(0, columns, more)]))


def sides(
    random: np.random.Generator, rows: int, columns: int, d: int, lost: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Few different rows, so that scores tie; some are zero or not finite."""
    both = [random.integers(-2, 3, (n, d)).astype(np.float64) for n in (rows, columns)]
    for vectors in both:
        vectors[random.random(len(vectors)) < lost] = random.choice([np.nan, np.inf, 0.0])
    return unit_rows(both[0], CPU), unit_rows(both[1], CPU)


def cosines(rows: torch.Tensor, columns: torch.Tensor, owner: np.ndarray) -> tuple[CosineScores, Usable]:
    there = [~torch.isnan(side[:, 0]) for side in (rows, columns)]
    both = Usable(owner, *(flags.numpy() for flags in there))
    return CosineScores(rows[there[0]], columns[there[1]]), both


@pytest.mark.parametrize("lost", [0.0, 0.25])
@pytest.mark.parametrize("seed", range(25))
def test_cosines_against_loops_with_any_tiles(seed: int, lost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(seed)
    owner = random_owner(random, int(random.integers(1, 25)), int(random.integers(0, 60)))
    rows, columns = sides(random, len(owner), owner.max() + 1, int(random.integers(1, 7)), lost)
    expected = by_loops((rows @ columns.T).numpy(), owner)
    scores, some = cosines(rows, columns, owner)
    assert_same(both_ways(scores, some), expected)
    monkeypatch.setattr(counting, "TILE", (int(random.integers(1, 9)), int(random.integers(1, 9))))
    assert_same(both_ways(scores, some), expected)
    monkeypatch.setattr(NearCosines, "hold", staticmethod(lambda exact: False))
    assert_same(both_ways(scores, some), expected)


def test_every_tile_size_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    owner = random_owner(random, 9, 4)
    scores, some = cosines(*sides(random, 13, 9, 4, 0.1), owner)
    whole = both_ways(scores, some)
    for rows in range(1, 14):
        for columns in range(1, 10):
            monkeypatch.setattr(counting, "TILE", (rows, columns))
            assert_same(both_ways(scores, some), whole)


@pytest.fixture
def by_float32(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every tile that was tried in float32, whether it was counted so."""
    seen: list[bool] = []
    count = counting._Tally._count_near

    def watched(*inputs: Any) -> bool:
        seen.append(count(*inputs))
        return seen[-1]

    monkeypatch.setattr(counting._Tally, "_count_near", watched)
    return seen


def near_ties(random: np.random.Generator, rows: int, columns: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the columns every fourth is a step or two of the grid from another: float32 cannot tell those apart."""
    base = unit_rows(random.normal(size=(1, d)), CPU)
    near = base.repeat(columns, 1)
    place = torch.from_numpy(random.integers(0, d, columns))
    near[torch.arange(columns), place] += torch.from_numpy(random.integers(-1, 2, columns)) * 2.0**-26
    near[torch.arange(columns) % 4 > 0] = unit_rows(random.normal(size=(columns - len(near[::4]), d)), CPU)
    return unit_rows(random.normal(size=(rows, d)), CPU), near


@pytest.mark.parametrize(("refined", "tile"), [(10**9, (16, 16)), (9, (9, 12)), (1, (8, 64)), (1, (1024, 2048))])
def test_scores_that_float32_cannot_tell_apart(
    refined: int, tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch, by_float32: list[bool]
) -> None:
    """In part by tiles in float64, in part by single scores, as _REFINED has it; against exact fractions."""
    random = np.random.default_rng(5)
    owner = random_owner(random, 30, 12)
    rows, columns = near_ties(random, len(owner), 30, 24)
    exact = [[[Fraction(x) for x in row] for row in side.tolist()] for side in (rows, columns)]
    table = [[sum((a * b for a, b in zip(r, c, strict=True)), Fraction(0)) for c in exact[1]] for r in exact[0]]
    order = {value: float(place) for place, value in enumerate(sorted({v for row in table for v in row}))}
    expected = by_loops(np.array([[order[v] for v in row] for row in table]), owner)
    monkeypatch.setattr(counting, "_REFINED", refined)
    monkeypatch.setattr(counting, "TILE", tile)
    got = both_ways(*cosines(rows, columns, owner))
    assert_same(got, expected)
    assert any(by_float32) == (refined < 10**9) and all(by_float32) == (refined == 1)
    assert any(0 < b - a < 2.0**-26 for a, b in pairwise(sorted({v for row in table for v in row})))


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_float32_and_float64_agree(share: float, monkeypatch: pytest.MonkeyPatch, by_float32: list[bool]) -> None:
    """Random rows, of which some are copies of a few: thresholds with no, some and all scores near them."""
    random = np.random.default_rng(6)
    vectors = random.normal(size=(300, 64))
    vectors[random.random(300) < share] = vectors[0]
    rows, columns = (
        unit_rows(vectors + 0.3 * random.normal(size=vectors.shape) * (share < 1), CPU),
        unit_rows(vectors, CPU),
    )
    scores, some = cosines(rows, columns, np.arange(300))
    monkeypatch.setattr(counting, "TILE", (64, 96))
    monkeypatch.setattr(counting, "_REFINED", 2)
    fast = both_ways(scores, some)
    assert all(by_float32) == (share < 1) and any(by_float32) == (share < 1)
    monkeypatch.setattr(NearCosines, "hold", staticmethod(lambda exact: False))
    assert_same(fast, both_ways(scores, some))
    assert_same(fast, by_loops((rows @ columns.T).numpy(), np.arange(300)))


def test_float32_is_within_its_bound_and_not_used_at_lower_precision() -> None:
    random = np.random.default_rng(8)
    for d in (3, 64, 700):
        rows = unit_rows(np.abs(random.normal(size=(200, d))) ** 3, CPU)  # one sign: rounding does not cancel
        exact = CosineScores(rows, rows)
        near = NearCosines(exact)
        every = slice(0, 200)
        assert (near.tile(every, every).double() - exact.tile(every, every)).abs().max() < near.slack / 2
    assert NearCosines.hold(exact)
    torch.set_float32_matmul_precision("medium")
    try:
        assert not NearCosines.hold(exact)
    finally:
        torch.set_float32_matmul_precision("highest")


def joint(random: np.random.Generator, owner: np.ndarray, d: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    columns = int(owner.max()) + 1
    rows = unit_rows(random.normal(size=(len(owner), d)), CPU).float()
    return rows, torch.stack([unit_rows(random.normal(size=(columns, d)), CPU).float() for _ in range(k - 1)], 1)


@pytest.mark.parametrize(("score", "masked"), [("volume", False), ("span", False), ("span", True)])
@pytest.mark.parametrize("k", [3, 5])
def test_joint_scores_with_any_tiles(score: str, masked: bool, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(k)
    owner = random_owner(random, 150, 70)
    rows, groups = joint(random, owner, 12, k)
    copies = random.integers(0, 30, 150)
    groups[50:] = groups[copies[50:]]  # equal groups tie
    rows[100:] = rows[random.integers(0, 60, 120)]
    members = torch.from_numpy(random.random((150, k - 1)) < 0.7) if masked else None
    if members is not None:
        members[:, 0] |= ~members.any(1)
        members[50:] = members[copies[50:]]
    scores = JointScores(rows, groups, members, score)
    table = scores.tile(slice(0, 220), slice(0, 150)).double().numpy()
    whole = both_ways(scores, usable(owner, 150))
    assert_same(whole, by_loops(table, owner))
    assert (whole[0].tied > 0).any() and (whole[1].tied > 0).any()
    for tile in ((32, 32), (64, 96), (96, 64), (1024, 32), (33, 150), (17, 5), (220, 1)):
        monkeypatch.setattr(counting, "TILE", tile)
        assert_same(both_ways(scores, usable(owner, 150)), whole)


def test_threads_change_nothing() -> None:
    random = np.random.default_rng(2)
    owner = random_owner(random, 400, 100)
    rows, groups = joint(random, owner, 40, 3)
    text, video = unit_rows(rows.numpy(), CPU), unit_rows(groups[:, 0].numpy(), CPU)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            cosine = both_ways(CosineScores(text, video), usable(owner, 400))
            found.append((cosine, both_ways(JointScores(rows, groups, None, "volume"), usable(owner, 400))))
    finally:
        torch.set_num_threads(before)
    for one, two in found[1:]:
        assert_same(one, found[0][0])
        assert_same(two, found[0][1])


def test_right_scores_come_from_the_tiles() -> None:
    """Where tiles have other bits than what was taken for the right scores, those of the tiles count."""

    class Shifted(Table):
        def right(self, column: torch.Tensor) -> torch.Tensor:
            return super().right(column) + 1e-3

    table = np.round(np.random.default_rng(1).random((12, 12)), 1)
    expected = both_ways(Table(table), usable(np.arange(12), 12))
    assert_same(both_ways(Shifted(table), usable(np.arange(12), 12)), expected)

    class Restless(Table):
        def tile(self, rows: slice, columns: slice) -> torch.Tensor:
            self.table += 1e-3
            return super().tile(rows, columns)

    with pytest.raises(RuntimeError, match="other scores each time"):
        both_ways(Restless(table), usable(np.arange(12), 12))


def test_a_query_without_a_right_answer_is_refused() -> None:
    for owner, columns in (([0, 0], 2), ([0, 2], 2), ([0, 0, 1, 3], 3)):
        with pytest.raises(ValueError, match="at least one row of its own"):
            usable(np.array(owner), columns)


def test_steps_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "TILE", (5, 4))
    seen: list[tuple[int, int]] = []
    both_ways(Table(np.random.default_rng(0).random((13, 9))), usable(random_owner(np.random.default_rng(0), 9, 4), 9),
              lambda done, total: seen.append((done, total)))  # fmt: skip
    assert sum(done for done, _ in seen) == 13 * 9 and {total for _, total in seen} == {13 * 9}
    assert len(seen) == len(list(tiles((13, 9), CPU))) == 9


def test_grid_rows_have_exact_products() -> None:
    random = np.random.default_rng(3)
    rows = unit_rows(random.normal(size=(40, 300)), CPU)
    assert torch.equal(on_grid(rows.clone()), rows)
    assert (rows.norm(dim=1) - 1).abs().max() < 1e-7
    table = rows @ rows.T
    shuffled = torch.from_numpy(random.permutation(300))
    assert torch.equal(rows[:, shuffled] @ rows[:, shuffled].T, table)
    assert torch.equal(torch.stack([torch.dot(rows[0], row) for row in rows]), table[0])
    assert table[3, 5].item() == float(
        sum(Fraction(a) * Fraction(b) for a, b in zip(*rows[[3, 5]].tolist(), strict=True))
    )


def test_scores_are_rounded_to_26_digits_whatever_their_size() -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=500)) * 10.0 ** torch.linspace(-290, 0, 500)
    got = _rounded(values)
    assert torch.equal(_rounded(values * (1 + 2.0**-52)), got)
    assert ((got - values).abs() <= values.abs() * 2.0**-26).all()
    digits, _ = torch.frexp(got)
    assert torch.equal(digits * 2**26, (digits * 2**26).round())
