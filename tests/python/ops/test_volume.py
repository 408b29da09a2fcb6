"""Volumes known to 25 digits, degenerate groups, gradients, and the sum over all triples."""

import pytest
import torch
import torch.nn.functional as F

from cases.operators import masses, unit_rows
from cases.tolerance import assert_accurate
from cases.volumes import EQUICORRELATED, VOLUME_CASES
from mover import ops, reference

IDS = {"argvalues": VOLUME_CASES, "ids": lambda case: case.name}
DEGENERATE = ("duplicates", "opposite", "all equal", "k>d")


def tolerance_of(case, dtype):
    """The rounding of the result in its type, and what the subtraction of rows costs in float64."""
    hard = case.scale is not None and not case.name.startswith("near")  # duppair, coplanar
    inner = {None: 1e-10, 1024.0: 1e-9, 65536.0: 1e-6}[case.scale] if hard or case.scale is None else 1e-9
    return max(inner, 1e-6 if dtype == torch.float32 else 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", **IDS)
def test_known_volumes_from_integer_vectors(case, dtype):
    norms = case.vectors.norm(dim=1).prod()
    volume = ops.volume(case.vectors.to(dtype)).double() / norms
    assert float(volume) == pytest.approx(case.volume, rel=tolerance_of(case, dtype), abs=0)


@pytest.mark.parametrize("case", **IDS)
def test_known_volumes_from_unit_rows(case):
    unit = case.vectors / case.vectors.norm(dim=1, keepdim=True)
    tolerance = 1e-5 if case.name == "coplanar S=65536" else 1e-9  # the rounding of the rows themselves
    assert float(ops.volume(unit)) == pytest.approx(case.volume, rel=tolerance, abs=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", **IDS)
def test_known_gradients(case, dtype):
    vectors = case.vectors.to(dtype).clone().requires_grad_()
    ops.volume(vectors).backward()
    if case.gradient_norms is None:
        assert torch.equal(vectors.grad, torch.zeros_like(vectors))
        return
    norms = case.vectors.norm(dim=1, keepdim=True)
    unit = case.vectors / norms
    gradient = vectors.grad.double() * norms / norms.prod()  # with respect to the unit rows
    tangent = gradient - (gradient * unit).sum(1, keepdim=True) * unit
    tolerance = tolerance_of(case, dtype)
    for row, norm, head in zip(tangent, case.gradient_norms, case.gradient_heads, strict=True):
        assert float(row.norm()) == pytest.approx(norm, rel=2 * tolerance, abs=1e-9)
        torch.testing.assert_close(
            row[: len(head)], torch.tensor(head, dtype=torch.float64), rtol=0, atol=2 * tolerance * max(norm, 1e-3)
        )


@pytest.mark.parametrize(("k", "c", "volume", "logdet"), EQUICORRELATED)
def test_equicorrelated_groups(k, c, volume, logdet):
    matrix = torch.full((k, k), c, dtype=torch.float64).fill_diagonal_(1)
    vectors = torch.linalg.cholesky(matrix)
    assert float(ops.volume(vectors)) == pytest.approx(volume, rel=1e-15 * k * k / (1 - c) + 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", range(1, 9))
def test_values(k, dtype):
    v = unit_rows(40, k, 19, dtype=dtype) * 2
    gram = v @ v.mT
    plain = torch.linalg.det(gram).clamp(min=0).sqrt()
    assert_accurate(ops.volume(v), plain, reference.volume(v))


@pytest.mark.parametrize("eps", [0.0, 1e-2])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
def test_gradient(k, eps):
    v = unit_rows(2, k, 9, seed=k).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: ops.volume(v, eps), (v,))


def test_eps_smooths_degenerate_groups():
    v = torch.ones(2, 3, 4, requires_grad=True)
    volume = ops.volume(v, eps=0.25)
    torch.testing.assert_close(volume, torch.full((2,), 0.25))
    volume.sum().backward()
    assert torch.equal(v.grad, torch.zeros_like(v))
    v = unit_rows(3, 4)
    expected = (ops.volume(v).square() + 0.01).sqrt()
    torch.testing.assert_close(ops.volume(v, 0.1), expected)


def test_the_gradient_is_the_volume_of_the_others():
    v = unit_rows(4, 9).requires_grad_()
    ops.volume(v).backward()
    for i in range(4):
        others = torch.cat([v[:i], v[i + 1 :]]).detach()
        assert float(v.grad[i].norm()) == pytest.approx(float(ops.volume(others)), rel=1e-10)


def test_invariants():
    v = unit_rows(10, 4, 7)
    base = ops.volume(v)
    torch.testing.assert_close(ops.volume(v[:, [2, 0, 3, 1]]), base)
    torch.testing.assert_close(ops.volume(v * torch.tensor([1.0, -1.0, 2.0, 1.0]).double()[:, None]), 2 * base)
    rotation = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64)).Q
    torch.testing.assert_close(ops.volume(v @ rotation), base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nan_stays_in_its_group(dtype):
    v = unit_rows(5, 3, 6, dtype=dtype)
    clean = ops.volume(v)
    v[2, 1, 0] = torch.nan
    result = ops.volume(v)
    assert bool(torch.isnan(result[2]))
    keep = [0, 1, 3, 4]
    assert torch.equal(result[keep], clean[keep])


def test_empty():
    assert ops.volume(torch.ones(0, 3, 4)).shape == (0,)
    assert torch.equal(ops.volume(torch.ones(2, 3, 0)), torch.zeros(2))
    assert ops.volume(torch.ones(4, 3)).shape == ()


def triple(n1, n2, n3, d=9, dtype=torch.float64):
    sets = [unit_rows(n, d, seed=seed) for seed, n in enumerate((n1, n2, n3))]
    costs = [reference.cost(sets[i], sets[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    weights = [masses(*cost.shape, seed=i) - 0.05 for i, cost in enumerate(costs)]
    return sets, [cost.to(dtype) for cost in costs], [weight.to(dtype) for weight in weights]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 4, 5), (31, 33, 32), (17, 65, 8)])
def test_expected_volume(sizes, dtype):
    _, costs, weights = triple(*sizes, dtype=dtype)
    exact = reference.expected_volume(*costs, *weights)
    scale = reference.expected_volume(*costs, *(weight.abs() for weight in weights))
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    assert abs(float(ops.expected_volume(*costs, *weights)) - float(exact)) <= tolerance * float(scale)


def test_expected_volume_is_the_mean_volume_of_stacked_groups():
    (x, y, z), costs, _ = triple(4, 5, 6)
    total = sum(float(reference.volume(torch.stack([a, b, c]))) for a in x for b in y for c in z)
    assert float(ops.expected_volume(*costs)) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("absent", [(), (0,), (1, 2), (0, 1, 2)])
def test_absent_weights_are_ones(absent):
    _, costs, weights = triple(4, 5, 6)
    given = [None if i in absent else weight for i, weight in enumerate(weights)]
    ones = [torch.ones_like(weight) if i in absent else weight for i, weight in enumerate(weights)]
    torch.testing.assert_close(ops.expected_volume(*costs, *given), ops.expected_volume(*costs, *ones))


@pytest.mark.parametrize("absent", [(), (2,), (0, 1, 2)])
def test_expected_volume_gradient(absent):
    _, costs, weights = triple(3, 4, 5)
    inputs = [cost.requires_grad_() for cost in costs]
    inputs += [None if i in absent else weight.requires_grad_() for i, weight in enumerate(weights)]
    assert torch.autograd.gradcheck(ops.expected_volume, inputs)


def test_expected_volume_gradient_in_single():
    _, costs, weights = triple(20, 30, 25)
    grads = []
    for dtype in (torch.float32, torch.float64):
        inputs = [tensor.to(dtype).detach().requires_grad_() for tensor in (*costs, *weights)]
        ops.expected_volume(*inputs).backward()
        grads.append([tensor.grad for tensor in inputs])
    for single, double in zip(*grads, strict=True):
        assert float((single - double).abs().max()) <= 1e-5 * float(double.abs().max())


def test_expected_volume_of_equal_rows_is_zero_with_finite_gradient():
    x = F.normalize(torch.randn(1, 8), dim=1).expand(5, 8)
    costs = [ops.cost(x, x).requires_grad_() for _ in range(3)]
    value = ops.expected_volume(*costs)
    assert value.item() == 0
    value.backward()
    assert all(torch.equal(cost.grad, torch.zeros(5, 5)) for cost in costs)


def test_expected_volume_of_nothing_is_zero():
    assert float(ops.expected_volume(torch.ones(0, 3), torch.ones(0, 4), torch.ones(3, 4))) == 0
    assert float(ops.expected_volume(torch.ones(2, 0), torch.ones(2, 4), torch.ones(0, 4))) == 0
