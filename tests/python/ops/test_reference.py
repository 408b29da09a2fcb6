"""The oracle itself: against closed forms, other implementations and its own definition."""

import math
import subprocess
import sys

import ot
import pytest
import torch

from cases.operators import masses, unit_rows
from cases.volumes import VOLUME_CASES
from mover import reference


def test_it_needs_no_compiled_library():
    code = "import torch, mover.reference; print(hasattr(torch.ops.mover, 'cost'))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "False"


def test_two_points():
    result = reference.sinkhorn(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), epsilon=1.0)
    share = math.e / (1 + math.e) / 2
    torch.testing.assert_close(result.plan[0, 0], torch.tensor(share, dtype=torch.float64))


def test_sinkhorn_against_pot():
    cost, a, b = torch.rand(7, 9, dtype=torch.float64), masses(7), masses(9, seed=1)
    plan = reference.sinkhorn(cost, a, b, epsilon=0.05).plan
    expected = ot.sinkhorn(a.numpy(), b.numpy(), cost.numpy(), 0.05, method="sinkhorn_log", stopThr=1e-13)
    torch.testing.assert_close(plan, torch.as_tensor(expected), rtol=1e-9, atol=1e-12)


def test_value_is_that_of_the_potentials():
    x, y, a, b = unit_rows(6, 4), unit_rows(5, 4, seed=1), masses(6), masses(5, seed=1)
    result = reference.transport(x, y, a, b, epsilon=0.2)
    dual = (result.f * a).sum() + (result.g * b).sum()
    torch.testing.assert_close(reference.transport_value(x, y, a, b, epsilon=0.2), dual)
    torch.testing.assert_close((result.f * a).sum(), (result.g * b).sum())


def test_plan_gradient_against_differences():
    cost, upstream = torch.rand(4, 3, dtype=torch.float64), torch.rand(4, 3, dtype=torch.float64)

    def loss(cost):
        return (reference.sinkhorn(cost, epsilon=0.3).plan * upstream).sum()

    grad, _, _ = reference.plan_gradient(reference.sinkhorn(cost, epsilon=0.3).plan, upstream, 0.3)
    for i, j in ((0, 0), (2, 1), (3, 2)):
        step = torch.zeros_like(cost)
        step[i, j] = 1e-5
        difference = (loss(cost + step) - loss(cost - step)) / 2e-5
        assert float(grad[i, j]) == pytest.approx(float(difference), abs=1e-8)


@pytest.mark.parametrize("case", VOLUME_CASES, ids=lambda case: case.name)
def test_volume(case):
    volume = reference.volume(case.vectors) / case.vectors.norm(dim=1).prod()
    assert float(volume) == pytest.approx(case.volume, rel=1e-9, abs=1e-14)


def test_volume_of_three_is_the_square_root_of_the_determinant():
    v = unit_rows(20, 3, 6)
    a, b, c = (v[:, i].mul(v[:, j]).sum(-1) for i, j in ((0, 1), (0, 2), (1, 2)))
    expected = (1 + 2 * a * b * c - a**2 - b**2 - c**2).sqrt()
    torch.testing.assert_close(reference.volume(v), expected)
    torch.testing.assert_close(reference.logdet(reference.gram(v)).logdet, 2 * expected.log())


def test_expected_volume_and_scores_against_stacked_groups():
    x, y, z = unit_rows(3, 6), unit_rows(4, 6, seed=1), unit_rows(4, 6, seed=2)
    costs = reference.cost(x, y), reference.cost(x, z), reference.cost(y, z)
    p12, p13, p23 = torch.rand(3, 4).double(), torch.rand(3, 4).double(), torch.rand(4, 4).double()
    total = sum(
        p12[i, j] * p13[i, k] * p23[j, k] * reference.volume(torch.stack([x[i], y[j], z[k]]))
        for i in range(3)
        for j in range(4)
        for k in range(4)
    )
    torch.testing.assert_close(reference.expected_volume(*costs, p12, p13, p23), total)
    scores = reference.volume_scores(x, torch.stack([y, z], dim=1))
    torch.testing.assert_close(scores[1, 2], reference.volume(torch.stack([x[1], y[2], z[2]])))
