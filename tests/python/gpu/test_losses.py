"""The objectives on a GPU: the values and gradients of the CPU, and a training step."""

import copy

import pytest
import torch

pytest.importorskip("pydantic", reason="the objectives read their settings with pydantic, which is not installed")

from cases.operators import unit_rows
from mover.config import GateConfig, MatchingConfig, ObjectiveConfig, TransportConfig
from mover.losses import build_objective

pytestmark = pytest.mark.gpu
NAMES = ("text", "video", "audio")


def embeddings(device, dtype=torch.float64, names=NAMES, n=33, d=24):
    """Unit rows that resemble each other, leaves that ask for a gradient."""
    common = unit_rows(n, d, seed=9)
    rows = {
        name: torch.nn.functional.normalize(common + 0.6 * unit_rows(n, d, seed=seed), dim=1)
        for seed, name in enumerate(names, start=1)
    }
    return {name: tensor.to(device, dtype).requires_grad_() for name, tensor in rows.items()}


def terms_and_gradients(config, names, device, dtype, present=None, n=33):
    z = embeddings(device, dtype, names, n)
    objective = build_objective(config, names).to(device)
    if present is not None:
        present = {name: mask.to(device) for name, mask in present.items()}
    terms = objective(z, present=present)
    terms["total"].backward()
    gradients = {name: tensor.grad for name, tensor in z.items()}
    gradients |= {name: parameter.grad for name, parameter in objective.named_parameters()}
    return {name: term.detach() for name, term in terms.items()}, gradients


def check(config, names, device, dtype=torch.float64, present=None):
    cpu = terms_and_gradients(config, names, torch.device("cpu"), dtype, present)
    found = terms_and_gradients(config, names, device, dtype, present)
    tolerance = 1e-7 if dtype == torch.float64 else 2e-3  # gradients of temperatures are float32
    for ours, theirs in zip(found, cpu, strict=True):
        assert set(ours) == set(theirs)
        for name, tensor in ours.items():
            assert tensor.device.type == device.type, name
            torch.testing.assert_close(
                tensor.cpu(), theirs[name], rtol=tolerance, atol=1e-2 * tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )


CONVERGED = TransportConfig(tol=1e-10, max_iter=2000)
IMPLICIT = TransportConfig(tol=1e-10, max_iter=2000, plan_gradient="implicit")
CONFIGS = {
    "default": ObjectiveConfig(transport=CONVERGED),
    "paper": ObjectiveConfig(preset="mover-paper", denominator="negatives", transport=CONVERGED),
    "gram": ObjectiveConfig(preset="gram"),
    "pairwise": ObjectiveConfig(preset="pairwise"),
    "image-anchor": ObjectiveConfig(preset="image-anchor"),
    "ot-loop": ObjectiveConfig(preset="ot-loop", transport=CONVERGED),
    "ot-barycenter": ObjectiveConfig(preset="ot-barycenter", transport=CONVERGED),
    "implicit": ObjectiveConfig(transport=IMPLICIT),
    "cyclic": ObjectiveConfig(weights="cyclic", transport=CONVERGED),
    "hard": ObjectiveConfig(groups="hard", transport=CONVERGED),
    "topk": ObjectiveConfig(groups="topk", transport=IMPLICIT),
    "log": ObjectiveConfig(groups="topk", volume="log", transport=CONVERGED),
    "softmax": ObjectiveConfig(coupling="softmax", anchoring="all", transport=IMPLICIT),
    "cosine": ObjectiveConfig(volume="cosine", contrast_by="cosine", transport=IMPLICIT),
    "span": ObjectiveConfig(contrast_by="span", transport=CONVERGED),
    "cosine of the best": ObjectiveConfig(volume="cosine", groups="topk", transport=IMPLICIT),
    "cyclic cosine": ObjectiveConfig(volume="cosine", weights="cyclic", transport=IMPLICIT),
    "matched": ObjectiveConfig(positives="mixed", transport=IMPLICIT.model_copy(update={"guide": 0.3})),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_terms_and_gradients(name, device):
    check(CONFIGS[name], NAMES, device)


@pytest.mark.parametrize("names", [("text", "video"), ("text", "video", "audio", "more")])
def test_other_numbers_of_modalities(names, device):
    check(ObjectiveConfig(transport=CONVERGED), names, device)


@pytest.mark.parametrize("name", ["default", "topk", "ot-loop", "ot-barycenter", "softmax", "cosine", "matched"])
def test_missing_modalities(name, device):
    rows = torch.arange(33)
    present = {"video": rows % 3 != 1, "audio": rows % 4 != 2, "text": rows % 11 != 5}
    check(CONFIGS[name], NAMES, device, present=present)


def test_single_precision(device):
    check(ObjectiveConfig(transport=TransportConfig(tol=0.0, max_iter=2000)), NAMES, device, torch.float32)


def test_samples_are_drawn_on_the_device(device):
    config = ObjectiveConfig(groups="sample", transport=CONVERGED)
    terms, gradients = terms_and_gradients(config, NAMES, device, torch.float64)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in [*terms.values(), *gradients.values()])
    exact, _ = terms_and_gradients(ObjectiveConfig(transport=CONVERGED), NAMES, device, torch.float64)
    assert float(terms["mover"]) == pytest.approx(float(exact["mover"]), rel=0.2)


