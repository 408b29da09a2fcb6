"""The barycenter: closed forms, plain loops, the gradient at a fixed barycenter, sets of any size."""

import math
from itertools import pairwise

import pytest
import torch

from cases.operators import unit_rows
from cases.star import embeddings, mixed, sets
from mover import ops, reference
from mover.config import TransportConfig
from mover.errors import UserError
from mover.losses import OTBarycenterLoss

NAMES = ("text", "video", "audio", "depth")
EPSILON = 0.5
EXACT = TransportConfig(epsilon=EPSILON, max_iter=20000, tol=0.0)
SIZES = (4, 6, 5, 3)


def some(k, sizes=SIZES, d=7):
    """Unit rows of k modalities, as many as `sizes` says."""
    return sets(dict(zip(NAMES[:k], sizes[:k], strict=True)), d)


def by_hand(rows, rounds):
    """The value, and its gradient at a fixed barycenter, every sum as a loop; rows[0] is the anchor's."""
    rows = [tensor.detach() for tensor in rows]
    k, center = len(rows), rows[0]
    plans = []
    for step in range(rounds + 1):
        plans = [reference.transport(tensor, center, epsilon=EPSILON).plan for tensor in rows]
        if step < rounds:
            center = torch.stack(
                [
                    sum(
                        plan[i, j] * tensor[i]
                        for plan, tensor in zip(plans, rows, strict=True)
                        for i in range(len(tensor))
                    )
                    / (k * (1 / len(center)))
                    for j in range(len(center))
                ]
            )
    value = sum(reference.transport_value(tensor, center, epsilon=EPSILON) for tensor in rows) / k
    gradients = [
        torch.stack(
            [2 / k * sum(plan[i, j] * (row - center[j]) for j in range(len(center))) for i, row in enumerate(tensor)]
        )
        for plan, tensor in zip(plans, rows, strict=True)
    ]
    return value, gradients


def value_and_gradients(loss, z, present=None):
    value = loss(z, present)
    return value.detach(), torch.autograd.grad(value, list(z.values()))


def assert_same(ours, theirs):
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-9, atol=1e-11)
    for one, other in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("sizes", [(5, 5, 5, 5), SIZES], ids=["one size", "sizes"])
@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("rounds", [1, 3])
def test_against_loops(k, sizes, rounds):
    z = some(k, sizes)
    loss = OTBarycenterLoss(NAMES[:k], "text", EXACT, rounds=rounds)
    assert_same(value_and_gradients(loss, z), by_hand(list(z.values()), rounds))


def test_it_starts_from_the_anchor():
    z = some(3)
    order = ("audio", "text", "video")
    value, (audio, text, video) = by_hand([z[name] for name in order], 1)
    loss = OTBarycenterLoss(NAMES[:3], "audio", EXACT, rounds=1)
    assert_same(value_and_gradients(loss, z), (value, [text, video, audio]))
    other = OTBarycenterLoss(NAMES[:3], "text", EXACT, rounds=1)
    assert abs(float((other(z) - loss(z)).detach())) > 1e-4


@pytest.mark.parametrize("rounds", [1, 5])
def test_moved_sets_meet_in_the_middle(rounds):
    """Far points and a small epsilon: Y lies at the mean of the moves, at R = mean |t_m - t|^2 + eps log B."""
    rows = 10 * torch.eye(4, 5, dtype=torch.float64)
    moves = 0.3 * unit_rows(3, 5, seed=1)
    z = {name: (rows + move).requires_grad_() for name, move in zip(NAMES, moves, strict=False)}
    loss = OTBarycenterLoss(NAMES[:3], "text", TransportConfig(epsilon=0.1, tol=1e-12), rounds=rounds)
    center = loss.barycenter(torch.stack(list(z.values())), None)
    torch.testing.assert_close(center, rows + moves.mean(0), rtol=0, atol=1e-9)
    spread = (moves - moves.mean(0)).square().sum(1).mean()
    assert float(loss(z).detach()) == pytest.approx(float(spread) + 0.1 * math.log(4), abs=1e-9)


def test_more_rounds_never_raise_the_value():
    """Each round minimises over Y at fixed plans, and new plans over the plans at fixed Y."""
    z = some(4)
    values = [float(OTBarycenterLoss(NAMES, "text", EXACT, rounds=r)(z).detach()) for r in range(1, 6)]
    assert all(after < before for before, after in pairwise(values))


