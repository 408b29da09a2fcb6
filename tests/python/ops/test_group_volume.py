"""Volumes of listed groups of unit rows: values, degenerate groups, gradients, repeated and foreign rows."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from cases.operators import unit_rows
from cases.volumes import VOLUME_CASES
from mover import ops, reference

DTYPES = [torch.float32, torch.float64]


def pairs(k):
    return list(itertools.combinations(range(k), 2))


def problem(k, rows=5, count=40, d=11, dtype=torch.float64):
    """k sets of unit rows, their costs (P, rows, rows) and random groups (count, k)."""
    sets = [unit_rows(rows, d, seed=m) for m in range(k)]
    costs = torch.stack([reference.cost(sets[i], sets[j]) for i, j in pairs(k)]).to(dtype)
    groups = torch.randint(rows, (count, k), generator=torch.Generator().manual_seed(k))
    return sets, costs, groups


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", range(2, 9))
def test_values(k, dtype):
    sets, costs, groups = problem(k, dtype=dtype)
    stacked = torch.stack([rows[groups[:, m]] for m, rows in enumerate(sets)], dim=1)
    volumes = ops.group_volume(costs, groups)
    tolerance = 4e-6 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(volumes.double(), reference.volume(stacked), rtol=0, atol=tolerance)
    torch.testing.assert_close(volumes.double(), reference.group_volume(costs, groups), rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", VOLUME_CASES, ids=lambda case: case.name)
def test_known_volumes(case):
    unit = case.vectors / case.vectors.norm(dim=1, keepdim=True)
    k = unit.shape[0]
    if not 2 <= k <= 8:
        pytest.skip("a group has 2 to 8 rows")
    costs = torch.stack([ops.cost(unit[i : i + 1], unit[j : j + 1]) for i, j in pairs(k)])
    volume = float(ops.group_volume(costs, torch.zeros(1, k, dtype=torch.int64)))
    tolerance = 1e-5 if case.name == "coplanar S=65536" else 1e-8
    assert volume == pytest.approx(case.volume, rel=tolerance, abs=0)


def test_it_sums_to_the_expected_volume():
    _, costs, _ = problem(3, rows=4)
    groups = torch.cartesian_prod(*[torch.arange(4)] * 3)
    torch.testing.assert_close(ops.group_volume(costs, groups).sum(), ops.expected_volume(*costs))


@pytest.mark.parametrize("k", range(2, 9))
def test_gradient(k):
    _, costs, groups = problem(k, rows=3, count=6)
    assert torch.autograd.gradcheck(lambda costs: ops.group_volume(costs, groups), (costs.requires_grad_(),))


@pytest.mark.parametrize("k", [2, 3, 4, 8])
def test_gradient_in_single(k):
    grads = []
    for dtype in DTYPES:
        _, costs, groups = problem(k, count=1000, dtype=dtype)
        ops.group_volume(costs.requires_grad_(), groups).square().sum().backward()
        grads.append(costs.grad)
    assert float((grads[0] - grads[1]).abs().max()) <= 2e-5 * float(grads[1].abs().max())


def test_the_gradient_of_a_repeated_group_is_that_of_one_as_often():
    _, costs, groups = problem(4, count=1)
    costs.requires_grad_()
    (one,) = torch.autograd.grad(ops.group_volume(costs, groups).sum(), costs)
    (many,) = torch.autograd.grad(ops.group_volume(costs, groups.expand(64, 4)).sum(), costs)
    torch.testing.assert_close(many, 64 * one)
    listed = torch.zeros_like(costs, dtype=torch.bool)
    for pair, (i, j) in enumerate(pairs(4)):
        listed[pair, groups[0, i], groups[0, j]] = True
    assert torch.equal(one != 0, listed)


@pytest.mark.parametrize("k", range(2, 9))
def test_aligned_groups_have_a_finite_gradient(k):
    x = F.normalize(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    costs = ops.cost(x, x).expand(k * (k - 1) // 2, 4, 4).clone().requires_grad_()
    volumes = ops.group_volume(costs, torch.arange(4)[:, None].expand(4, k))
    assert torch.equal(volumes, torch.zeros(4))
    volumes.sum().backward()
    assert torch.equal(costs.grad, torch.zeros_like(costs))


@pytest.mark.parametrize("k", [2, 3, 4])
def test_nan_stays_in_the_groups_that_list_it(k):
    _, costs, groups = problem(k)
    clean = ops.group_volume(costs, groups)
    costs[0, 2, 3] = torch.nan
    spoilt = (groups[:, 0] == 2) & (groups[:, 1] == 3)
    assert bool(spoilt.any())
    volumes = ops.group_volume(costs, groups)
    assert torch.equal(volumes.isnan(), spoilt)
    assert torch.equal(volumes[~spoilt], clean[~spoilt])


def test_layouts_of_groups():
    _, costs, groups = problem(3)
    expected = ops.group_volume(costs, groups)
    assert torch.equal(ops.group_volume(costs, groups.T.contiguous().T), expected)
    assert torch.equal(ops.group_volume(costs, torch.stack([groups, groups], -1)[..., 0]), expected)


def test_no_groups():
    costs = torch.rand(3, 4, 4, requires_grad=True)
    volumes = ops.group_volume(costs, torch.zeros(0, 3, dtype=torch.int64))
    assert volumes.shape == (0,)
    volumes.sum().backward()
    assert torch.equal(costs.grad, torch.zeros(3, 4, 4))
