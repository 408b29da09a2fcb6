"""Plans that transport only a part of the mass, against their definition, linear programs, and as a matching."""

import pytest
import torch
from scipy.optimize import linprog
from torch.autograd import gradcheck
from torch.nn.functional import normalize

from cases.operators import masses, unit_rows
from cases.partial import partial_plan
from mover import ops
from mover.config import MatchingConfig, ObjectiveConfig, TransportConfig
from mover.errors import UserError
from mover.losses import build_objective
from mover.losses.embeddings import check_embeddings
from mover.losses.matching import match_groups, matched_shares
from mover.losses.transport import solve, solve_partial

TIGHT = TransportConfig(epsilon=0.2, tol=1e-12, max_iter=10000)
ALONE = [[0], [1], [2]]


def problem(n: int = 7, m: int = 5):
    """Costs (2, n, m) of unit rows, and masses of which some are 0."""
    a, b = masses(2, n), masses(2, m, seed=1)
    a[0, 1] = b[1, 2] = 0
    return ops.cost(unit_rows(2, n, 6), unit_rows(2, m, 6, seed=1)), a / a.sum(1, True), b / b.sum(1, True)


@pytest.mark.parametrize("mass", [0.2, 0.6, 0.95])
def test_against_the_definition(mass):
    cost, a, b = problem(4, 3)
    plans = solve_partial(cost, a, b, mass, TIGHT)
    for p in range(2):
        torch.testing.assert_close(plans[p], partial_plan(cost[p], a[p], b[p], mass, 0.2), rtol=1e-8, atol=1e-10)
    assert plans[0, 1].abs().max() == 0 and bool((plans.sum(-1) <= a + 1e-10).all())
    assert bool((plans.sum(-2) <= b + 1e-10).all())


@pytest.mark.parametrize("mass", [0.3, 0.7])
@pytest.mark.parametrize("uniform", [True, False])
def test_a_small_epsilon_gives_the_optimum_of_the_linear_program(mass, uniform):
    cost, a, b = problem()
    if uniform:
        a = b = None
    plans = solve_partial(cost, a, b, mass, TransportConfig(epsilon=0.002, tol=1e-9, max_iter=100000))
    for p in range(2):
        n, m = cost[p].shape
        sums = [torch.eye(n).repeat_interleave(m, 1), torch.eye(m).repeat(1, n)]
        bounds = [torch.full((size,), 1 / size) if given is None else given[p] for size, given in ((n, a), (m, b))]
        best = linprog(
            cost[p].flatten().numpy(),
            A_ub=torch.cat(sums).numpy(),
            b_ub=torch.cat(bounds).numpy(),
            A_eq=[[1.0] * (n * m)],
            b_eq=[mass],
        )
        assert best.success
        assert float((plans[p] * cost[p]).sum()) == pytest.approx(best.fun, abs=5e-3)
        assert float(plans[p].sum()) == pytest.approx(mass, abs=1e-8)


def test_all_of_the_mass_is_the_plan_of_before():
    cost, a, b = problem()
    torch.testing.assert_close(solve_partial(cost, a, b, 1.0, TIGHT), solve(cost, a, b, TIGHT).plan, rtol=0, atol=1e-10)
    nearly = solve_partial(cost, a, b, 1 - 1e-7, TIGHT)
    torch.testing.assert_close(nearly, solve(cost, a, b, TIGHT).plan, rtol=0, atol=1e-5)


def test_costs_that_are_all_equal_share_the_mass_out_evenly():
    plans = solve_partial(torch.full((1, 4, 3), 1.5, dtype=torch.float64), None, None, 0.5, TIGHT)
    torch.testing.assert_close(plans, torch.full((1, 4, 3), 0.5 / 12, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("mass", [1e-6, 0.5, 1 - 1e-6])
@pytest.mark.parametrize("epsilon", [1e-3, 0.05, 100.0])
def test_single_precision_stays_finite(mass, epsilon):
    rows = unit_rows(1, 9, 4).float()
    rows[:, 1], rows[:, 2] = rows[:, 0], -rows[:, 0]
    cost = ops.cost(rows, rows)
    plan = solve_partial(cost, None, None, mass, TransportConfig(epsilon=epsilon))
    assert bool(plan.isfinite().all()) and float(plan.min()) >= 0
    assert float(plan.sum()) == pytest.approx(mass, abs=4e-3)


def test_the_gradient():
    cost, a, b = problem(3, 4)
    assert gradcheck(lambda c: solve_partial(c, a, b, 0.6, TIGHT), cost.requires_grad_(), atol=1e-6)


def half_there(noise: float = 0.1, n: int = 8, d: int = 32):
    """Rows of n items, of which the last half have nothing like them in the other modalities."""
    items = unit_rows(n, d, seed=3)
    rows = {"text": items}
    for m, name in enumerate(("video", "audio")):
        rows[name] = normalize(items + noise * unit_rows(n, d, seed=4 + m), dim=1)
        rows[name][n // 2 :] = unit_rows(n // 2, d, seed=8 + m)
    return rows


def test_rows_without_a_partner_are_left_out():
    """The balance gives each of them somebody, as if it were sure."""
    clips = check_embeddings(half_there(), ("text", "video", "audio"))
    whole = match_groups(clips, MatchingConfig(mutual=False), ALONE)
    part = match_groups(clips, MatchingConfig(mutual=False, mass=0.5), ALONE)
    assert part.kept.tolist() == [True] * 4 + [False] * 4
    assert part.members[:4].tolist() == [[i] * 3 for i in range(4)]
    assert int(whole.kept[4:].sum()) > 0


@pytest.mark.parametrize("side", ["rows", "columns"])
def test_shares_sum_to_the_mass(side):
    z = half_there(noise=1.0)
    there = {"audio": torch.tensor([True] * 6 + [False] * 2)}
    clips = check_embeddings(z, ("text", "video", "audio"), there)
    shares = matched_shares(clips, MatchingConfig(mass=0.4, epsilon=0.3), ALONE, side)
    counts = torch.tensor([8, 8 if side == "rows" else 6], dtype=torch.float64)
    torch.testing.assert_close(shares.sum((-2, -1)) / counts, torch.tensor([0.4, 0.4]).double(), rtol=0, atol=2e-3)
    assert float(shares[1, :, 6:].abs().max()) == 0


def test_modalities_that_are_together_have_one_partial_plan():
    z = half_there()
    clips = check_embeddings(z, ("text", "video", "audio"))
    found = match_groups(clips, MatchingConfig(mass=0.5), [[0], [1, 2]])
    assert found.kept.tolist() == [True] * 4 + [False] * 4 and found.members[:4].tolist() == [[i] * 3 for i in range(4)]


def test_softmax_has_no_mass_to_leave_out():
    config = ObjectiveConfig(preset="mover-sets", matching=MatchingConfig(by="softmax", mass=0.5))
    with pytest.raises(UserError, match=r"objective.matching.mass: 0.5 is what a plan transports.*or .* to 1\."):
        build_objective(config, ("text", "video", "audio"))
