"""Weights, presets, warm-up, plans, and what is refused."""

import pytest
import torch

from mover import ops, reference
from mover.config import GateConfig, ObjectiveConfig, TransportConfig
from mover.errors import UserError
from mover.losses import MoverLoss, VolumeContrastiveLoss, build_objective, groups

NAMES = ("text", "video", "audio")


@pytest.mark.parametrize(
    ("preset", "terms"),
    [
        ("mover", {"mover", "volume_contrastive", "pairwise"}),
        ("mover-paper", {"mover", "volume_contrastive"}),
        ("gram", {"volume_contrastive"}),
        ("pairwise", {"pairwise"}),
    ],
)
def test_presets(z, preset, terms):
    result = build_objective(ObjectiveConfig(preset=preset), NAMES)(z)
    assert set(result) == terms | {"total"}
    torch.testing.assert_close(result["total"], sum(result[name] for name in terms))
    result["total"].backward()
    assert all(bool(torch.isfinite(rows.grad).all()) and rows.grad.abs().sum() > 0 for rows in z.values())


def test_explicit_weights_win_over_the_preset(z):
    config = ObjectiveConfig(preset="gram", mover=0.25, volume_contrastive=2.0)
    result = build_objective(config, NAMES)(z)
    assert set(result) == {"mover", "volume_contrastive", "total"}
    torch.testing.assert_close(result["total"], 0.25 * result["mover"] + 2 * result["volume_contrastive"])


@pytest.mark.parametrize(
    ("progress", "weight"), [(0.0, 0.0), (0.4, 0.0), (0.45, 0.15), (0.5, 0.3), (0.6, 0.3), (1.0, 0.3)]
)
def test_late_start_and_warm_up(z, progress, weight):
    config = ObjectiveConfig(mover=0.3, pairwise=0, mover_start=0.4, mover_warmup=0.1)
    objective = build_objective(config, NAMES)
    assert objective.weight("mover", progress) == pytest.approx(weight)
    assert objective.weight("volume_contrastive", progress) == 1.0
    result = objective(z, progress)
    assert ("mover" in result) == (weight > 0)
    expected = result["volume_contrastive"] + (weight * result["mover"] if weight else 0)
    torch.testing.assert_close(result["total"], expected, rtol=1e-6, atol=1e-7)


def test_no_warm_up_is_a_step():
    objective = build_objective(ObjectiveConfig(mover_start=0.5, mover_warmup=0.0), NAMES)
    assert [objective.weight("mover", progress) for progress in (0.0, 0.49, 0.5, 1.0)] == [0.0, 0.0, 1.0, 1.0]


def test_terms_of_weight_zero_are_not_computed(z, monkeypatch):
    def unexpected(*_, **__):
        raise AssertionError("a term of weight 0 was computed")

    monkeypatch.setattr(ops, "transport", unexpected)
    objective = build_objective(ObjectiveConfig(), NAMES)
    objective(z, 0.0)
    with pytest.raises(AssertionError, match="weight 0"):
        objective(z, 1.0)


def test_before_the_only_term_starts_the_gradient_is_zero(z):
    objective = build_objective(ObjectiveConfig(volume_contrastive=0, pairwise=0, mover_start=0.5), NAMES)
    result = objective(z, 0.0)
    assert set(result) == {"total"}
    result["total"].backward()
    assert all(torch.equal(rows.grad, torch.zeros_like(rows)) for rows in z.values())


@pytest.mark.parametrize(("weights", "pairs"), [("star", 2), ("cyclic", 3)])
def test_one_transport_for_the_pairs_whose_plans_are_used(z, monkeypatch, weights, pairs):
    calls = []
    transport = ops.transport

    def counted(x, y, *masses, **options):
        calls.append(x.shape)
        return transport(x, y, *masses, **options)

    monkeypatch.setattr(ops, "transport", counted)
    build_objective(ObjectiveConfig(weights=weights), NAMES)(z)
    assert calls == [(pairs, 6, 8)]


def test_options_reach_the_mover_term():
    settings = {"groups": "sample", "topk": 3, "samples": 5, "volume": "log"}
    term = build_objective(ObjectiveConfig(**settings), NAMES).terms["mover"]
    assert {name: getattr(term, name) for name in settings} == settings
    assert build_objective(ObjectiveConfig(weights="cyclic"), NAMES).terms["mover"].weights == "cyclic"


