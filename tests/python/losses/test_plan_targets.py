"""Soft targets from a plan, against loops over the definition."""

import pytest
import torch

from cases.star import embeddings
from mover import reference
from mover.config import MatchingConfig, ObjectiveConfig
from mover.losses import build_objective
from mover.losses.plan_targets import PlanTargetsLoss

NAMES = ("text", "video", "audio")
TAU, EPSILON = 0.5, 0.3


def by_loops(x, y, by):
    """One pair of modalities, one logarithm at a time."""
    n = len(x)
    cost = reference.cost(x, y).detach()
    plan = reference.sinkhorn(cost, epsilon=EPSILON, tol=1e-12, max_iter=100000).plan
    kernel = (-cost / EPSILON).exp()
    total = 0.0
    for i in range(n):
        for j in range(n):
            if by == "transport":
                of_row, of_column = plan[i, j] * n, plan[i, j] * n
            else:
                of_row, of_column = kernel[i, j] / kernel[i].sum(), kernel[i, j] / kernel[:, j].sum()
            logit = (x[i] * y[j]).sum() / TAU
            row = sum(((x[i] * y[m]).sum() / TAU).exp() for m in range(n))
            column = sum(((x[m] * y[j]).sum() / TAU).exp() for m in range(n))
            total = total - (of_row * (logit - row.log()) + of_column * (logit - column.log())) / (2 * n)
    return total


def loss(by="transport", names=NAMES, **settings):
    config = MatchingConfig(by=by, epsilon=EPSILON, **settings)
    return PlanTargetsLoss(names, names[0], config, temperature=TAU).double()


@pytest.mark.parametrize("by", ["transport", "softmax"])
def test_against_loops(by):
    z = embeddings(NAMES, 6, 8)
    value, expected = loss(by)(z), sum(by_loops(z["text"], z[m], by) for m in NAMES[1:]) / 2
    torch.testing.assert_close(value, expected, rtol=2e-3, atol=1e-6)  # the plan stops at an error of 1e-3
    for one, other in zip(*(torch.autograd.grad(v, list(z.values())) for v in (value, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("by", ["transport", "softmax"])
def test_rows_that_are_not_there_take_no_part(by):
    z = embeddings(NAMES, 7, 8)
    there = {"text": torch.arange(7) != 3, "audio": torch.arange(7) > 1}
    value = loss(by)(z, there)
    expected = 0.0
    for m in NAMES[1:]:
        rows = [z["text"][there["text"]], z[m][there.get(m, torch.ones(7, dtype=torch.bool))]]
        config = MatchingConfig(by=by, epsilon=EPSILON)
        if len(rows[0]) == len(rows[1]):
            expected = expected + loss(by, ("a", "b"))({"a": rows[0], "b": rows[1]}) / 2
            continue
        cost = reference.cost(*rows).detach()
        n, m_rows = cost.shape
        if by == "transport":
            plan = reference.sinkhorn(cost, epsilon=EPSILON, tol=1e-12, max_iter=100000).plan
            targets = plan * n, plan * m_rows
        else:
            targets = (-cost / config.epsilon).softmax(1), (-cost / config.epsilon).softmax(0)
        logits = rows[0] @ rows[1].T / TAU
        by_row = -(targets[0] * logits.log_softmax(1)).sum() / n
        by_column = -(targets[1] * logits.log_softmax(0)).sum() / m_rows
        expected = expected + (by_row + by_column) / 4
    torch.testing.assert_close(value, expected, rtol=2e-3, atol=1e-6)
    gradients = torch.autograd.grad(value, list(z.values()))
    assert not gradients[0][3].any() and not gradients[2][:2].any()


def test_a_permutation_is_the_contrast_of_the_pairs():
    """A plan that is sure is a hard target: no label smoothing, the same as InfoNCE of the rows put in order."""
    x = torch.eye(5, dtype=torch.float64)
    order = torch.tensor([3, 0, 4, 1, 2])
    value = PlanTargetsLoss(("a", "b"), "a", MatchingConfig(epsilon=0.05), temperature=TAU).double()(
        {"a": x, "b": x[order]}
    )
    config = ObjectiveConfig(preset="pairwise", anchor="a", temperature=TAU, label_smoothing=0)
    expected = build_objective(config, ("a", "b")).double()({"a": x, "b": x})["pairwise"]
    torch.testing.assert_close(value, expected)


def test_modalities_that_are_together_have_one_plan_and_the_mean_of_their_cosines():
    z = embeddings(NAMES, 6, 8)
    value = loss()(z, together=("video", "audio"))
    costs = (reference.cost(z["text"], z["video"]) + reference.cost(z["text"], z["audio"])) / 2
    plan = reference.sinkhorn(costs.detach(), epsilon=EPSILON, tol=1e-12, max_iter=100000).plan
    logits = (1 - costs / 2) / TAU
    expected = -(plan * (logits.log_softmax(0) + logits.log_softmax(1))).sum() / 2
    torch.testing.assert_close(value, expected, rtol=2e-3, atol=1e-6)


def test_in_the_objective_it_is_of_the_rows_that_are_not_aligned():
    z = embeddings(NAMES, 8, 8)
    config = ObjectiveConfig(
        preset="pairwise", plan_targets=0.5, temperature=TAU, matching=MatchingConfig(epsilon=EPSILON)
    )
    objective = build_objective(config, NAMES).double()
    assert {name for name, _ in objective.named_parameters()} == {
        "terms.pairwise.temperature.log", "terms.plan_targets.temperature.log"
    }  # fmt: skip
    terms = objective(z, aligned=3)
    torch.testing.assert_close(terms["plan_targets"], loss()({name: rows[3:] for name, rows in z.items()}))
    torch.testing.assert_close(terms["total"], terms["pairwise"] + 0.5 * terms["plan_targets"])
    few = objective(z, aligned=7)["plan_targets"]
    assert float(few.detach()) == 0 and not any(g.any() for g in torch.autograd.grad(few, list(z.values())))


def test_gradcheck():
    """At fixed targets, which have no gradient: softmax at so high a temperature that they do not move."""
    z = embeddings(("a", "b"), 4, 5)
    term = PlanTargetsLoss(("a", "b"), "a", MatchingConfig(by="softmax", epsilon=1e6), temperature=TAU).double()
    assert torch.autograd.gradcheck(lambda a, b: term({"a": a, "b": b}), tuple(z.values()))
