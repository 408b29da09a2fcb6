"""Every preset against plain loops over its formula; what it sets, and what is refused before any data is read."""

import importlib
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch.nn.functional import normalize

import mover.presets
from cases.operators import unit_rows
from cases.partial import partial_plan
from cases.star import embeddings, star_weights, weighted_volume
from mover import reference
from mover.config import Config, ObjectiveConfig, PresetName, TransportConfig
from mover.configs import load_config
from mover.errors import UserError
from mover.losses import build_objective
from mover.losses.objective import resolve_weights
from mover.presets import OF_MATCHES, PRESETS

NAMES = ("text", "video", "audio")
EPSILON, TAU, SMOOTHING = 0.5, 0.5, 0.1
EXACT = TransportConfig(epsilon=EPSILON, max_iter=20000, tol=0.0)


def cross_entropy(similarity):
    """Both ways, one logarithm at a time; similarity (B, B) with the pairs on its diagonal."""
    n, total = len(similarity), 0.0
    for matrix in (similarity, similarity.T):
        for i in range(n):
            normaliser = sum((matrix[i, j] / TAU).exp() for j in range(n)).log()
            for j in range(n):
                target = (1 - SMOOTHING if i == j else 0.0) + SMOOTHING / n
                total = total - target * (matrix[i, j] / TAU - normaliser) / (2 * n)
    return total


def contrast(z, pairs):
    terms = []
    for p, q in pairs:
        cosines = torch.stack([torch.stack([(x * y).sum() for y in z[q]]) for x in z[p]])
        terms.append(cross_entropy(cosines))
    return sum(terms) / len(terms)


def volume_contrast(z):
    n = len(z["text"])
    volumes = [
        torch.stack([reference.volume(torch.stack([z["text"][i], z["video"][j], z["audio"][j]])) for j in range(n)])
        for i in range(n)
    ]
    return cross_entropy(-torch.stack(volumes))


def mover_term(z):
    n = len(z["text"])
    plans = [reference.transport(z["text"], z[name], epsilon=EPSILON).plan for name in ("video", "audio")]
    masses = torch.full((n,), 1 / n, dtype=torch.float64)
    return weighted_volume([z[name] for name in NAMES], star_weights(plans, masses))


def loop(z):
    total, walk = 0.0, torch.eye(len(z["text"]), dtype=torch.float64)
    for p, q in (("text", "video"), ("video", "audio"), ("audio", "text")):
        plan, *_ = reference.transport(z[p], z[q], epsilon=EPSILON)
        walk = walk @ (plan / plan.sum(1, keepdim=True))
        total = total + reference.transport_value(z[p], z[q], epsilon=EPSILON)
        total = total - reference.transport_value(z[p], z[p], epsilon=EPSILON) / 2
        total = total - reference.transport_value(z[q], z[q], epsilon=EPSILON) / 2
    return total - sum(walk[i, i].log() for i in range(len(walk))) / len(walk)


def barycenter(z):
    center = z["text"]
    for _ in range(2):
        plans = [reference.transport(z[name], center, epsilon=EPSILON).plan for name in NAMES]
        moved = [plan.T @ z[name] for plan, name in zip(plans, NAMES, strict=True)]
        center = sum(moved) * len(center) / 3
    return sum(reference.transport_value(z[name], center, epsilon=EPSILON) for name in NAMES) / 3


def doubting(z):
    """Both contrasts without the text that has the least of its own clip."""
    n = len(z["text"])
    cost = sum(reference.cost(z["text"], z[name]) for name in ("video", "audio")) / 2
    masses = torch.full((n,), 1 / n, dtype=torch.float64)
    plan = partial_plan(cost, masses, masses, 0.8, 0.3)
    worst = min(range(n), key=lambda i: float(plan[i, i]))
    kept = {name: rows[[i for i in range(n) if i != worst]] for name, rows in z.items()}
    with_text = contrast(kept, [("text", "video")]) + contrast(kept, [("text", "audio")])
    return volume_contrast(kept) + (with_text + contrast(z, [("video", "audio")])) / 3


ALL_PAIRS = [("text", "video"), ("text", "audio"), ("video", "audio")]
FORMULAS = {
    "mover": lambda z: mover_term(z) + volume_contrast(z) + contrast(z, ALL_PAIRS),
    "mover-paper": lambda z: mover_term(z) + volume_contrast(z),
    "mover-sets": lambda z: volume_contrast(z) + contrast(z, ALL_PAIRS),  # of aligned rows, as all are here
    "mover-pool": lambda z: volume_contrast(z) + contrast(z, ALL_PAIRS),
    "mover-noisy": doubting,
    "gram": volume_contrast,
    "pairwise": lambda z: contrast(z, ALL_PAIRS),
    "text-anchor": lambda z: contrast(z, [("text", "video"), ("text", "audio")]),
    "image-anchor": lambda z: contrast(z, [("video", "text"), ("video", "audio")]),
    "ot-loop": lambda z: contrast(z, ALL_PAIRS) + 0.1 * loop(z),
    "ot-barycenter": lambda z: contrast(z, ALL_PAIRS) + 0.1 * barycenter(z),
}