def test_options_reach_both_terms_of_an_anchor(z):
    """What the objective gives is what its terms give, at that step and with so many rows aligned."""
    config = ObjectiveConfig(
        coupling="softmax",
        anchoring="rotating",
        positives="mixed",
        mixture=0.3,
        contrast_by="cosine",
        volume="cosine",
        transport=TransportConfig(guide=0.5, epsilon=0.4),
    )
    objective = build_objective(config, NAMES).double()
    alike = {"coupling": "softmax", "anchoring": "rotating"}
    mover = MoverLoss(NAMES, "text", config.transport, volume="cosine", **alike)
    contrast = VolumeContrastiveLoss(
        NAMES, "text", positives="mixed", mixture=0.3, contrast_by="cosine", transport=config.transport, **alike
    ).double()
    values = []
    for step, aligned in ((0, None), (1, None), (1, 4), (2, 4), (4, 4)):
        result = objective(z, step=step, aligned=aligned)
        torch.testing.assert_close(result["mover"], mover(z, step=step, aligned=aligned))
        torch.testing.assert_close(result["volume_contrastive"], contrast(z, step=step, aligned=aligned))
        values.append((float(result["mover"].detach()), float(result["volume_contrastive"].detach())))
    assert len(set(values)) == 4 and values[2] == values[4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "pairwise", "positives": "mixed"}, "objective.positives: mixed concerns the volume contrast"),
        ({"volume_contrastive": 0, "contrast_by": "cosine"}, "objective.contrast_by: cosine concerns the volume"),
        ({"preset": "ot-loop", "anchoring": "all"}, "objective.anchoring: all concerns the mover term and the volume"),
        ({"preset": "gram", "coupling": "softmax"}, "coupling: softmax concerns the mover term and positives"),
        ({"preset": "gram", "transport": TransportConfig(guide=0.2)}, "objective.transport.guide: 0.2 concerns"),
        ({"preset": "ot-loop", "transport": TransportConfig(guide=0.2)}, "made of pairwise, ot_loop. Set objective"),
        ({"weights": "cyclic", "coupling": "softmax"}, "Set objective.weights to star, or objective.coupling"),
        (
            {"positives": "mixed", "gate": GateConfig(by="softmax")},
            "gate leaves out pairs .*positives: mixed",
        ),
        (
            {"positives": "transport", "confident": 1},
            "objective.confident .*positives: transport would match them once",
        ),
    ],
)
def test_options_without_a_term_that_they_concern_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build_objective(ObjectiveConfig(**settings), NAMES)


def test_options_of_plans_are_for_matched_positives_too():
    for options in ({"coupling": "softmax"}, {"transport": TransportConfig(guide=0.2)}):
        build_objective(ObjectiveConfig(preset="gram", positives="transport", **options), NAMES)
        build_objective(ObjectiveConfig(preset="mover", volume_contrastive=0, **options), NAMES)


def test_too_many_groups_are_refused_at_the_first_step(z, monkeypatch):
    monkeypatch.setattr(groups, "MEMORY_BOUND", 1000)
    objective = build_objective(ObjectiveConfig(mover_start=0.5, groups="sample"), NAMES)
    with pytest.raises(UserError, match="objective.samples = 16 at a batch of 6 makes 96 groups of 3 modalities"):
        objective(z, 0.0)


@pytest.mark.parametrize("names", [("video", "text"), NAMES])
def test_plans(z, names):
    config = ObjectiveConfig(anchor="video", transport=TransportConfig(epsilon=0.3, max_iter=5000, tol=0.0))
    plans = build_objective(config, names).plans(z)
    pairs = [(p, q) for i, p in enumerate(names) for q in names[i + 1 :]]
    assert list(plans) == [f"{p}-{q}" for p, q in pairs]
    for p, q in pairs:
        plan = plans[f"{p}-{q}"]
        assert not plan.requires_grad
        torch.testing.assert_close(plan, reference.transport(z[p], z[q], epsilon=0.3).plan.detach())


