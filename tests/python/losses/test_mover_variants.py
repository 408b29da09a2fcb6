"""Equation 8 by other couplings, measures and anchors, recomputed with loops."""

import pytest
import torch
from torch.nn.functional import normalize

from cases.star import (
    best_weights,
    coupled,
    embeddings,
    star_weights,
    tangent,
    weighted_cosine_distance,
    weighted_log_volume,
    weighted_volume,
)
from mover import reference
from mover.config import TransportConfig
from mover.errors import UserError
from mover.losses import MoverLoss
from mover.losses import groups as groups_module

EXACT = TransportConfig(epsilon=0.5, max_iter=20000, tol=0.0)
THREE = ("text", "video", "audio")
NAMES = (*THREE, "depth", "thermal")
PATTERN = {"text": [1, 1, 0, 1, 1], "video": [1, 0, 1, 1, 1], "audio": [0, 1, 1, 1, 0], "depth": [1, 1, 1, 0, 1]}
MEASURES = {"volume": weighted_volume, "log": weighted_log_volume, "cosine": weighted_cosine_distance}


def presence(names, missing):
    return {name: torch.tensor(PATTERN[name]).bool() | (not missing) for name in names}


def by_loops(z, present, names, kept, measure, **how):
    """Group by group, with the first of `names` as the anchor; the weights are detached."""
    rows = [z[name] for name in names]
    plans, masses = coupled(rows, [present[name] for name in names], EXACT.epsilon, **how)
    weights = {group: weight for group, weight in kept([p.detach() for p in plans], masses).items() if weight > 0}
    assert float(sum(weights.values())) == pytest.approx(1.0)
    return MEASURES[measure](rows, weights)


def two_best(plans, masses):
    return best_weights(plans, masses, 2)