def test_under_autocast(device):
    """The towers' bfloat16 does not reach the objective."""
    z = embeddings(device, torch.float32)
    objective = build_objective(ObjectiveConfig(), NAMES).to(device)
    expected = objective(z)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found = objective(z)
    for name, term in found.items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, expected[name], rtol=1e-5, atol=1e-6)


def test_training_steps(device):
    """Ten steps of a linear head for each modality end where the CPU's do."""
    results = {}
    heads = torch.nn.ModuleDict({name: torch.nn.Linear(24, 16) for name in NAMES}).double()
    for place in (torch.device("cpu"), device):
        model = copy.deepcopy(heads).to(place)
        objective = build_objective(ObjectiveConfig(transport=CONVERGED), NAMES).to(place)
        optimizer = torch.optim.AdamW([*model.parameters(), *objective.parameters()], lr=1e-2)
        features = {name: tensor.detach() for name, tensor in embeddings(place).items()}
        losses = []
        for _ in range(10):
            z = {name: torch.nn.functional.normalize(model[name](rows), dim=-1) for name, rows in features.items()}
            loss = objective(z)["total"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
        results[place.type] = losses
    assert results[device.type] == pytest.approx(results["cpu"], rel=1e-4)
    assert results[device.type][-1] < results[device.type][0]


def test_the_default_objective_does_not_wait_for_the_gpu(device):
    """With every clip complete: nothing of it goes through the host."""
    z = embeddings(device, torch.float32)
    objective = build_objective(ObjectiveConfig(), NAMES).to(device)
    objective(z)["total"].backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        objective(z)["total"].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_plans_of_the_objective(device):
    config = ObjectiveConfig(transport=CONVERGED)
    found = build_objective(config, NAMES).to(device).plans(embeddings(device))
    expected = build_objective(config, NAMES).plans(embeddings("cpu"))
    assert set(found) == set(expected)
    for name, plan in found.items():
        torch.testing.assert_close(plan.cpu(), expected[name], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("together", [(), ("video", "audio")])
@pytest.mark.parametrize("by", ["transport", "softmax"])
def test_terms_of_matches(by, together, device):
    """Rows in unknown order, some of them missing; the pool is filled, matched and contrasted in two steps."""
    config = ObjectiveConfig(
        preset="mover-sets",
        plan_targets=0.5,
        pool=0.7,
        matching=MatchingConfig(by=by, epsilon=0.2, refresh=1, start=0),
        gate=GateConfig(by=by, start=0),
    )
    results = []
    for place in (torch.device("cpu"), device):
        z = embeddings(place)
        rows = torch.arange(33, device=place)
        objective = build_objective(config, NAMES, (33, 24)).double().to(place)
        about = {
            "present": {"video": rows % 7 != 6, "audio": rows % 8 != 5},
            "owner": dict.fromkeys(NAMES, rows),
            "aligned": 9,
            "together": together,
        }
        objective(z, step=0, **about)
        terms = objective(z, step=1, **about)
        gradients = torch.autograd.grad(terms["total"], list(z.values()))
        results.append([term.detach().cpu() for term in terms.values()] + [gradient.cpu() for gradient in gradients])
        assert float(terms["pool"].detach()) > 0 and float(terms["confident"].detach()) > 0
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
