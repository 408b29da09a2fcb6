"""Missing modalities, in every loss: against plain loops over the rows that are there."""

import pytest
import torch
from torch.nn.functional import normalize

from cases.operators import unit_rows
from cases.star import best_weights, embeddings, star_weights, tangent, weighted_log_volume, weighted_volume
from mover import ops, reference
from mover.config import ObjectiveConfig, TransportConfig
from mover.errors import UserError
from mover.losses import MoverLoss, OTBarycenterLoss, OTLoopLoss, PairwiseLoss, VolumeContrastiveLoss, build_objective
from mover.losses.contrast import symmetric_cross_entropy
from mover.losses.embeddings import check_embeddings

NAMES = ("text", "video", "audio", "depth", "thermal")
EXACT = TransportConfig(epsilon=0.5, max_iter=20000, tol=0.0)
PATTERN = {
    "text": [1, 1, 0, 1, 1, 1],
    "video": [1, 0, 1, 1, 1, 1],
    "audio": [1, 0, 1, 0, 1, 1],
    "depth": [0, 1, 1, 1, 0, 1],
    "thermal": [0, 1, 0, 1, 1, 1],
}


def presence(names, **changes):
    return {name: torch.tensor({**PATTERN, **changes}[name]).bool() for name in names}


def spoil(z, present, value):
    """The same rows as fresh leaves, with `value` in those that are not there."""
    return {
        name: torch.where(present[name][:, None], rows.detach(), value).requires_grad_() for name, rows in z.items()
    }


def losses(names):
    anchor = names[0]
    made = [PairwiseLoss(names), VolumeContrastiveLoss(names, anchor)]
    made += [VolumeContrastiveLoss(names, anchor, denominator="negatives", label_smoothing=0.0)]
    made += [MoverLoss(names, anchor, EXACT, groups=groups) for groups in ("auto", "hard", "topk", "sample")]
    made += [MoverLoss(names, anchor, EXACT.model_copy(update={"plan_gradient": "implicit"}))]
    made += [MoverLoss(names, anchor, EXACT, volume=volume, anchoring="all") for volume in ("log", "cosine")]
    made += [MoverLoss(names, anchor, EXACT.model_copy(update={"guide": 0.5}), coupling="softmax")]
    variants = [{"positives": "mixed", "anchoring": "all"}, {"contrast_by": "cosine", "anchoring": "all"}]
    made += [VolumeContrastiveLoss(names, anchor, transport=EXACT, **options) for options in variants]
    made += [OTLoopLoss(names, EXACT), OTBarycenterLoss(names, anchor, EXACT)]
    if len(names) == 3:
        made += [MoverLoss(names, anchor, EXACT, weights="cyclic")]
    return [loss.double() for loss in made]


ALL = [(k, i) for k in (2, 3, 4) for i in range(len(losses(NAMES[:k])))]


@pytest.mark.parametrize(("k", "which"), ALL)
def test_rows_that_are_not_there_are_not_read_and_have_no_gradient(k, which):
    names = NAMES[:k]
    loss, present = losses(names)[which], presence(names)
    values, grads = [], []
    for filling in (0.3, torch.nan, torch.inf):
        z = spoil(embeddings(names, 6, 7), present, filling)
        torch.manual_seed(1)
        value = loss(z, present)
        values.append(value.detach())
        grads.append(torch.autograd.grad(value, list(z.values())))
        for name, gradient in zip(names, grads[-1], strict=True):
            assert torch.equal(gradient[~present[name]], torch.zeros(int((~present[name]).sum()), 7).double())
            assert bool(torch.isfinite(gradient).all())
            assert float(gradient.abs().sum()) > 0
    assert bool(torch.isfinite(values[0]))
    assert torch.equal(values[0], values[1]) and torch.equal(values[0], values[2])
    for one, other in zip(grads[0], grads[1], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("k", "which"), ALL)
def test_all_present_is_no_presence(k, which):
    names = NAMES[:k]
    loss, z = losses(names)[which], embeddings(names, 6, 7)
    results = []
    for present in (None, {}, {name: torch.ones(6, dtype=torch.bool) for name in names}):
        torch.manual_seed(1)
        value = loss(z, present)
        results.append((value, *torch.autograd.grad(value, list(z.values()))))
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


