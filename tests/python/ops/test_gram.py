"""Gram matrices and log-determinants."""

import pytest
import torch

from cases.operators import unit_rows
from cases.tolerance import assert_accurate
from cases.volumes import EQUICORRELATED, VOLUME_CASES
from mover import ops, reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("k", "d"), [(1, 1), (2, 3), (3, 33), (8, 129), (33, 17)])
def test_gram_values(k, d, dtype):
    v = unit_rows(3, k, d, dtype=dtype) * 5
    gram = ops.gram(v)
    assert_accurate(gram, v @ v.mT, reference.gram(v))
    assert torch.equal(gram, gram.mT)


def test_gram_gradient():
    v = unit_rows(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(ops.gram, (v,))


@pytest.mark.parametrize(("k", "c", "volume", "logdet"), EQUICORRELATED)
def test_equicorrelated_logdet(k, c, volume, logdet):
    matrix = torch.full((k, k), c, dtype=torch.float64).fill_diagonal_(1)
    result = ops.logdet(matrix)
    # a rounding of c alone moves the logarithm by about eps / (1 - c)
    tolerance = 1e-15 * k * k / (1 - c)
    assert float(result.logdet) == pytest.approx(logdet, abs=1e-13 + tolerance, rel=1e-13)
    assert int(result.info) == 0
    single = ops.logdet(matrix.float())
    assert float(single.logdet) == pytest.approx(logdet, abs=1e-6 + 1e-7 * k * k / (1 - c), rel=1e-6)


@pytest.mark.parametrize("case", [case for case in VOLUME_CASES if case.name.startswith("int")], ids=lambda c: c.name)
def test_logdet_of_known_groups(case):
    unit = case.vectors / case.vectors.norm(dim=1, keepdim=True)
    assert float(ops.logdet(ops.gram(unit)).logdet) == pytest.approx(case.logdet, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 5, 8, 9, 20])
def test_logdet_gradient(k):
    v = unit_rows(2, k, k + 3)
    g = (v @ v.mT + 0.1 * torch.eye(k, dtype=torch.float64)).requires_grad_()

    def of_symmetric(matrix):
        return ops.logdet((matrix + matrix.mT) / 2).logdet

    assert torch.autograd.gradcheck(of_symmetric, (g,))
    grad = torch.autograd.grad(ops.logdet(g).logdet.sum(), g)[0]
    torch.testing.assert_close(grad, torch.linalg.inv(g.detach()), rtol=1e-9, atol=1e-10)


def test_only_the_lower_triangle_is_read():
    g = ops.gram(unit_rows(4, 6))
    spoilt = g.tril() + torch.full((4, 4), torch.nan, dtype=torch.float64).triu(1)
    assert torch.equal(ops.logdet(g).logdet, ops.logdet(spoilt).logdet)


def test_not_positive_definite_is_data_not_an_error():
    good = ops.gram(unit_rows(3, 5))
    bad = torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))
    g = torch.stack([good, bad, torch.zeros(3, 3, dtype=torch.float64)]).requires_grad_()
    result = ops.logdet(g)
    assert result.info.tolist() == [0, 2, 1]
    assert result.info.dtype == torch.int32
    assert result.logdet[1:].tolist() == [-torch.inf, -torch.inf]
    result.logdet[0].backward()
    assert torch.equal(g.grad[1:], torch.zeros(2, 3, 3, dtype=torch.float64))
    assert g.grad[0].abs().max() > 0
    expected = reference.logdet(g.detach())
    torch.testing.assert_close(result.logdet, expected.logdet)
    assert torch.equal(result.info, expected.info)


def test_nan_stays_in_its_matrix():
    g = ops.gram(unit_rows(3, 2, 4)).repeat(1, 1, 1)
    clean = ops.logdet(g).logdet
    g[1, 1, 0] = torch.nan
    result = ops.logdet(g).logdet
    assert bool(torch.isnan(result[1]))
    assert torch.equal(result[[0, 2]], clean[[0, 2]])


def test_empty():
    assert ops.gram(torch.ones(0, 3, 4)).shape == (0, 3, 3)
    assert torch.equal(ops.gram(torch.ones(2, 3, 0)), torch.zeros(2, 3, 3))
    assert ops.logdet(torch.ones(0, 3, 3)).logdet.shape == (0,)
