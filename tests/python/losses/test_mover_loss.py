"""Equation 8, recomputed with loops: joint weights, candidate groups, volumes and their logarithms."""

import pytest
import torch
from torch.nn.functional import normalize

from cases.operators import unit_rows
from cases.star import best_weights, embeddings, star_weights, tangent, weighted_log_volume, weighted_volume
from mover import reference
from mover.config import TransportConfig
from mover.errors import UserError
from mover.losses import MoverLoss
from mover.losses import groups as groups_module

EPSILON = 0.5
EXACT = TransportConfig(epsilon=EPSILON, max_iter=20000, tol=0.0)
IMPLICIT = EXACT.model_copy(update={"plan_gradient": "implicit"})
THREE = ("text", "video", "audio")
NAMES = (*THREE, "depth", "thermal")


def with_loops(z, names, kept=star_weights, measure=weighted_volume):
    """The kept groups of the star of the first modality, group by group; the weights are detached."""
    rows = [z[name] for name in names]
    n = len(rows[0])
    plans = [reference.transport(rows[0], other, epsilon=EPSILON).plan.detach() for other in rows[1:]]
    weights = kept(plans, torch.full((n,), 1 / n, dtype=torch.float64))
    assert float(sum(weights.values())) == pytest.approx(1.0)
    return measure(rows, weights)