@pytest.mark.parametrize(("k", "which"), ALL)
@pytest.mark.parametrize("absent", ["one row left", "a modality", "everything"])
def test_too_few_rows_give_zero_and_no_gradient(k, which, absent):
    names = NAMES[:k]
    present = presence(names)
    if absent == "one row left":
        present = {name: torch.arange(6) == 4 for name in names}
    elif absent == "a modality":
        present[names[0]] = torch.zeros(6, dtype=torch.bool)
        loss = losses(names)[which]
        of_any_pair = isinstance(loss, PairwiseLoss)
        of_any_pair |= isinstance(loss, VolumeContrastiveLoss) and loss.anchoring == "all"
        if k > 2 and of_any_pair:
            present = {name: mask if name == names[1] else present[names[0]] for name, mask in present.items()}
    else:
        present = {name: torch.zeros(6, dtype=torch.bool) for name in names}
    loss, z = losses(names)[which], spoil(embeddings(names, 6, 7), present, torch.nan)
    value = loss(z, present)
    value.backward()
    assert float(value.detach()) == 0
    assert all(torch.equal(rows.grad, torch.zeros_like(rows)) for rows in z.values())


def star_by_hand(z, present, names, kept, measure):
    """Transport between the rows that are there only; the weights put back at the places of those rows."""
    rows = [z[name][present[name]] for name in names]
    plans = [reference.transport(rows[0], other, epsilon=0.5).plan.detach() for other in rows[1:]]
    n = len(rows[0])
    size = max(len(tensor) for tensor in rows)
    padded = [torch.nn.functional.pad(plan, (0, size - plan.shape[1], 0, size - n)) for plan in plans]
    masses = torch.nn.functional.pad(torch.full((n,), 1 / n, dtype=torch.float64), (0, size - n))
    weights = {group: weight for group, weight in kept(padded, masses).items() if weight > 0}
    assert float(sum(weights.values())) == pytest.approx(1.0)
    return measure(rows, weights)


def best_three(plans, masses):
    return best_weights(plans, masses, 3)


@pytest.mark.parametrize(
    ("options", "kept", "measure", "sizes"),
    [
        ({"groups": "all"}, star_weights, weighted_volume, (2, 3)),
        ({"groups": "topk", "topk": 3}, best_three, weighted_volume, (2, 3, 4, 5)),
        ({"groups": "topk", "topk": 3, "volume": "log"}, best_three, weighted_log_volume, (3, 4)),
        ({"groups": "all", "volume": "log"}, star_weights, weighted_log_volume, (2,)),
    ],
)
def test_mover_against_loops(options, kept, measure, sizes):
    for k in sizes:
        names = NAMES[:k]
        z, present = embeddings(names, 6, 7), presence(names)
        value = MoverLoss(names, "text", EXACT, **options)(z, present)
        expected = star_by_hand(z, present, names, kept, measure)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
        leaves = list(z.values())
        grads, exact = torch.autograd.grad(value, leaves), torch.autograd.grad(expected, leaves)
        for leaf, ours, theirs in zip(leaves, grads, exact, strict=True):
            torch.testing.assert_close(tangent(ours, leaf), tangent(theirs, leaf), rtol=1e-7, atol=1e-9)


def test_cyclic_weights_against_loops():
    names = NAMES[:3]
    z, present = embeddings(names, 6, 7), presence(names)
    rows = [z[name][present[name]] for name in names]
    p12, p13, p23 = (
        reference.transport(rows[p], rows[q], epsilon=0.5).plan.detach() for p, q in ((0, 1), (0, 2), (1, 2))
    )
    costs = [reference.cost(rows[p], rows[q]) for p, q in ((0, 1), (0, 2), (1, 2))]
    expected = reference.expected_volume(*costs, p12, p13, p23) / torch.einsum("ij,il,jl->", p12, p13, p23)
    value = MoverLoss(names, "text", EXACT, weights="cyclic")(z, present)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("plan_gradient", ["detached", "implicit"])