def assert_agree(value, expected, leaves):
    """The values, and the part of the gradients along the sphere."""
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    grads, exact = (torch.autograd.grad(v, leaves, retain_graph=True) for v in (value, expected))
    for leaf, ours, theirs in zip(leaves, grads, exact, strict=True):
        torch.testing.assert_close(tangent(ours, leaf), tangent(theirs, leaf), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize("coupling", ["transport", "softmax"])
@pytest.mark.parametrize(
    ("k", "volume", "groups"),
    [
        (2, "volume", "all"),
        (3, "volume", "all"),
        (4, "volume", "topk"),
        (2, "log", "all"),
        (3, "log", "topk"),
        (2, "cosine", "all"),
        (3, "cosine", "all"),
        (4, "cosine", "all"),
        (3, "cosine", "topk"),
        (4, "cosine", "topk"),
    ],
)
def test_couplings_and_measures_against_loops(k, volume, groups, coupling, missing):
    names = NAMES[:k]
    z, present = embeddings(names, 5, 7), presence(names, missing)
    loss = MoverLoss(names, "text", EXACT, groups=groups, topk=2, volume=volume, coupling=coupling)
    kept = star_weights if groups == "all" else two_best
    expected = by_loops(z, present, names, kept, volume, coupling=coupling)
    assert_agree(loss(z, present), expected, list(z.values()))


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize("coupling", ["transport", "softmax"])
@pytest.mark.parametrize(("aligned", "k"), [(None, 3), (2, 2), (2, 3), (2, 4), (0, 3)])
def test_known_pairs_against_loops(k, aligned, coupling, missing):
    """The plans are those of the lowered costs, the volumes those of the rows."""
    names = NAMES[:k]
    z, present = embeddings(names, 5, 7), presence(names, missing)
    config = EXACT.model_copy(update={"guide": 0.8})
    loss = MoverLoss(names, "text", config, groups="all" if k < 4 else "hard", coupling=coupling)
    kept = star_weights if k < 4 else lambda plans, masses: best_weights(plans, masses, 1)
    expected = by_loops(z, present, names, kept, "volume", coupling=coupling, guide=0.8, aligned=aligned)
    value = loss(z, present, aligned=aligned)
    assert_agree(value, expected, list(z.values()))
    if aligned == 0:
        unguided = MoverLoss(names, "text", EXACT, coupling=coupling)(z, present)
        torch.testing.assert_close(value, unguided, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize(("k", "volume"), [(2, "volume"), (3, "volume"), (4, "volume"), (3, "cosine")])
def test_anchors_against_loops(k, volume, missing):
    names = NAMES[:k]
    z, present = embeddings(names, 5, 7), presence(names, missing)
    kept = two_best if k == 4 else star_weights
    turns = [["video", *(m for m in names if m != "video")]]
    turns += [[name, "video", *(m for m in names if m not in (name, "video"))] for name in names if name != "video"]
    expected = [by_loops(z, present, turn, kept, volume) for turn in turns]
    loss = {
        anchoring: MoverLoss(names, "video", EXACT, topk=2, volume=volume, anchoring=anchoring)
        for anchoring in ("fixed", "rotating", "all")
    }
    leaves = list(z.values())
    for step in (0, k + 1):
        assert_agree(loss["rotating"](z, present, step=step), expected[step % k], leaves)
        assert_agree(loss["fixed"](z, present, step=step), expected[0], leaves)
        assert_agree(loss["all"](z, present, step=step), sum(expected) / k, leaves)


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
def test_cyclic_cosines_against_loops(missing):
    z, present = embeddings(THREE, 5, 7), presence(THREE, missing)
    rows, masks = [z[name] for name in THREE], [present[name] for name in THREE]
    (p12, p13), _ = coupled(rows, masks, EXACT.epsilon)
    (p23,), _ = coupled(rows[1:], masks[1:], EXACT.epsilon)
    products = {
        (i, j, m): (p12[i, j] * p13[i, m] * p23[j, m]).detach() for i in range(5) for j in range(5) for m in range(5)
    }
    total = sum(products.values())
    expected = weighted_cosine_distance(rows, {group: weight / total for group, weight in products.items()})
    loss = MoverLoss(THREE, "text", EXACT, weights="cyclic", volume="cosine", anchoring="all")
    assert loss.anchoring == "fixed"  # there is no anchor, and nothing to take the mean over
    assert_agree(loss(z, present), expected, list(z.values()))


@pytest.mark.parametrize("k", [2, 4])
def test_samples_of_a_softmax_and_of_cosines_estimate_the_sum_over_all_groups(k):
    names = NAMES[:k]
    z = {name: rows.detach() for name, rows in embeddings(names, 5, 7).items()}
    options = {"coupling": "softmax", "volume": "cosine"}
    loss = MoverLoss(names, "text", EXACT, groups="sample", samples=50, **options)
    torch.manual_seed(7)
    estimates = torch.stack([loss(z) for _ in range(100)])
    error = float(estimates.std()) / 10
    exact = float(MoverLoss(names, "text", EXACT, groups="all", **options)(z))
    assert abs(float(estimates.mean()) - exact) < 4 * error
    assert error < 0.01 * exact


CHOICES = [
    (2, {"volume": "cosine"}),
    (3, {"volume": "cosine"}),
    (4, {"volume": "cosine", "groups": "all"}),
    (4, {"volume": "cosine", "groups": "topk", "topk": 2}),
    (3, {"volume": "cosine", "weights": "cyclic"}),
    (2, {"coupling": "softmax"}),
    (3, {"coupling": "softmax"}),
    (4, {"coupling": "softmax", "groups": "topk", "topk": 2}),
    (3, {"anchoring": "all"}),
    (3, {"guided": True}),
    (3, {"guided": True, "coupling": "softmax", "volume": "cosine", "anchoring": "all"}),
]


@pytest.mark.parametrize(("k", "options"), CHOICES)
def test_implicit_plan_gradient(k, options):
    """gradcheck through the plan; detached, the gradient is another one."""
    options = dict(options)
    changes = {"guide": 0.4} if options.pop("guided", False) else {}
    leaves = [
        torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(i)).requires_grad_()
        for i in range(k)
    ]

    def loss(plan_gradient):
        config = EXACT.model_copy(update={**changes, "plan_gradient": plan_gradient})
        term = MoverLoss(NAMES[:k], "text", config, **options)
        return lambda *rows: term({n: normalize(r, dim=1) for n, r in zip(NAMES, rows, strict=False)}, aligned=3)

    assert torch.autograd.gradcheck(loss("implicit"), leaves)
    one, other = (torch.autograd.grad(loss(g)(*leaves), leaves)[0] for g in ("implicit", "detached"))
    assert float((one - other).norm() / one.norm()) > 1e-3


def test_the_four_of_the_ablation_differ_in_what_they_name_only(z):
    """{transport, softmax} x {volume, cosine}: the same groups, and at a large epsilon the same uniform coupling."""
    flat = TransportConfig(epsilon=1e6)
    for k in (2, 3, 4):
        rows = embeddings(NAMES[:k], 6, 8)
        for volume in ("volume", "cosine"):
            losses = {
                coupling: MoverLoss(NAMES[:k], "text", flat, topk=6, volume=volume, coupling=coupling)
                for coupling in ("transport", "softmax")
            }
            values = {coupling: loss(rows).detach() for coupling, loss in losses.items()}
            torch.testing.assert_close(values["transport"], values["softmax"], rtol=1e-5, atol=0)
            assert {loss.groups for loss in losses.values()} == {"all" if k < 4 else "topk"}
    values = [
        float(MoverLoss(THREE, "text", TransportConfig(), coupling=c)(z).detach()) for c in ("transport", "softmax")
    ]
    assert abs(values[0] - values[1]) > 1e-3
    text = z["text"].detach()
    for coupling in ("transport", "softmax"):  # of groups of equal rows both measures are 0
        loss = MoverLoss(THREE, "text", TransportConfig(epsilon=0.001), volume="cosine", coupling=coupling)
        assert float(loss(dict.fromkeys(THREE, text))) < 1e-9


def test_cosines_have_no_most_modalities():
    names = [f"m{i}" for i in range(9)]  # of volumes at most 8
    z = embeddings(names, 2, 6)
    found = MoverLoss(names, "m0", EXACT, groups="all", volume="cosine")(z)
    present = {name: torch.ones(2, dtype=torch.bool) for name in names}
    torch.testing.assert_close(found, by_loops(z, present, names, star_weights, "cosine"), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("k", "options", "message"),
    [
        (
            3,
            {"weights": "cyclic", "coupling": "softmax"},
            "cyclic multiplies plans .*coupling: softmax makes them from an anchor only",
        ),
        (4, {"weights": "cyclic", "volume": "cosine"}, "got 4 modalities, .* objective.volume cosine"),
        (4, {"groups": "all"}, "at most 3 modalities with objective.volume volume"),
        (4, {"groups": "all", "coupling": "softmax"}, "at most 3 modalities with objective.volume volume"),
    ],
)
def test_settings_that_do_not_fit_are_refused(k, options, message):
    with pytest.raises(UserError, match=message):
        MoverLoss([f"m{i}" for i in range(k)], "m0", TransportConfig(), **options)


def test_every_anchor_counts_where_groups_are_kept(monkeypatch):
    monkeypatch.setattr(groups_module, "MEMORY_BOUND", 6 * 4**2 * 56 * 3)
    MoverLoss(THREE, "text", TransportConfig(), groups="topk", topk=4).check_batch(6)
    MoverLoss(THREE, "text", TransportConfig(), groups="topk", topk=4, anchoring="rotating").check_batch(6)
    with pytest.raises(UserError, match=r"topk = 4 with objective.anchoring all at a batch of 6 makes 288 groups of 3"):
        MoverLoss(THREE, "text", TransportConfig(), groups="topk", topk=4, anchoring="all").check_batch(6)


def test_single_precision_agrees_with_double():
    z = {name: rows.detach() for name, rows in embeddings(NAMES[:4], 32, 16).items()}
    single = {name: rows.float() for name, rows in z.items()}
    for options in ({"volume": "cosine"}, {"volume": "cosine", "groups": "all"}, {"coupling": "softmax"}):
        loss = MoverLoss(NAMES[:4], "text", TransportConfig(guide=0.5, tol=1e-6), anchoring="all", **options)
        value = loss(single)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), loss(z), rtol=2e-5, atol=0)
        assert torch.equal(value, loss(single))


def test_reference_cosines():
    """The measure of the loops itself, by hand: cosines 0.6 and 0.8 and 0."""
    rows = [torch.tensor([row], dtype=torch.float64) for row in ([0.6, 0.8], [1.0, 0.0], [0.0, 1.0])]
    one = torch.ones((), dtype=torch.float64)
    assert float(weighted_cosine_distance(rows, {(0, 0, 0): one})) == pytest.approx((0.4 + 0.2 + 1) / 3)
    assert float(reference.volume(torch.cat(rows[:2]))) == pytest.approx(0.8)