def test_the_barycenter_is_held_fixed():
    """The gradient is that of sum_m OT(P_m, Y) / k with Y a constant: finite differences at that Y."""
    z = {name: rows.detach() for name, rows in some(2, (4, 3), d=3).items()}
    loss = OTBarycenterLoss(NAMES[:2], "text", EXACT, rounds=2)
    center = {}

    def once(rows, masses, original=loss.barycenter):
        if "found" not in center:
            center["found"] = original(rows, masses)
        return center["found"]

    loss.barycenter = once
    leaves = tuple(rows.requires_grad_() for rows in z.values())
    assert torch.autograd.gradcheck(lambda *rows: loss(dict(zip(NAMES, rows, strict=False))), leaves)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_masks_are_smaller_sets(k):
    z = embeddings(NAMES[:k], 6, 7)
    masks = {name: torch.rand(6, generator=torch.Generator().manual_seed(m)) > 0.4 for m, name in enumerate(z)}
    smaller = {name: rows.detach()[masks[name]].requires_grad_() for name, rows in z.items()}
    assert len({len(rows) for rows in smaller.values()}) > 1
    loss = OTBarycenterLoss(NAMES[:k], "text", EXACT)
    value, gradients = value_and_gradients(loss, z, masks)
    kept = [gradient[mask] for gradient, mask in zip(gradients, masks.values(), strict=True)]
    assert_same((value, kept), value_and_gradients(loss, smaller))
    assert not any(gradient[~mask].any() for gradient, mask in zip(gradients, masks.values(), strict=True))


@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_order_of_rows_does_not_matter(k):
    z = some(k)
    loss = OTBarycenterLoss(NAMES[:k], "text", EXACT)
    other = mixed(z)
    assert not torch.equal(other["text"], z["text"])
    leaves = list(z.values())
    ours, theirs = loss(z), loss(other)
    grads = [torch.autograd.grad(value, leaves) for value in (ours, theirs)]
    assert_same((ours, grads[0]), (theirs, grads[1]))


@pytest.mark.parametrize("sizes", [(6, 0, 5), (0, 6, 5), (6, 1, 5)])
def test_a_modality_with_too_few_rows_is_no_input(sizes):
    z = some(3, sizes)
    value = OTBarycenterLoss(NAMES[:3], "text", EXACT)(z)
    value.backward()
    assert float(value.detach()) == 0
    assert all(torch.equal(rows.grad, torch.zeros_like(rows)) for rows in z.values())


def test_collapsed_rows_in_single_precision():
    z = {name: torch.eye(4)[:1].repeat(5, 1).requires_grad_() for name in NAMES[:3]}
    value = OTBarycenterLoss(NAMES[:3], "text", TransportConfig())(z)
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-6)
    assert all(bool(torch.isfinite(rows.grad).all()) for rows in z.values())


def test_autocast_does_not_reach_the_products():
    z = {name: rows.detach().float() for name, rows in some(4).items()}
    loss = OTBarycenterLoss(NAMES, "text", TransportConfig())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = loss(z)
    assert torch.equal(under, loss(z))


@pytest.mark.parametrize("rounds", [1, 4])
def test_one_call_for_all_modalities_of_a_round(monkeypatch, rounds):
    calls = []
    transport = ops.transport
    monkeypatch.setattr(ops, "transport", lambda x, *rest, **o: (calls.append(x.shape), transport(x, *rest, **o))[1])
    OTBarycenterLoss(NAMES, "text", EXACT, rounds=rounds)(some(4))
    assert calls == [(4, 6, 7)] * rounds


def test_what_does_not_fit_is_refused():
    for rounds in (0, 6):
        with pytest.raises(UserError, match=f"objective.barycenter_rounds: expected 1 to 5, got {rounds}"):
            OTBarycenterLoss(NAMES, "text", EXACT, rounds=rounds)
    with pytest.raises(UserError, match=r"needs at least two, got \['text'\]"):
        OTBarycenterLoss(["text"], "text", EXACT)
    with pytest.raises(UserError, match="'thermal' is not among"):
        OTBarycenterLoss(NAMES, "thermal", EXACT)