def settings(**changes):
    return ObjectiveConfig(temperature=TAU, label_smoothing=SMOOTHING, transport=EXACT, **changes)


@pytest.mark.parametrize("preset", PRESETS)
def test_against_loops(preset):
    z = {name: rows.detach() for name, rows in embeddings(NAMES, 5, 6).items()}
    total = build_objective(settings(preset=preset), NAMES, (5, 6)).double()(z)["total"]
    torch.testing.assert_close(total.detach(), FORMULAS[preset](z), rtol=1e-6, atol=1e-7)  # tau is a float32


def test_every_preset_has_a_name_and_a_file_that_says_where_it_comes_from():
    assert tuple(PRESETS) == get_args(PresetName) == tuple(FORMULAS)
    files = {path.stem for path in Path(mover.presets.__file__).parent.glob("*.py")} - {"__init__", "preset"}
    assert files == {name.replace("-", "_") for name in PRESETS}
    for name, preset in PRESETS.items():
        module = importlib.import_module(f"mover.presets.{name.replace('-', '_')}")
        assert module.PRESET is preset
        assert module.__doc__.startswith(f"Preset `{name}`: ") and "\nSource: " in module.__doc__


def test_the_anchor_of_pairs():
    more = (*NAMES, "image")
    assert ObjectiveConfig().anchor_of_pairs(NAMES) is None
    assert ObjectiveConfig(preset="text-anchor").anchor_of_pairs(NAMES) == "text"
    assert ObjectiveConfig(preset="image-anchor").anchor_of_pairs(more) == "video"
    assert ObjectiveConfig(preset="image-anchor").anchor_of_pairs(("text", "image")) == "image"
    assert ObjectiveConfig(preset="image-anchor", pairwise_anchor="audio").anchor_of_pairs(NAMES) == "audio"
    assert ObjectiveConfig(pairwise_anchor="audio").anchor_of_pairs(NAMES) == "audio"


def test_settings_reach_the_regularisers():
    config = settings(ot_loop=0.2, ot_barycenter=0.3, cycle=0.5, barycenter_rounds=4, anchor="audio")
    objective = build_objective(config, NAMES)
    assert {"ot_loop": 0.2, "ot_barycenter": 0.3}.items() <= objective.weights.items()
    loop_term, center_term = objective.terms["ot_loop"], objective.terms["ot_barycenter"]
    assert (loop_term.cycle, loop_term.modalities, loop_term.transport) == (0.5, list(NAMES), EXACT)
    assert (center_term.rounds, center_term.modalities[0], center_term.transport) == (4, "audio", EXACT)