@pytest.mark.parametrize(("k", "options"), [(3, {}), (4, {}), (3, {"volume": "log"}), (3, {"weights": "cyclic"})])
def test_mover_is_the_loss_of_the_rows_that_are_there(k, options, plan_gradient):
    """The same rows missing everywhere: as if the batch were smaller."""
    names = NAMES[:k]
    mask = torch.tensor([True, False, True, True, False, True])
    config = EXACT.model_copy(update={"plan_gradient": plan_gradient})
    loss, z = MoverLoss(names, "text", config, **options), embeddings(names, 6, 7)
    value = loss(z, dict.fromkeys(names, mask))
    smaller = loss({name: rows[mask] for name, rows in z.items()})
    torch.testing.assert_close(value, smaller, rtol=1e-9, atol=1e-12)
    leaves = list(z.values())
    pairs = zip(torch.autograd.grad(value, leaves), torch.autograd.grad(smaller, leaves), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_sampled_groups_consist_of_rows_that_are_there(monkeypatch):
    seen = []
    group_volume = ops.group_volume
    monkeypatch.setattr(
        ops, "group_volume", lambda costs, groups: (seen.append(groups), group_volume(costs, groups))[1]
    )
    names = NAMES[:4]
    z, present = embeddings(names, 6, 7), presence(names)
    for groups in ("hard", "topk", "sample"):
        MoverLoss(names, "text", EXACT, groups=groups, topk=6)(z, present)
        for column, name in zip(seen[-1].T, names, strict=True):
            assert set(column.tolist()) <= set(present[name].nonzero().flatten().tolist())
    assert len(seen[1]) == 5 * 5 * 4 * 4  # all combinations, and no other
    assert len(seen[2]) == 5 * 16


def pairwise_by_hand(z, present, names):
    terms = []
    for p, q in [(p, q) for i, p in enumerate(names) for q in names[i + 1 :]]:
        both = present[p] & present[q]
        if int(both.sum()) >= 2:
            terms.append(symmetric_cross_entropy(z[p][both] @ z[q][both].T / 0.5, 0.1))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("audio", [[1, 0, 1, 0, 1, 1], [0, 0, 0, 0, 1, 0], [0] * 6])
def test_pairwise_against_smaller_matrices(k, audio):
    names = NAMES[:k]
    z, present = embeddings(names, 6, 7), presence(names, audio=audio)
    loss = PairwiseLoss(names, temperature=0.5).double()
    torch.testing.assert_close(loss(z, present), pairwise_by_hand(z, present, names), rtol=1e-6, atol=1e-6)
    leaves = tuple(z.values())
    assert torch.autograd.gradcheck(lambda *rows: loss(dict(zip(names, rows, strict=True)), present), leaves)


def span_distance(anchor, others):
    """sqrt(1 - |E^T anchor|^2), E from a QR of the others."""
    basis = torch.linalg.qr(torch.stack(others).T).Q
    return (1 - (basis.T @ anchor).square().sum()).sqrt()


def volume_contrast_by_hand(z, present, names, denominator):
    anchor, *others = names
    clips = [i for i in range(6) if present[anchor][i] and any(present[name][i] for name in others)]
    groups = [[z[name][j] for name in others if present[name][j]] for j in clips]
    scores = torch.stack([torch.stack([span_distance(z[anchor][i], group) for group in groups]) for i in clips])
    return symmetric_cross_entropy(-scores / 0.5, 0.1, denominator)


@pytest.mark.parametrize("k", [3, 4, 5])
@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_volume_contrast_against_span_distances(k, denominator):
    names = NAMES[:k]
    z, present = embeddings(names, 6, 7), presence(names)
    loss = VolumeContrastiveLoss(names, "text", temperature=0.5, denominator=denominator).double()
    value, expected = loss(z, present), volume_contrast_by_hand(z, present, names, denominator)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    leaves = list(z.values())
    grads, exact = torch.autograd.grad(value, leaves), torch.autograd.grad(expected, leaves)
    for leaf, ours, theirs in zip(leaves, grads, exact, strict=True):
        torch.testing.assert_close(tangent(ours, leaf), tangent(theirs, leaf), rtol=1e-5, atol=1e-6)


def test_volume_contrast_of_complete_clips_stays_one_of_volumes():
    """Clips 1, 2 and 3 take no part or are complete: no one who takes part lacks anything."""
    names = NAMES[:3]
    z = embeddings(names, 6, 7)
    present = presence(names, text=[1, 0, 0, 1, 1, 1], video=[1, 1, 0, 1, 1, 1], audio=[1, 0, 1, 1, 1, 1])
    complete = torch.tensor([0, 3, 4, 5])
    loss = VolumeContrastiveLoss(names, "text")
    smaller = loss({name: rows[complete] for name, rows in z.items()})
    torch.testing.assert_close(loss(z, present), smaller, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_masked_cross_entropy_is_that_of_the_smaller_matrix():
    logits = torch.randn(4, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    usable = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 0, 1, 1], [0, 0, 1, 0, 0, 0, 0], [0] * 7]).bool()
    for denominator in ("all", "negatives"):
        with torch.autograd.detect_anomaly(check_nan=True):  # no NaN on the way either
            terms = symmetric_cross_entropy(logits, 0.1, denominator, usable=usable)
            torch.autograd.grad(terms.sum(), logits)
        values = symmetric_cross_entropy(logits, 0.1, denominator, usable=usable)
        for matrix, mask, value in zip(logits[:2], usable, values, strict=False):
            torch.testing.assert_close(value, symmetric_cross_entropy(matrix[mask][:, mask], 0.1, denominator))
        assert values[2:].tolist() == [0, 0]
        (gradient,) = torch.autograd.grad(values.sum(), logits)
        assert bool(torch.isfinite(gradient).all())
        assert not gradient[~(usable[:, :, None] & usable[:, None])].any()
        assert not gradient[2:].any()


