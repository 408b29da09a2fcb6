"""The mean of 1 - cos over the pairs of a group, in every form, against plain loops."""

from itertools import combinations, product

import pytest
import torch

from cases.operators import masses as random_masses
from cases.operators import unit_rows
from cases.star import star_weights, weighted_cosine_distance
from mover import reference
from mover.losses.cosine_distance import (
    cosine_scores,
    cyclic_cosine_distance,
    group_cosine_distances,
    star_cosine_distance,
)
from mover.losses.groups import conditionals


def rows_of(k, n=4, d=6):
    return [unit_rows(n, d, seed=m) for m in range(k)]


def costs_of(rows):
    return torch.stack([reference.cost(first, second) for first, second in combinations(rows, 2)])


def distance(vectors):
    terms = [1 - float(first @ second) for first, second in combinations(vectors, 2)]
    return sum(terms) / len(terms)


def uneven():
    return torch.tensor([0.1, 0.0, 0.6, 0.3], dtype=torch.float64)


@pytest.mark.parametrize("k", [2, 3, 4, 9])
def test_listed_groups(k):
    rows = rows_of(k)
    groups = torch.randint(4, (7, k), generator=torch.Generator().manual_seed(1))
    expected = [distance([rows[m][i] for m, i in enumerate(group)]) for group in groups.tolist()]
    found = group_cosine_distances(costs_of(rows), groups)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert group_cosine_distances(costs_of(rows), groups[:0]).shape == (0,)


@pytest.mark.parametrize("k", [2, 3, 4, 5])
@pytest.mark.parametrize("given", [None, uneven()], ids=["uniform", "uneven"])
@pytest.mark.parametrize("max_iter", [1, 10000])
def test_the_star_coupling(k, given, max_iter):
    """Also of plans that have not converged, whose rows have other sums than the masses."""
    rows = rows_of(k)
    a = torch.full((4,), 0.25, dtype=torch.float64) if given is None else given
    plans = [
        reference.transport(rows[0], row, a, random_masses(4, seed=m), epsilon=0.3, max_iter=max_iter).plan
        for m, row in enumerate(rows[1:])
    ]
    assert max_iter > 1 or float((plans[0].sum(1) - a).abs().max()) > 1e-3
    expected = weighted_cosine_distance(rows, star_weights(plans, a))
    found = star_cosine_distance(costs_of(rows), conditionals(torch.stack(plans), given), given)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def test_cyclic_weights():
    rows = rows_of(3)
    p12, p13, p23 = plans = torch.rand(3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    weights = {(i, j, m): p12[i, j] * p13[i, m] * p23[j, m] for i, j, m in product(range(4), repeat=3)}
    total = sum(weights.values())
    expected = weighted_cosine_distance(rows, {group: weight / total for group, weight in weights.items()})
    torch.testing.assert_close(cyclic_cosine_distance(costs_of(rows), plans), expected)
    assert float(cyclic_cosine_distance(costs_of(rows), torch.zeros(3, 4, 4, dtype=torch.float64))) == 0


MASK = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 0, 0]]).bool()


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("mask", [None, MASK], ids=["complete", "missing"])
def test_scores(k, mask):
    anchor, others = unit_rows(4, 6, seed=1), unit_rows(5, k - 1, 6, seed=2)
    mask = None if mask is None else mask[:, : k - 1]
    there = torch.ones(5, k - 1, dtype=torch.bool) if mask is None else mask
    expected = torch.zeros(4, 5, dtype=torch.float64)
    for i, j in product(range(4), range(5)):
        if there[j].any():
            expected[i, j] = distance([anchor[i], *others[j][there[j]]])
    torch.testing.assert_close(cosine_scores(anchor, others, mask), expected)


def test_scores_do_not_take_rows_for_unit_rows():
    """The sum over pairs is one of products: its gradient is that of the cosines and not that of the norms."""
    anchor, others = unit_rows(2, 6, seed=1), unit_rows(2, 3, 6, seed=2).requires_grad_()
    (gradient,) = torch.autograd.grad(cosine_scores(anchor, others)[0, 0], others)
    expected = -(anchor[0] + others[0].sum(0) - others[0]) / 6
    torch.testing.assert_close(gradient[0], expected)
    assert not gradient[1].any()


@pytest.mark.parametrize("k", [2, 3, 4])
def test_gradients(k):
    costs = costs_of(rows_of(k)).requires_grad_()
    plans = torch.rand(k - 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    groups = torch.randint(4, (7, k), generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(lambda c: group_cosine_distances(c, groups), costs)
    assert torch.autograd.gradcheck(lambda c, p: star_cosine_distance(c, p, uneven()), (costs, plans))
    anchor, others = unit_rows(3, 5, seed=1).requires_grad_(), unit_rows(5, k - 1, 5, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: cosine_scores(x, y, MASK[:, : k - 1]), (anchor, others))
    if k == 3:
        three = torch.rand(3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
        assert torch.autograd.gradcheck(cyclic_cosine_distance, (costs, three))


def test_autocast_leaves_single_precision_alone():
    rows = [unit_rows(64, 16, dtype=torch.float32, seed=m) for m in range(4)]
    costs = torch.stack([torch.cdist(first, second).square() for first, second in combinations(rows, 2)])
    plans = torch.rand(3, 64, 64)
    others = torch.stack(rows[1:], dim=1)
    values = star_cosine_distance(costs, plans, None), cosine_scores(rows[0], others)
    values += (cyclic_cosine_distance(costs[:3], plans),)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = star_cosine_distance(costs, plans, None), cosine_scores(rows[0], others)
        again += (cyclic_cosine_distance(costs[:3], plans),)
    assert all(torch.equal(one, other) for one, other in zip(values, again, strict=True))
