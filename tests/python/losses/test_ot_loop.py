"""The loop of transport distances: closed forms, plain loops, its gradient through the plans, sets of any size."""

import math

import pytest
import torch

from cases.operators import unit_rows
from cases.star import embeddings, mixed, sets
from mover import ops, reference
from mover.config import TransportConfig
from mover.errors import UserError
from mover.losses import OTLoopLoss
from mover.losses.ot_loop import cycle_loss

NAMES = ("text", "video", "audio", "depth")
EPSILON = 0.5
EXACT = TransportConfig(epsilon=EPSILON, max_iter=20000, tol=0.0)
SIZES = (6, 4, 5, 3)


def some(k, sizes=SIZES, d=7):
    """Unit rows of k modalities, as many as `sizes` says."""
    return sets(dict(zip(NAMES[:k], sizes[:k], strict=True)), d)


def by_hand(rows, cycle):
    """Every sum of the definition as a loop; plans and values of the reference, differentiated by autograd."""
    k = len(rows)
    following = [(0, 1)] if k == 2 else [(m, (m + 1) % k) for m in range(k)]
    total = torch.zeros((), dtype=torch.float64)
    for p, q in following:
        total = total + reference.transport_value(rows[p], rows[q], epsilon=EPSILON)
        for own in (p, q):
            total = total - reference.transport_value(rows[own], rows[own], epsilon=EPSILON) / 2
    returns = []
    for i in range(len(rows[0])):
        chances = torch.nn.functional.one_hot(torch.tensor(i), len(rows[0])).double()
        for m in range(k):
            plan = reference.transport(rows[m], rows[(m + 1) % k], epsilon=EPSILON).plan
            chances = sum(chances[j] * plan[j] / sum(plan[j]) for j in range(len(plan)))
        returns.append(chances[i])
    return total - cycle * sum(chance.log() for chance in returns) / len(returns)


def assert_same(ours, theirs, leaves, tolerance=1e-8):
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    pairs = zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("sizes", [(5, 5, 5), SIZES], ids=["one size", "sizes"])
@pytest.mark.parametrize(("k", "cycle"), [(2, 0.7), (3, 0.7), (3, 0.0)])
def test_against_loops(k, sizes, cycle):
    z = some(k, sizes)
    loss = OTLoopLoss(NAMES[:k], EXACT, cycle=cycle)
    rows = list(z.values())
    assert_same(loss(z), by_hand(rows, cycle), rows)


def test_four_modalities_against_loops():
    z = some(4)
    assert_same(OTLoopLoss(NAMES, EXACT, cycle=0.7)(z), by_hand(list(z.values()), 0.7), list(z.values()))


@pytest.mark.parametrize("k", [2, 3, 4])
def test_equal_sets_have_no_distance(k):
    rows = unit_rows(6, 5, seed=3)
    z = {name: rows.clone().requires_grad_() for name in NAMES[:k]}
    value = OTLoopLoss(NAMES[:k], EXACT, cycle=0.0)(z)
    value.backward()
    assert abs(float(value.detach())) < 1e-12
    assert all(float(tensor.grad.abs().max()) < 1e-12 for tensor in z.values())


def test_equal_sets_at_the_defaults_in_single_precision():
    rows = unit_rows(64, 32, dtype=torch.float32, seed=3)
    value = OTLoopLoss(NAMES[:3], TransportConfig(), cycle=0.0)(dict.fromkeys(NAMES[:3], rows))
    assert abs(float(value)) < 1e-5


def test_moved_sets_are_as_far_as_they_were_moved():
    """The distance of a set from itself moved by t is |t|^2, whatever epsilon is."""
    rows, move = unit_rows(6, 5, seed=3), torch.linspace(0.1, 0.5, 5, dtype=torch.float64)
    two = OTLoopLoss(NAMES[:2], EXACT, cycle=0.0)({"text": rows, "video": rows + move})
    assert float(two) == pytest.approx(float(move @ move), abs=1e-12)
    three = OTLoopLoss(NAMES[:3], EXACT, cycle=0.0)({"text": rows, "video": rows + move, "audio": rows - move})
    assert float(three) == pytest.approx(6 * float(move @ move), abs=1e-12)  # 1 + 4 + 1


@pytest.mark.parametrize("k", [2, 3, 4])
def test_return_of_equal_orthonormal_sets(k):
    """T has p on its diagonal and equal entries beside it: T^k is known by its two eigenvalues."""
    n = 6
    z = {name: torch.eye(n, dtype=torch.float64) for name in NAMES[:k]}
    value = OTLoopLoss(NAMES[:k], EXACT, cycle=2.0)(z)
    p = 1 / (1 + (n - 1) * math.exp(-2 / EPSILON))
    eigenvalue = p - (1 - p) / (n - 1)
    assert float(value) == pytest.approx(-2 * math.log(1 / n + (1 - 1 / n) * eigenvalue**k), abs=1e-10)