@pytest.mark.parametrize("names", [NAMES[:3], NAMES[:4]])
def test_the_objective_passes_presence_on(names):
    z, present = embeddings(names, 6, 7), presence(names)
    objective = build_objective(ObjectiveConfig(transport=EXACT), names).double()
    result = objective(z, present=present)
    for name, term in objective.terms.items():
        torch.testing.assert_close(result[name], term(z, present))
        assert abs(float((result[name] - term(z)).detach())) > 1e-4
    late = build_objective(ObjectiveConfig(preset="mover", volume_contrastive=0, pairwise=0, mover_start=0.5), names)
    spoilt = spoil(z, present, torch.nan)
    late(spoilt, 0.0, present)["total"].backward()
    assert all(torch.equal(rows.grad, torch.zeros_like(rows)) for rows in spoilt.values())


def test_training_with_missing_modalities_in_single_precision():
    """A few steps of gradient descent on the rows themselves: the loss falls and stays finite."""
    names = NAMES[:3]
    generator = torch.Generator().manual_seed(0)
    present = {name: torch.rand(32, generator=generator) > 0.3 for name in names}
    rows = {name: unit_rows(32, 16, dtype=torch.float32, seed=i).requires_grad_() for i, name in enumerate(names)}
    objective = build_objective(ObjectiveConfig(), names)
    optimizer = torch.optim.Adam([*rows.values(), *objective.parameters()], lr=0.02)
    before = {name: tensor.detach().clone() for name, tensor in rows.items()}
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        z = {n: torch.where(present[n][:, None], normalize(r, dim=1), torch.nan) for n, r in rows.items()}
        total = objective(z, 1.0, present)["total"]
        total.backward()
        optimizer.step()
        values.append(float(total.detach()))
    assert values[-1] < values[0] - 1
    for name in names:
        assert torch.equal(rows[name][~present[name]], before[name][~present[name]])


def test_the_clips_of_a_batch():
    z = {name: rows.detach() for name, rows in embeddings(NAMES[:3], 6, 7).items()}
    assert check_embeddings(z, NAMES[:3]).present is None
    assert check_embeddings(z, NAMES[:3]).masses() is None
    assert check_embeddings(z, NAMES[:3]).fewest() == 6
    clips = check_embeddings(z, NAMES[:3], {"audio": torch.tensor(PATTERN["audio"]).bool()})
    assert clips.present.tolist() == [[True] * 6, [True] * 6, [bool(entry) for entry in PATTERN["audio"]]]
    assert clips.fewest() == 4
    torch.testing.assert_close(clips.masses()[2], torch.tensor(PATTERN["audio"]).double() / 4)
    assert torch.equal(clips.rows[2][1], torch.eye(7, dtype=torch.float64)[0])
    assert torch.equal(clips.rows[2][0], z["audio"][0])


def test_presence_that_does_not_fit_is_refused():
    z = embeddings(NAMES[:3], 6, 7)
    for loss in (*losses(NAMES[:3]), build_objective(ObjectiveConfig(), NAMES[:3])):
        with pytest.raises(
            UserError, match=r"present\['video'\] must be a bool tensor of shape \(6,\).*got torch.int64"
        ):
            loss(z, present={"video": torch.ones(6, dtype=torch.int64)})
        with pytest.raises(UserError, match=r"got torch.bool of shape \(5,\)"):
            loss(z, present={"video": torch.ones(5, dtype=torch.bool)})