def assert_agree(value, expected, leaves):
    """The values, and the part of the gradients along the sphere."""
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    grads, exact = torch.autograd.grad(value, leaves), torch.autograd.grad(expected, leaves)
    for leaf, ours, theirs in zip(leaves, grads, exact, strict=True):
        torch.testing.assert_close(tangent(ours, leaf), tangent(theirs, leaf), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("names", [("text", "video"), ("video", "audio", "text"), THREE])
def test_all_groups_against_loops(z, names):
    loss = MoverLoss(sorted(names), names[0], EXACT)
    assert loss.groups == "all"
    assert loss.modalities == [names[0], *sorted(names[1:])]
    assert_agree(loss(z), with_loops(z, loss.modalities), [z[name] for name in names])


@pytest.mark.parametrize("k", [2, 3, 4, 5])
@pytest.mark.parametrize(("groups", "count"), [("hard", 1), ("topk", 2), ("topk", 3)])
@pytest.mark.parametrize(("volume", "measure"), [("volume", weighted_volume), ("log", weighted_log_volume)])
def test_kept_groups_against_loops(k, groups, count, volume, measure):
    z = embeddings(NAMES[:k], 4, 7)
    loss = MoverLoss(NAMES[:k], "video", EXACT, groups=groups, topk=count, volume=volume)
    expected = with_loops(z, loss.modalities, lambda plans, masses: best_weights(plans, masses, count), measure)
    assert_agree(loss(z), expected, list(z.values()))


@pytest.mark.parametrize("k", [2, 3, 4])
def test_all_matches_kept_are_all_groups(k):
    z = embeddings(NAMES[:k], 4, 7)
    value = MoverLoss(NAMES[:k], "text", EXACT, groups="topk", topk=4)(z)
    torch.testing.assert_close(value, with_loops(z, NAMES[:k]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("k", [2, 4])
def test_samples_estimate_the_sum_over_all_groups(k):
    z = {name: rows.detach() for name, rows in embeddings(NAMES[:k], 5, 7).items()}
    loss = MoverLoss(NAMES[:k], "text", EXACT, groups="sample", samples=50)
    torch.manual_seed(7)
    estimates = torch.stack([loss(z) for _ in range(100)])
    error = float(estimates.std()) / 10
    exact = float(with_loops(z, NAMES[:k]))
    assert abs(float(estimates.mean()) - exact) < 4 * error
    assert error < 0.01 * exact


def test_the_gradient_of_samples_estimates_that_of_all_groups(z):
    torch.manual_seed(7)
    settings = TransportConfig(epsilon=EPSILON, plan_gradient="implicit")
    leaves = list(z.values())
    exact = torch.cat(torch.autograd.grad(MoverLoss(THREE, "text", settings)(z), leaves))
    loss = MoverLoss(THREE, "text", settings, groups="sample", samples=50)
    draws = torch.stack([torch.cat(torch.autograd.grad(loss(z), leaves)) for _ in range(200)])
    standardised = (draws.mean(0) - exact) / (draws.std(0) / 200**0.5)
    assert float(standardised.abs().max()) < 4.5
    assert float(standardised.square().mean()) < 1.5


def test_log_volume_of_all_pairs_against_loops(z):
    names = ("audio", "text")
    loss = MoverLoss(names, "audio", EXACT, volume="log")
    assert loss.groups == "all"
    assert_agree(loss(z), with_loops(z, names, measure=weighted_log_volume), [z[name] for name in names])


def test_cyclic_weights_against_loops(z):
    rows = [z[name] for name in THREE]
    pairs = [(0, 1), (0, 2), (1, 2)]
    p12, p13, p23 = (reference.transport(rows[p], rows[q], epsilon=EPSILON).plan.detach() for p, q in pairs)
    weights = {(i, j, m): p12[i, j] * p13[i, m] * p23[j, m] for i in range(6) for j in range(6) for m in range(6)}
    total = sum(weights.values())
    expected = weighted_volume(rows, {group: weight / total for group, weight in weights.items()})
    assert_agree(MoverLoss(THREE, "text", EXACT, weights="cyclic")(z), expected, rows)
    star = MoverLoss(THREE, "text", EXACT)(z)
    assert abs(float((star - expected).detach())) > 1e-3


def test_cyclic_weights_in_single_precision_and_under_autocast():
    """256 clips: products of three masses are near 1e-15, and bfloat16 would keep two digits of their sum."""
    z = {name: unit_rows(256, 16, dtype=torch.float32, seed=i) for i, name in enumerate(THREE)}
    loss = MoverLoss(THREE, "text", TransportConfig(), weights="cyclic")
    value = loss(z)
    exact = loss({name: rows.double() for name, rows in z.items()})
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(z), value)


def test_plans_that_agree_on_no_group():
    """Text i matches video i and audio i, and video i matches audio i - 1: at a small epsilon no cycle closes."""
    axes = torch.eye(8, dtype=torch.float32)
    text, theme = axes[:4], axes[4:]
    z = {"text": text, "video": 0.6 * text + 0.8 * theme, "audio": 0.6 * text + 0.8 * theme.roll(-1, 0)}
    z = {name: rows.clone().requires_grad_() for name, rows in z.items()}
    value = MoverLoss(THREE, "text", TransportConfig(epsilon=0.003), weights="cyclic")(z)
    value.backward()
    assert float(value.detach()) == 0
    assert all(not rows.grad.any() for rows in z.values())


CHOICES = [
    (("text", "video"), {}),
    (THREE, {}),
    (THREE, {"weights": "cyclic"}),
    (("text", "video"), {"volume": "log"}),
    (THREE, {"groups": "hard"}),
    (THREE, {"groups": "topk", "topk": 2}),
    (THREE, {"groups": "topk", "topk": 2, "volume": "log"}),
    (NAMES[:4], {"groups": "topk", "topk": 2}),
]


@pytest.mark.parametrize(("names", "options"), CHOICES)
def test_implicit_plan_gradient(names, options):
    """gradcheck through the plan; detached, the gradient is another one (but for one group per anchor)."""
    leaves = [
        torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(i)).requires_grad_()
        for i in range(len(names))
    ]

    def loss(config):
        term = MoverLoss(names, names[0], config, **options)
        return lambda *rows: term({n: normalize(r, dim=1) for n, r in zip(names, rows, strict=True)})

    assert torch.autograd.gradcheck(loss(IMPLICIT), leaves)
    one = torch.autograd.grad(loss(IMPLICIT)(*leaves), leaves)[0]
    other = torch.autograd.grad(loss(EXACT)(*leaves), leaves)[0]
    assert float((one - other).norm() / one.norm()) > 1e-3


def test_it_is_a_mean_volume():
    rows = torch.eye(4, 6, dtype=torch.float32)
    z = {name: unit_rows(16, 512, dtype=torch.float32, seed=i) for i, name in enumerate(NAMES)}
    for k in (2, 3, 4, 5):
        aligned = MoverLoss(NAMES[:k], "text", TransportConfig(epsilon=0.01))(dict.fromkeys(NAMES[:k], rows))
        assert float(aligned) < 1e-3
        assert 0.9 < float(MoverLoss(NAMES[:k], "text", TransportConfig())(z)) <= 1.0


def test_mean_volume_of_clips_in_any_order():
    z = {name: unit_rows(6, 8, seed=i) for i, name in enumerate(NAMES[:4])}
    shuffled = {name: rows[torch.randperm(6)] for name, rows in z.items()}
    for k in (3, 4):
        loss = MoverLoss(NAMES[:k], "text", EXACT)
        torch.testing.assert_close(loss(z), loss(shuffled), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("volume", ["volume", "log"])
def test_close_and_equal_rows_in_single_precision(volume):
    """Groups of an angle of 1e-4 and groups of equal rows: finite, and no worse than the rows themselves allow."""
    rows = unit_rows(8, 32, seed=1)
    z = {name: normalize(rows + 1e-4 * unit_rows(8, 32, seed=i), dim=1) for i, name in enumerate(NAMES[:4])}
    leaves = {name: tensor.float().requires_grad_() for name, tensor in z.items()}
    loss = MoverLoss(NAMES[:4], "text", TransportConfig(), groups="hard", volume=volume)
    value = loss(leaves)
    value.backward()
    torch.testing.assert_close(value.double(), loss(z), rtol=1e-3, atol=1e-15)
    assert all(bool(torch.isfinite(tensor.grad).all()) for tensor in leaves.values())
    same = {name: rows.float().requires_grad_() for name in NAMES[:4]}
    loss(same).backward()
    assert all(bool(torch.isfinite(tensor.grad).all()) for tensor in same.values())


def test_a_nan_in_the_embeddings_reaches_the_loss(z):
    z = {**z, "audio": torch.where(torch.arange(6)[:, None] == 2, torch.nan, z["audio"])}
    for groups in ("all", "hard", "topk", "sample"):
        assert bool(MoverLoss(THREE, "text", TransportConfig(), groups=groups)(z).isnan())


@pytest.mark.parametrize(("volume", "most_for_all", "most"), [("volume", 3, 8), ("log", 2, 9)])
def test_automatic_choice_of_groups(volume, most_for_all, most):
    for k in range(2, most + 1):
        loss = MoverLoss([f"m{i}" for i in range(k)], "m0", TransportConfig(), volume=volume)
        assert loss.groups == ("all" if k <= most_for_all else "topk")


@pytest.mark.parametrize(
    ("k", "options", "message"),
    [
        (
            4,
            {"groups": "all"},
            "at most 3 modalities with objective.volume volume, got 4. Set objective.groups to topk",
        ),
        (3, {"groups": "all", "volume": "log"}, "at most 2 modalities with objective.volume log, got 3"),
        (9, {}, "at most 8 modalities, got 9. Set objective.volume to log, objective.mover to 0"),
        (4, {"weights": "cyclic"}, "got 4 modalities, objective.groups topk .* Set objective.weights to star"),
        (2, {"weights": "cyclic"}, "objective.weights: cyclic .* got 2 modalities"),
        (3, {"weights": "cyclic", "groups": "hard"}, "objective.groups hard"),
        (3, {"weights": "cyclic", "volume": "log"}, "objective.volume log"),
    ],
)
def test_settings_that_do_not_fit_are_refused(k, options, message):
    with pytest.raises(UserError, match=message):
        MoverLoss([f"m{i}" for i in range(k)], "m0", TransportConfig(), **options)


def test_too_many_groups_are_refused_before_anything_is_allocated(monkeypatch):
    z = {name: torch.ones(2048, 1).expand(2048, 4) for name in NAMES}
    with pytest.raises(UserError, match=r"objective.topk = 8 at a batch of 2048 makes 8,388,608 groups of 5 .* "
                                        r"lower objective.topk or set objective.groups to hard"):  # fmt: skip
        MoverLoss(NAMES, "text", TransportConfig(), topk=8)(z)
    with pytest.raises(
        UserError, match=r"samples = 4096 at a batch of 2048 makes 8,388,608 .* lower objective.samples"
    ):
        MoverLoss(NAMES, "text", TransportConfig(), groups="sample", samples=4096)(z)
    few = {name: rows[:4] for name, rows in z.items()}
    monkeypatch.setattr(groups_module, "MEMORY_BOUND", 4**5 * 56 * 5)  # topk beyond the batch means the batch
    MoverLoss(NAMES, "text", TransportConfig(), topk=8).check_batch(4)
    MoverLoss(NAMES, "text", TransportConfig(), topk=4)(few)
    monkeypatch.setattr(groups_module, "MEMORY_BOUND", 4**5 * 56 * 5 - 1)
    with pytest.raises(UserError, match="1,024 groups of 5 modalities"):
        MoverLoss(NAMES, "text", TransportConfig(), topk=8)(few)


def test_an_unknown_anchor_is_refused():
    with pytest.raises(UserError, match="'audio' is not among the modalities"):
        MoverLoss(("text", "video"), "audio", TransportConfig())