@pytest.mark.parametrize("k", [2, 3])
def test_gradient_through_the_plans(k):
    z = some(k, (4, 3, 4), d=3)
    loss = OTLoopLoss(NAMES[:k], EXACT, cycle=1.5)
    names = tuple(z)
    assert torch.autograd.gradcheck(lambda *rows: loss(dict(zip(names, rows, strict=True))), tuple(z.values()))


def test_the_setting_of_the_mover_term_does_not_stop_the_gradient():
    z = some(3)
    losses = [OTLoopLoss(NAMES[:3], EXACT.model_copy(update={"plan_gradient": g})) for g in ("detached", "implicit")]
    found = [torch.autograd.grad(loss(z), list(z.values())) for loss in losses]
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("k", [2, 3, 4])
def test_masks_are_smaller_sets(k):
    z = embeddings(NAMES[:k], 6, 7)
    masks = {name: torch.rand(6, generator=torch.Generator().manual_seed(m)) > 0.4 for m, name in enumerate(z)}
    smaller = {name: rows[masks[name]] for name, rows in z.items()}
    assert len({len(rows) for rows in smaller.values()}) > 1
    loss = OTLoopLoss(NAMES[:k], EXACT)
    assert_same(loss(z, masks), loss(smaller), list(z.values()))


def test_masks_of_sets_of_different_sizes():
    z = some(3)
    masks = {"text": torch.tensor([1, 0, 1, 1, 1, 0]).bool(), "video": torch.tensor([1, 1, 0, 1]).bool()}
    smaller = {name: rows[masks[name]] if name in masks else rows for name, rows in z.items()}
    loss = OTLoopLoss(NAMES[:3], EXACT)
    assert_same(loss(z, masks), loss(smaller), list(z.values()))
    with pytest.raises(UserError, match=r"present\['video'\] must be a bool tensor of shape \(4,\)"):
        loss(z, {"video": torch.ones(6, dtype=torch.bool)})


@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_order_of_rows_does_not_matter(k):
    z = some(k)
    loss = OTLoopLoss(NAMES[:k], EXACT)
    other = mixed(z)
    assert not torch.equal(other["text"], z["text"])
    assert_same(loss(z), loss(other), list(z.values()))


@pytest.mark.parametrize("left", [0, 1])
def test_a_modality_with_too_few_rows_is_no_input(left):
    z = some(3, (6, left, 5))
    value = OTLoopLoss(NAMES[:3], EXACT)(z)
    value.backward()
    assert float(value.detach()) == 0
    assert all(torch.equal(rows.grad, torch.zeros_like(rows)) for rows in z.values())


def test_a_walk_that_never_returns_is_finite():
    """Over two permutations that do not undo each other."""
    plans = torch.stack([torch.eye(4).roll(1, 0) / 4, torch.eye(4) / 4, torch.eye(4) / 4]).requires_grad_()
    value = cycle_loss(plans, None)
    value.backward()
    assert float(value.detach()) == pytest.approx(-math.log(1e-12), rel=1e-6)
    assert not plans.grad.any()


def test_collapsed_rows_in_single_precision():
    """Every row the same: nobody knows where to return to, log B; no NaN in the gradient."""
    z = {name: torch.eye(4)[:1].repeat(5, 1).requires_grad_() for name in NAMES[:3]}
    value = OTLoopLoss(NAMES[:3], TransportConfig())(z)
    value.backward()
    assert float(value.detach()) == pytest.approx(math.log(5), rel=1e-5)
    assert all(bool(torch.isfinite(rows.grad).all()) for rows in z.values())


def test_autocast_does_not_reach_the_products():
    z = {name: rows.detach().float() for name, rows in some(4).items()}
    loss = OTLoopLoss(NAMES, TransportConfig())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = loss(z)
    assert torch.equal(under, loss(z))


def test_all_pairs_are_solved_in_one_call(monkeypatch):
    calls = []

    def counted(name):
        operator = getattr(ops, name)
        monkeypatch.setattr(
            ops, name, lambda x, *rest, **options: (calls.append(x.shape), operator(x, *rest, **options))[1]
        )

    counted("transport")
    counted("transport_value")
    OTLoopLoss(NAMES, EXACT)(some(4))
    assert calls == [(4, 6, 7), (4, 6, 7)]  # the pairs, and every modality with itself


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"needs at least two, got \['text'\]. Set objective.ot_loop to 0"):
        OTLoopLoss(["text"], EXACT)
    loss, z = OTLoopLoss(NAMES[:3], EXACT), some(3)
    with pytest.raises(UserError, match=r"\['audio'\] are missing"):
        loss({name: z[name] for name in NAMES[:2]})
    with pytest.raises(UserError, match=r"same shape \(B, d\)"):
        loss({**z, "audio": z["audio"][0]})
    with pytest.raises(UserError, match=r"same width.*'audio': \(5, 6\)"):
        loss({**z, "audio": z["audio"][:, :6]})
