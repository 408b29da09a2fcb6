"""Candidate groups from given plans: which groups, which weights, what is refused."""

import math
from collections import Counter

import pytest
import torch

from cases.operators import masses as random_masses
from cases.operators import unit_rows
from cases.star import best_weights, star_weights
from mover import reference
from mover.errors import UserError
from mover.losses import groups as groups_module
from mover.losses.groups import check_size, conditionals, sample_groups, top_groups

N = 5


def plans_of(others, masses=None, epsilon=0.5):
    """(others, N, N), converged plans that share the row masses."""
    anchor = unit_rows(N, 4, seed=1)
    columns = [random_masses(N, seed=10 + m) for m in range(others)]
    plans = [
        reference.transport(anchor, unit_rows(N, 4, seed=2 + m), masses, b, epsilon=epsilon).plan
        for m, b in enumerate(columns)
    ]
    return torch.stack(plans)


def uneven():
    return torch.tensor([0.1, 0.0, 0.4, 0.3, 0.2], dtype=torch.float64)


def as_dictionary(groups):
    table = {tuple(member): weight for member, weight in zip(groups.members.tolist(), groups.weights, strict=True)}
    assert len(table) == len(groups.weights)  # every group once
    return table


def assert_same(groups, expected):
    table = as_dictionary(groups)
    assert set(table) == set(expected)
    for group, weight in expected.items():
        torch.testing.assert_close(table[group], weight, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("given", [None, uneven()], ids=["uniform", "uneven"])
@pytest.mark.parametrize("others", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 2, 3, N, N + 4])
def test_top_groups_against_loops(others, count, given):
    plans = plans_of(others, given)
    masses = torch.full((N,), 1 / N, dtype=torch.float64) if given is None else given
    groups = top_groups(plans, given, count)
    assert groups.members.dtype == torch.int64
    assert groups.members.shape == (int((masses > 0).sum()) * min(count, N) ** others, others + 1)
    assert_same(groups, best_weights(list(plans), masses, count))
    assert float(groups.weights.sum()) == pytest.approx(1.0)


def test_one_best_match_is_the_argmax():
    plans = plans_of(2)
    expected = [[i, int(plans[0, i].argmax()), int(plans[1, i].argmax())] for i in range(N)]
    assert top_groups(plans, None, 1).members.tolist() == expected


def test_all_matches_are_the_star_coupling():
    plans = plans_of(2)
    assert_same(top_groups(plans, None, N), star_weights(list(plans), torch.full((N,), 1 / N, dtype=torch.float64)))


