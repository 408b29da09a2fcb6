"""Equation 8, recomputed with loops."""

import pytest
import torch

from cases.operators import unit_rows
from mover import reference
from mover.config import TransportConfig
from mover.errors import UserError
from mover.losses import MoverLoss

EXACT = TransportConfig(epsilon=0.2, max_iter=20000, tol=0.0)
THREE = ("text", "video", "audio")


def with_loops(z, names):
    """Star coupling of the plans from the first modality, summed group by group."""
    anchor, *others = (z[name] for name in names)
    n = anchor.shape[0]
    plans = [reference.transport(anchor, other, epsilon=0.2).plan for other in others]
    total = torch.zeros((), dtype=torch.float64)
    mass = 0.0
    for i in range(n):
        if len(others) == 1:
            groups = [((i, j), plans[0][i, j]) for j in range(n)]
        else:
            groups = [((i, j, k), plans[0][i, j] * plans[1][i, k] * n) for j in range(n) for k in range(n)]
        for indices, weight in groups:
            rows = [tensor[index] for tensor, index in zip((anchor, *others), indices, strict=True)]
            total = total + weight.detach() * reference.volume(torch.stack(rows))
            mass += float(weight.detach())
    assert mass == pytest.approx(1.0)
    return total


@pytest.mark.parametrize("names", [("text", "video"), ("video", "audio", "text"), THREE])
def test_against_loops(z, names):
    loss = MoverLoss(sorted(names), names[0], EXACT)
    assert loss.modalities == [names[0], *sorted(names[1:])]
    value = loss(z)
    expected = with_loops(z, loss.modalities)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    leaves = [z[name] for name in names]
    grads, exact = torch.autograd.grad(value, leaves), torch.autograd.grad(expected, leaves)
    for leaf, ours, theirs in zip(leaves, grads, exact, strict=True):
        # volumes of unit rows: only the part along the sphere is defined
        tangent = [g - (g * leaf).sum(1, keepdim=True) * leaf for g in (ours, theirs)]
        torch.testing.assert_close(*tangent, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("names", [("text", "video"), THREE])
def test_implicit_plan_gradient(z, names):
    """gradcheck through the plan; detached, the gradient is another one."""
    raw = [
        torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(len(names))
    ]
    leaves = [tensor.requires_grad_() for tensor in raw]

    def loss(config):
        term = MoverLoss(names, names[0], config)
        return lambda *rows: term(
            {n: torch.nn.functional.normalize(r, dim=1) for n, r in zip(names, rows, strict=True)}
        )

    implicit = loss(EXACT.model_copy(update={"plan_gradient": "implicit"}))
    assert torch.autograd.gradcheck(implicit, leaves)
    one = torch.autograd.grad(implicit(*leaves), leaves)[0]
    other = torch.autograd.grad(loss(EXACT)(*leaves), leaves)[0]
    assert float((one - other).norm() / one.norm()) > 1e-2


def test_it_is_a_mean_volume():
    rows = torch.eye(4, 6, dtype=torch.float32)
    aligned = MoverLoss(THREE, "text", TransportConfig(epsilon=0.01))(dict.fromkeys(THREE, rows))
    assert float(aligned) < 1e-3
    z = {name: unit_rows(16, 512, dtype=torch.float32, seed=i) for i, name in enumerate(THREE)}
    assert 0.9 < float(MoverLoss(THREE, "text", TransportConfig())(z)) <= 1.0


def test_mean_volume_of_clips_in_any_order():
    z = {name: unit_rows(6, 8, seed=i) for i, name in enumerate(THREE)}
    shuffled = {name: rows[torch.randperm(6)] for name, rows in z.items()}
    loss = MoverLoss(THREE, "text", EXACT)
    torch.testing.assert_close(loss(z), loss(shuffled), rtol=1e-9, atol=1e-12)


def test_more_than_three_modalities_are_refused():
    with pytest.raises(UserError, match="at most 3 modalities, got 4"):
        MoverLoss(("text", "video", "audio", "depth"), "text", TransportConfig())


def test_an_unknown_anchor_is_refused():
    with pytest.raises(UserError, match="'audio' is not among the modalities"):
        MoverLoss(("text", "video"), "audio", TransportConfig())
