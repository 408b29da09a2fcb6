"""Cross entropy of scores: against log-sum-exp in torch, both denominators, gradients, extreme logits."""

import math

import pytest
import torch

from mover import ops, reference
from mover.losses.contrast import diagonal_cross_entropy, symmetric_cross_entropy

DTYPES = [torch.float32, torch.float64]
OPTIONS = [(0.0, "all"), (0.1, "all"), (0.0, "negatives"), (0.3, "negatives")]


def scores_of(*shape, dtype=torch.float64):
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("smoothing", "denominator"), OPTIONS)
@pytest.mark.parametrize("shape", [(2, 2), (31, 31), (32, 32), (33, 33), (2, 3, 70, 70), (257, 257)])
def test_value_and_gradient(shape, smoothing, denominator, dtype):
    options = {"label_smoothing": smoothing, "denominator": denominator}
    results = []
    for function, type_ in ((ops.contrast, dtype), (reference.contrast, torch.float64)):
        scores = scores_of(*shape, dtype=dtype).to(type_).requires_grad_()
        scale = torch.tensor(-14.0, dtype=type_, requires_grad=True)
        loss = function(scores, scale, **options)
        upstream = scores_of(*shape[:-2], dtype=type_)
        results.append([loss, *torch.autograd.grad(loss, (scores, scale), upstream)])
    tolerance = 2e-6 if dtype == torch.float32 else 1e-13
    for one, exact in zip(*results, strict=True):
        assert one.dtype == dtype
        assert float((one - exact).abs().max()) <= tolerance * max(1.0, float(exact.abs().max()))


@pytest.mark.parametrize(("smoothing", "denominator"), OPTIONS)
def test_gradcheck(smoothing, denominator):
    inputs = scores_of(2, 5, 5).requires_grad_(), torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda scores, scale: ops.contrast(scores, scale, label_smoothing=smoothing, denominator=denominator), inputs
    )


def test_known_values():
    assert float(ops.contrast(torch.zeros(4, 4))) == pytest.approx(math.log(4))
    assert float(ops.contrast(torch.zeros(4, 4), denominator="negatives")) == pytest.approx(math.log(3))
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    assert float(ops.contrast(logits)) == pytest.approx(math.log(1 + math.exp(-2)))
    assert float(ops.contrast(logits / 4, torch.tensor(4.0))) == pytest.approx(math.log(1 + math.exp(-2)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_extreme_logits(shift, dtype):
    """Hundreds apart and far from 0: no overflow, the largest decide."""
    far = 200 * (torch.arange(80) % 3)[:, None]  # rows of one block far from each other
    logits = 300 * scores_of(80, 80) + far + shift
    logits = logits.to(dtype).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    loss, expected = ops.contrast(logits), reference.contrast(exact)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6 if dtype == torch.float32 else 1e-12)
    loss.backward()
    expected.backward()
    tolerance = (1e-3 if shift else 1e-4) if dtype == torch.float32 else 1e-10  # of the logits themselves
    assert float((logits.grad - exact.grad).abs().max()) <= tolerance / 80


def test_the_transpose_has_the_same_loss():
    scores = scores_of(3, 50, 50)
    torch.testing.assert_close(ops.contrast(scores), ops.contrast(scores.mT))


def test_nan_stays_in_its_problem():
    scores = scores_of(4, 40, 40)
    clean = ops.contrast(scores)
    scores[2, 7, 9] = torch.nan
    losses = ops.contrast(scores)
    assert bool(losses[2].isnan())
    assert torch.equal(losses[[0, 1, 3]], clean[[0, 1, 3]])


@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_it_is_the_cross_entropy_of_both_directions(denominator):
    scores, scale = scores_of(2, 20, 20), torch.tensor(5.0, dtype=torch.float64)
    rows, columns = (diagonal_cross_entropy(scale * s, 0.1, denominator) for s in (scores, scores.mT))
    torch.testing.assert_close(symmetric_cross_entropy(scores, 0.1, denominator, scale=scale), (rows + columns) / 2)


def test_one_row_and_no_problem():
    assert float(ops.contrast(torch.full((1, 1), 3.0))) == 0
    assert ops.contrast(torch.ones(0, 4, 4)).shape == (0,)