def test_regularisers_start_late_and_rise():
    config = settings(preset="ot-loop", ot_barycenter=0.4, ot_start=0.5, ot_warmup=0.2, mover_start=0.9)
    objective = build_objective(config, NAMES)
    for term, full in (("ot_loop", 0.1), ("ot_barycenter", 0.4)):
        weights = [objective.weight(term, progress) for progress in (0.0, 0.5, 0.6, 0.7, 1.0)]
        assert weights == pytest.approx([0.0, 0.0, full / 2, full, full])
    assert objective.weight("pairwise", 0.0) == 1
    z = embeddings(NAMES, 5, 6)
    assert set(objective(z, 0.4)) == {"pairwise", "total"}
    late = objective(z, 0.6)
    expected = late["pairwise"] + 0.05 * late["ot_loop"] + 0.2 * late["ot_barycenter"]
    torch.testing.assert_close(late["total"], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("preset", PRESETS)
def test_training_lowers_the_loss(preset):
    """Linear heads on three noisy views of the same latents, some rows without audio."""
    latents = unit_rows(24, 6, dtype=torch.float32, seed=1)
    views = [latents @ unit_rows(6, 10, dtype=torch.float32, seed=2 + m) for m in range(3)]
    torch.manual_seed(0)
    heads = torch.nn.ModuleDict({name: torch.nn.Linear(10, 8) for name in NAMES})
    present = {"audio": torch.arange(24) % 4 != 1}
    objective = build_objective(ObjectiveConfig(preset=preset), NAMES, (24, 8))
    optimizer = torch.optim.Adam([*heads.parameters(), *objective.parameters()], lr=0.02)
    values = []
    for _ in range(25):
        optimizer.zero_grad()
        z = {name: normalize(heads[name](view), dim=1) for name, view in zip(NAMES, views, strict=True)}
        partly = {"aligned": 8, "owner": dict.fromkeys(NAMES, torch.arange(24))}
        terms = objective(z, 1.0, present, **(partly if set(OF_MATCHES) & set(objective.weights) else {}))
        terms["total"].backward()
        optimizer.step()
        values.append({name: float(term.detach()) for name, term in terms.items()})
    given = [name for name in values[0] if name not in OF_MATCHES]  # those are of more and more rows
    assert all(values[-1][name] < values[0][name] for name in given)
    assert values[-1]["total"] < 0.9 * values[0]["total"]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"objective.preset": "ot-lop"}, "got 'ot-lop'; did you mean ot-loop?"),
        (
            {"objective.preset": "image"},
            "objective.preset: expected one of mover, mover-paper, mover-sets, mover-pool, mover-n",
        ),
        ({"objective.barycenter_rounds": "0"}, "objective.barycenter_rounds: expected an integer of at least 1 and at"),
        ({"objective.barycenter_rounds": "6"}, "an integer of at least 1 and at most 5, got '6'."),
        ({"objective.cycle": "-1"}, "objective.cycle: expected a number of at least 0, got '-1'."),
        ({"objective.ot_start": "1.5"}, "objective.ot_start: expected a number of at least 0 and at most 1, got '1.5'"),
        ({"objective.pairwise_anchor": "smell"}, "objective.pairwise_anchor: 'smell' is not among modalities ['text'"),
        (
            {"objective.preset": "image-anchor", "modalities": "text,audio"},
            "objective.preset: image-anchor: it contrasts every modality with video or image, which is not among "
            "modalities ['text', 'audio']; add it, name another with objective.pairwise_anchor, or take preset pairw",
        ),
        (
            {"objective.preset": "text-anchor", "modalities": "video,audio", "objective.anchor": "video"},
            "objective.preset: text-anchor: it contrasts every modality with text, which is not among modalities",
        ),
        (
            {"objective.preset": "mover-sets"},
            "objective.preset: mover-sets: it learns from clips that are not aligned, ",
        ),
        ({"objective.confident": "1"}, "objective.confident: it learns from clips that are not aligned, and data.alig"),
        ({"objective.preset": "ot-loop", "modalities": "text"}, "modalities: at least two different ones, got ['text"),
    ],
)
def test_what_is_refused_with_the_configuration(overrides, sentence):
    with pytest.raises(UserError) as raised:
        load_config("demo", overrides)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_on_the_command_line_is_that_preset(preset, tmp_path):
    """Whatever weights the file sets beside its own: demo has a small one for the mover term."""
    plain = resolve_weights(ObjectiveConfig(preset=preset))
    partly = {"data.aligned_fraction": 0.5}
    if preset != "mover":
        assert resolve_weights(load_config("demo", {"objective.preset": preset} | partly).objective) == plain
    path = tmp_path / "run.yaml"
    path.write_text("objective: {preset: gram, pairwise: 0.5, ot_loop: 0.7, pairwise_anchor: audio}\n")
    if preset != "gram":
        chosen = load_config(path, {"objective.preset": preset} | partly).objective
        assert resolve_weights(chosen) == plain and chosen.pairwise_anchor is None
    chosen = load_config(path, {"objective.preset": preset, "objective.mover": "0.25"} | partly).objective
    assert resolve_weights(chosen)["mover"] == 0.25


def test_the_preset_of_the_file_keeps_the_weights_of_the_file(tmp_path):
    for overrides in ({}, {"objective.preset": "mover"}):
        assert load_config("demo", overrides).objective.mover == 0.3
    path = tmp_path / "run.yaml"
    path.write_text("objective:\n  mover: 0.3\n")
    assert load_config(path, {"objective.preset": "mover"}).objective.mover == 0.3
    assert load_config(path, {"objective.preset": "gram"}).objective.mover is None


def test_an_objective_without_a_configuration_file_refuses_as_well():
    with pytest.raises(UserError, match="objective.preset: image-anchor: it contrasts every modality with video or"):
        build_objective(ObjectiveConfig(preset="image-anchor"), ("text", "audio"))
    with pytest.raises(UserError, match="objective.pairwise_anchor: 'smell' is not among"):
        build_objective(ObjectiveConfig(pairwise_anchor="smell"), NAMES)


def test_old_settings_mean_what_they_meant():
    assert Config().objective.anchor_of_pairs(Config().modalities) is None
    assert set(build_objective(ObjectiveConfig(), NAMES).weights) == {"mover", "volume_contrastive", "pairwise"}