def test_columns_without_mass_are_in_no_group():
    anchor, other = unit_rows(N, 4, seed=1), unit_rows(N, 4, seed=2)
    b = torch.tensor([0.5, 0, 0, 0.5, 0], dtype=torch.float64)
    plan = reference.transport(anchor, other, None, b, epsilon=0.5).plan[None]
    for groups in (top_groups(plan, None, 4), sample_groups(plan, None, 50)):
        assert set(groups.members[:, 1].tolist()) == {0, 3}
        assert float(groups.weights.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("make", [top_groups, sample_groups])
def test_without_any_mass_there_are_no_groups(make):
    groups = make(torch.zeros(2, N, N), torch.zeros(N), 3)
    assert groups.members.shape == (0, 3)
    assert groups.weights.shape == (0,)


@pytest.mark.parametrize("make", [top_groups, sample_groups])
def test_a_nan_in_the_plans_is_seen_in_the_weights(make):
    plans = plans_of(2)
    plans[1, 2, 3] = torch.nan
    weights = make(plans, None, 2).weights
    assert bool(weights.isnan().any())


@pytest.mark.parametrize("given", [None, uneven()], ids=["uniform", "uneven"])
@pytest.mark.parametrize("others", [1, 2, 4])
def test_sampled_groups(others, given):
    plans = plans_of(others, given)
    masses = torch.full((N,), 1 / N, dtype=torch.float64) if given is None else given
    draws = 7
    groups = sample_groups(plans, given, draws)
    assert groups.members.shape == (int((masses > 0).sum()) * draws, others + 1)
    assert Counter(groups.members[:, 0].tolist()) == {i: draws for i in range(N) if masses[i] > 0}
    torch.testing.assert_close(groups.weights, masses[groups.members[:, 0]] / draws, rtol=1e-9, atol=0)


def test_weights_of_samples_make_up_for_plans_that_have_not_converged():
    """Rows of another mass than the marginal: the estimate stays one of the sum over the star weights."""
    plans = plans_of(2) * torch.linspace(0.5, 1.5, N, dtype=torch.float64)[:, None]
    exact = star_weights(list(plans), torch.full((N,), 1 / N, dtype=torch.float64))
    assert float(sample_groups(plans, None, 3).weights.sum()) == pytest.approx(float(sum(exact.values())))


def draw_many(plans, values, given=None, draws=200, rounds=100):
    """Estimates of the sum of weight times value, one of each round."""
    torch.manual_seed(5)
    estimates = []
    for _ in range(rounds):
        groups = sample_groups(plans, given, draws)
        chosen = torch.stack([values[tuple(member)] for member in groups.members.tolist()])
        estimates.append((groups.weights * chosen).sum())
    return torch.stack(estimates)


@pytest.mark.parametrize("given", [None, uneven()], ids=["uniform", "uneven"])
@pytest.mark.parametrize("others", [1, 2, 3])
def test_sampling_is_unbiased(others, given):
    plans = plans_of(others, given, epsilon=1.0)
    masses = torch.full((N,), 1 / N, dtype=torch.float64) if given is None else given
    generator = torch.Generator().manual_seed(3)
    values = torch.rand([N] * (others + 1), dtype=torch.float64, generator=generator)
    exact = sum(weight * values[group] for group, weight in star_weights(list(plans), masses).items())
    estimates = draw_many(plans, values, given, draws=20)
    error = float(estimates.std()) / math.sqrt(len(estimates))
    assert abs(float(estimates.mean() - exact)) < 4 * error
    assert error < 0.02 * float(exact)  # or the comparison would say nothing


def test_the_gradient_of_sampled_weights_is_unbiased():
    plans = plans_of(2, epsilon=1.0).requires_grad_()
    values = torch.rand(N, N, N, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    exact = sum(
        weight * values[group]
        for group, weight in star_weights(list(plans), torch.full((N,), 1 / N, dtype=torch.float64)).items()
    )
    (expected,) = torch.autograd.grad(exact, plans)
    gradients = [torch.autograd.grad(e, plans, retain_graph=True)[0] for e in draw_many(plans, values, rounds=60)]
    stacked = torch.stack(gradients)
    errors = stacked.std(dim=0) / math.sqrt(len(gradients))
    standardised = (stacked.mean(dim=0) - expected) / errors
    assert float(standardised.abs().max()) < 4.5  # the largest of 50
    assert float((errors / expected).median()) < 0.05


@pytest.mark.parametrize("count", [1, 3])
def test_the_gradient_of_kept_weights(count):
    plans = plans_of(2).requires_grad_()
    values = torch.rand(N, N, N, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def value(plans):
        groups = top_groups(plans, None, count)
        return (groups.weights * values[tuple(groups.members.T)]).sum()

    assert torch.autograd.gradcheck(value, (plans,))


def test_draws_follow_the_default_generator():
    plans = plans_of(2)
    state = torch.get_rng_state()
    first, second = sample_groups(plans, None, 4), sample_groups(plans, None, 4)
    assert not torch.equal(first.members, second.members)
    torch.set_rng_state(state)
    assert torch.equal(sample_groups(plans, None, 4).members, first.members)
    assert torch.equal(sample_groups(plans, None, 4).members, second.members)


@pytest.mark.parametrize("make", [top_groups, sample_groups])
@pytest.mark.parametrize("given", [None, uneven()], ids=["uniform", "uneven"])
def test_weights_of_single_precision_plans_are_computed_in_double(make, given):
    plans = plans_of(3, given).float()
    masses = None if given is None else given.float()
    torch.manual_seed(2)
    ours = make(plans, masses, 2)
    torch.manual_seed(2)
    exact = make(plans.double(), None if masses is None else masses.double(), 2)
    assert torch.equal(ours.members, exact.members)
    assert torch.equal(ours.weights, exact.weights)


def test_many_modalities_do_not_underflow():
    """1024 rows and 8 modalities in single precision: masses of 1e-24 per group, times 1e-3 per anchor."""
    plans = torch.full((7, 1024, 1024), 1 / 1024**2)
    groups = sample_groups(plans, None, 1)
    torch.testing.assert_close(groups.weights, torch.full((1024,), 1 / 1024, dtype=torch.float64))
    assert float(top_groups(plans, None, 1).weights.sum()) == pytest.approx(1.0)


def test_a_zero_entry_that_is_drawn_all_the_same_has_no_weight(monkeypatch):
    plans = plans_of(1)
    plans[0, 0, 1] = 0
    monkeypatch.setattr(torch, "multinomial", lambda chances, draws, replacement: torch.full((N, draws), 1))
    groups = sample_groups(plans, None, 2)
    assert 0 not in groups.members[:, 0].tolist()
    assert bool(torch.isfinite(groups.weights).all())


def test_conditionals():
    plans = plans_of(2, uneven())
    expected = plans / torch.where(uneven() > 0, uneven(), 1)[:, None]
    torch.testing.assert_close(conditionals(plans, uneven()), expected)
    torch.testing.assert_close(conditionals(plans, uneven()).sum(-1)[0], (uneven() > 0).double())
    assert torch.equal(conditionals(plans, None), plans * N)


def test_what_does_not_fit_is_refused_with_its_count():
    check_size(1024, 5, groups_module.MEMORY_BOUND // 1024, "objective.topk = 8", "lower it")
    message = r"objective.topk = 8 makes 8,388,608 groups of 5 modalities, about 2.0 GiB, more than the 1 GiB"
    with pytest.raises(UserError, match=message + ".*; lower it"):
        check_size(8_388_608, 5, 256, "objective.topk = 8", "lower it")
