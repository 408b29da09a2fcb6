"""Doubt about aligned clips: the anchor that its other modalities do not bear out is left out of the contrasts."""

import pytest
import torch
from torch.nn.functional import normalize

from cases.operators import unit_rows
from mover import reference
from mover.config import GateConfig, ObjectiveConfig
from mover.losses import build_objective
from mover.losses.embeddings import check_embeddings
from mover.losses.gate import trusted_rows

NAMES = ("text", "video", "audio")


def with_wrong_captions(n=8, wrong=(2, 5)):
    """Rows that go together, but for two texts that have changed places."""
    items = unit_rows(n, 12, seed=1)
    z = {name: normalize(items + 0.1 * unit_rows(n, 12, seed=2 + m), dim=1) for m, name in enumerate(NAMES)}
    order = list(range(n))
    order[wrong[0]], order[wrong[1]] = wrong[1], wrong[0]
    z["text"] = z["text"][order]
    return {name: rows.clone().requires_grad_() for name, rows in z.items()}


@pytest.mark.parametrize("by", ["transport", "softmax"])
def test_wrong_captions_are_found(by):
    z = with_wrong_captions()
    trusted = trusted_rows(check_embeddings(z, NAMES), GateConfig(by=by))
    assert [i for i, flag in enumerate(trusted.tolist()) if not flag] == [2, 5]


@pytest.mark.parametrize("by", ["transport", "softmax"])
def test_against_loops(by):
    z = {name: rows.detach() for name, rows in with_wrong_captions().items()}
    z["audio"] = normalize(z["audio"] + 1.5 * unit_rows(8, 12, seed=7), dim=1)
    there = {"text": torch.arange(8) != 0, "video": torch.arange(8) != 5, "audio": torch.arange(8) != 3}
    gate = GateConfig(by=by, epsilon=0.4, threshold=0.3)
    expected = []
    for i in range(8):
        doubted = False
        for name in ("video", "audio"):
            rows, columns = there["text"].nonzero().flatten().tolist(), there[name].nonzero().flatten().tolist()
            if i not in rows or i not in columns:
                continue
            cost = reference.cost(z["text"][rows], z[name][columns])
            a, b = rows.index(i), columns.index(i)
            if by == "transport":
                plan = reference.sinkhorn(cost, epsilon=0.4, tol=1e-12, max_iter=100000).plan
                share = plan[a, b] * len(rows)
            else:
                kernel = (-cost / 0.4).exp()
                share = min(kernel[a, b] / kernel[a].sum(), kernel[a, b] / kernel[:, b].sum())
            doubted |= float(share) < 0.3
        expected.append(not doubted)
    assert trusted_rows(check_embeddings(z, NAMES, there), gate).tolist() == expected
    assert True in expected and False in expected


def test_contrasts_do_not_see_the_doubted_anchor_and_still_see_the_rest_of_its_clip():
    z = with_wrong_captions()
    config = ObjectiveConfig(preset="mover", gate=GateConfig(by="transport", start=0.5))
    objective = build_objective(config, NAMES).double()
    gated = objective(z, 0.6)
    there = {"text": torch.tensor([i not in (2, 5) for i in range(8)])}
    plain = build_objective(ObjectiveConfig(preset="mover"), NAMES).double()
    masked, whole = plain(z, 0.6, there), plain(z, 0.6)
    for name in ("volume_contrastive", "pairwise"):
        torch.testing.assert_close(gated[name], masked[name])
    torch.testing.assert_close(gated["mover"], whole["mover"])  # a plan has no use for the given pairs
    contrast = gated["volume_contrastive"] + gated["pairwise"]
    text, video, _ = torch.autograd.grad(contrast, list(z.values()))
    assert not text[[2, 5]].any() and bool(video[[2, 5]].abs().sum(1).min() > 0)
    early = objective(z, 0.4)
    for name in ("volume_contrastive", "pairwise"):
        torch.testing.assert_close(early[name], whole[name])


def test_only_aligned_rows_are_doubted_and_all_of_a_batch_may_be():
    z = with_wrong_captions()
    config = ObjectiveConfig(preset="pairwise", gate=GateConfig(by="transport", threshold=1.0, start=0))
    value = build_objective(config, NAMES).double()(z, aligned=4)
    assert bool(value["total"].isfinite())
    text, *_ = torch.autograd.grad(value["total"], list(z.values()))
    assert not text.any()  # no share is 1: every text is in doubt


def test_too_few_rows_are_trusted():
    z = {name: rows.detach() for name, rows in with_wrong_captions().items()}
    there = {"audio": torch.arange(8) == 0}
    assert bool(trusted_rows(check_embeddings(z, NAMES, there), GateConfig(by="transport")).all())