def test_plans_of_the_rows_that_are_there(z):
    objective = build_objective(ObjectiveConfig(transport=TransportConfig(epsilon=0.3, max_iter=5000, tol=0.0)), NAMES)
    present = {"text": torch.tensor([1, 1, 0, 1, 1, 1]).bool(), "audio": torch.tensor([1, 0, 1, 0, 1, 0]).bool()}
    plans = objective.plans({**z, "audio": torch.where(present["audio"][:, None], z["audio"], torch.nan)}, present)
    assert list(plans) == ["text-video", "text-audio", "video-audio"]
    everywhere = torch.ones(6, dtype=torch.bool)
    for (p, q), plan in zip([(0, 1), (0, 2), (1, 2)], plans.values(), strict=True):
        rows, columns = (present.get(NAMES[i], everywhere) for i in (p, q))
        alone = reference.transport(z[NAMES[p]][rows], z[NAMES[q]][columns], epsilon=0.3).plan.detach()
        torch.testing.assert_close(plan[rows][:, columns], alone)
        assert float(plan.sum()) == pytest.approx(1.0)
        assert not plan[~rows].any() and not plan[:, ~columns].any()
        torch.testing.assert_close(plan.sum(1)[rows], torch.full((int(rows.sum()),), 1 / int(rows.sum())).to(plan))
    nothing = torch.zeros(6, dtype=torch.bool)
    assert list(objective.plans(z, {"audio": nothing})) == ["text-video"]
    assert objective.plans(z, {"audio": nothing, "text": nothing}) == {}


def test_parameters_are_saved_under_their_terms():
    objective = build_objective(ObjectiveConfig(), NAMES)
    expected = {"terms.volume_contrastive.temperature.log", "terms.pairwise.temperature.log"}
    assert set(objective.state_dict()) == expected
    assert set(dict(objective.named_parameters())) == expected
    fixed = build_objective(ObjectiveConfig(learn_temperature=False), NAMES)
    assert list(fixed.parameters()) == []
    objective.load_state_dict(fixed.state_dict())


def test_half_precision_embeddings(z):
    rows = {name: tensor.detach().bfloat16() for name, tensor in z.items()}
    result = build_objective(ObjectiveConfig(), NAMES)(rows)
    assert all(term.dtype == torch.float32 and bool(torch.isfinite(term)) for term in result.values())


def test_identical_embeddings_are_finite():
    """A collapsed model: every row the same. No NaN, in the loss or its gradient."""
    rows = {name: torch.ones(5, 4, requires_grad=True) for name in NAMES}
    unit = {name: torch.nn.functional.normalize(tensor, dim=1) for name, tensor in rows.items()}
    config = ObjectiveConfig(transport=TransportConfig(plan_gradient="implicit"))
    result = build_objective(config, NAMES)(unit)
    result["total"].backward()
    assert all(bool(torch.isfinite(term)) for term in result.values())
    assert all(bool(torch.isfinite(tensor.grad).all()) for tensor in rows.values())


@pytest.mark.parametrize("size", [0, 1])
def test_batches_without_a_comparison_are_refused(z, size):
    objective = build_objective(ObjectiveConfig(), NAMES)
    for call in (objective, objective.plans, *objective.terms.values()):
        with pytest.raises(UserError, match=f"a batch of at least 2, got {size}"):
            call({name: rows[:size] for name, rows in z.items()})


def test_embeddings_that_do_not_fit_are_refused(z):
    objective = build_objective(ObjectiveConfig(), NAMES)
    with pytest.raises(UserError, match=r"\['audio'\] are missing from \['text', 'video'\]"):
        objective({name: z[name] for name in ("text", "video")})
    with pytest.raises(UserError, match=r"same shape \(B, d\) .*'audio': \(5, 8\)"):
        objective({**z, "audio": z["audio"][:5]})
    with pytest.raises(UserError, match=r"same shape \(B, d\)"):
        objective({name: rows.unsqueeze(0) for name, rows in z.items()})


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="All weights of the objective are 0"):
        build_objective(ObjectiveConfig(mover=0, volume_contrastive=0, pairwise=0), NAMES)
    with pytest.raises(UserError, match="'audio' is not among"):
        build_objective(ObjectiveConfig(anchor="audio"), ("text", "video"))
    with pytest.raises(UserError, match="must lie in"):
        build_objective(ObjectiveConfig(temperature=3.0), NAMES)
    with pytest.raises(UserError, match="Set objective.groups to topk"):
        build_objective(ObjectiveConfig(groups="all"), (*NAMES, "depth"))


def test_four_modalities(z):
    rows = {**z, "depth": z["text"].roll(1, 1)}
    result = build_objective(ObjectiveConfig(), (*NAMES, "depth"))(rows)
    assert set(result) == {"mover", "volume_contrastive", "pairwise", "total"}
    assert 0 < float(result["mover"].detach()) < 1
