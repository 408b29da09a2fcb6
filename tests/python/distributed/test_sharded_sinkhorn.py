"""Transport with its rows divided among processes, against that of one: plans, potentials, gradients, bits."""

import pytest
import torch
import torch.multiprocessing as mp

from cases.sharded_transport import DIVIDED, PROCESSES, WHOLE, broken, differentiated, problems, solve, weights
from mover import ops

pytestmark = pytest.mark.slow
SIZES = range(1, PROCESSES + 1)
NAMES = list(problems())


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each process found: rank → (number of processes, name) → result."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(solve, (str(folder),), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(PROCESSES)]


def same_bits(left, right):
    return torch.equal(left.nan_to_num(7.0), right.nan_to_num(7.0))


@pytest.mark.parametrize("name", [*NAMES, "broken"])
@pytest.mark.parametrize("size", SIZES)
def test_all_processes_return_the_same_bits(found, size, name):
    first, *others = (found[rank][size, name] for rank in range(size))
    for other in others:
        assert all(same_bits(one, another) for one, another in zip(first, other, strict=True))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "not to the end"])
@pytest.mark.parametrize("size", SIZES)
def test_agrees_with_one_process(found, size, name):
    problem, result = problems()[name], found[0][size, name]
    expected = ops.sinkhorn(*problem[:3], **problem.settings())
    single = problem.cost.dtype == torch.float32
    within = {"rtol": 0, "atol": 2e-5 if single else 1e-8 if name == "plain updates" else 1e-10}
    for one, other in zip(result[:3], expected[:3], strict=True):
        torch.testing.assert_close(one, other, **within)
    assert result.n_iter.dtype == torch.int32 and int(result.n_iter.max()) < problem.max_iter


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", SIZES)
def test_the_error_is_that_of_the_plan(found, size, name):
    problem, result = problems()[name], found[0][size, name]
    _, a, b, epsilon, tol, *_ = problem
    n, m = problem.cost.shape[1:]
    error = (result.plan.sum(2) - (1 / n if a is None else a)).abs().sum(1)
    error += (result.plan.sum(1) - (1 / m if b is None else b)).abs().sum(1)
    single = problem.cost.dtype == torch.float32
    torch.testing.assert_close(
        result.marginal_error, error, rtol=0, atol=5e-5 if single else 2e-13
    )  # exponents of 800 round
    if name == "not to the end":
        assert result.n_iter.tolist() == [7] * 3 and float(error.min()) > 1e-9
    else:
        assert float(result.marginal_error.max()) <= max(tol, max(2e-6, 4e-8 / epsilon) if single else 2e-13)


def test_plain_updates_stop_where_one_process_does(found):
    """One process takes the error after half an iteration, these after a whole: no later, and by one sooner at most."""
    problem = problems()["plain updates"]
    expected = ops.sinkhorn(*problem[:3], **problem.settings()).n_iter
    for size in SIZES:
        sooner = expected - found[0][size, "plain updates"].n_iter
        assert int(sooner.min()) >= 0 and int(sooner.max()) <= 1


@pytest.mark.parametrize("size", SIZES)
def test_masses_of_zero_get_no_plan_and_potentials_nonetheless(found, size):
    problem, result = problems()["far and missing"], found[0][size, "far and missing"]
    assert float(result.plan[problem.a == 0].abs().max()) == 0
    assert float(result.plan.mT[problem.b == 0].abs().max()) == 0
    assert all(tensor.isfinite().all() for tensor in result)
    torch.testing.assert_close((result.f * problem.a).sum(1), (result.g * problem.b).sum(1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_a_cost_that_is_not_a_number_spoils_its_own_pair_only(found, size):
    result, whole = found[size - 1][size, "broken"], problems()["three pairs"]
    expected = ops.sinkhorn(*whole[:3], **whole.settings())
    for one, other in zip((result.plan, result.f, result.g), expected[:3], strict=True):
        assert bool(one[1].isnan().all())
        torch.testing.assert_close(one[[0, 2]], other[[0, 2]], rtol=0, atol=1e-10)
    assert result.marginal_error.isnan().tolist() == [False, True, False]
    assert bool(ops.sinkhorn(*broken()[:3], **broken().settings()).plan[1].isnan().all())


@pytest.mark.parametrize("size", SIZES)
def test_processes_need_no_rows_but_their_own(found, size):
    plan = found[0][size, "more columns"].plan
    parts = [found[rank][size, "own rows"] for rank in range(size)]
    assert [rows.start for rows, _ in parts] == [9 * rank // size for rank in range(size)]
    torch.testing.assert_close(torch.cat([part for _, part in parts], dim=1), plan, rtol=0, atol=1e-14)


@pytest.mark.parametrize("size", SIZES)
def test_the_gradient_is_that_of_one_process(found, size):
    problem = differentiated()
    cost = problem.cost.clone().requires_grad_()
    plan = ops.sinkhorn(cost, *problem[1:3], **problem.settings()).plan
    (expected,) = torch.autograd.grad((plan * weights(cost)).sum(), cost)
    for rank in range(size):
        torch.testing.assert_close(found[rank][size, "gradient"], expected, rtol=0, atol=1e-10)


def test_losses_are_those_of_one_process(found):
    for rank in range(PROCESSES):
        (divided, calls), (whole, none) = found[rank][DIVIDED.shard_rows], found[rank][WHOLE.shard_rows]
        assert calls == 11 and none == 0  # of three losses one for each sort of clips, of ot_loop two; a partial plan
        assert divided.keys() == whole.keys() and len(whole) == 11
        for name, values in whole.items():
            for one, other in zip(divided[name], values, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-9, msg=name)
            assert all(map(torch.equal, divided[name], found[0][DIVIDED.shard_rows][0][name]))
