"""Doubt about aligned clips: the anchor that its other modalities do not bear out is left out of the contrasts."""

import pytest
import torch
from torch.nn.functional import normalize

from cases.operators import unit_rows
from cases.partial import partial_plan
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
    trusted = trusted_rows(check_embeddings(z, NAMES), by, GateConfig(wrong=0.25))
    assert [i for i, flag in enumerate(trusted.tolist()) if not flag] == [2, 5]


@pytest.mark.parametrize("by", ["transport", "softmax"])
@pytest.mark.parametrize("wrong", [0.2, 0.5, 0.7])
def test_against_loops(by, wrong):
    """Of rows that are as good as noise, some without the anchor or without some of the others, or all of them."""
    z = {name: unit_rows(9, 12, seed=m) for m, name in enumerate(NAMES)}
    rows = torch.arange(9)
    there = {"text": rows != 0, "video": (rows != 5) & (rows != 8), "audio": (rows != 3) & (rows != 8)}
    texts, clips = [1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 2, 3, 4, 5, 6, 7]
    cost = torch.zeros(8, 8, dtype=torch.float64)
    for r, i in enumerate(texts):
        for c, j in enumerate(clips):
            pairs = [float(((z["text"][i] - z[name][j]) ** 2).sum()) for name in NAMES[1:] if there[name][j]]
            cost[r, c] = sum(pairs) / len(pairs)
    if by == "transport":
        share = partial_plan(cost, *2 * [torch.full((8,), 1 / 8, dtype=torch.float64)], 1 - wrong, 0.4)
    else:
        share = torch.minimum((-cost / 0.4).softmax(0), (-cost / 0.4).softmax(1))
    own = sorted((float(share[texts.index(i), clips.index(i)]), i) for i in texts if i in clips)
    doubted = {i for _, i in own[: int(wrong * len(own))]}
    assert 0 < len(doubted) < len(own) == 7
    found = trusted_rows(check_embeddings(z, NAMES, there), by, GateConfig(epsilon=0.4, wrong=wrong))
    assert found.tolist() == [i not in doubted for i in range(9)]


def test_contrasts_do_not_see_the_doubted_anchor_and_still_see_the_rest_of_its_clip():
    z = with_wrong_captions()
    config = ObjectiveConfig(preset="mover", gate=GateConfig(by="transport", wrong=0.25, start=0.5))
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


def test_only_aligned_rows_are_doubted():
    z = with_wrong_captions()
    config = ObjectiveConfig(preset="pairwise", gate=GateConfig(by="transport", wrong=0.5, start=0))
    value = build_objective(config, NAMES).double()(z, aligned=4)
    assert bool(value["total"].isfinite())
    text, *_ = torch.autograd.grad(value["total"], list(z.values()))
    assert int(text.any(1).sum()) == 2 and not text[2].any() and not text[4:].any()


@pytest.mark.parametrize("by", ["transport", "softmax"])
def test_embeddings_that_are_all_one_point_leave_the_same_share_out(by):
    z = {name: torch.eye(1, 12).expand(8, 12) for name in NAMES}
    assert int(trusted_rows(check_embeddings(z, NAMES), by, GateConfig(wrong=0.4)).sum()) == 5


def test_too_few_rows_are_trusted():
    z = {name: rows.detach() for name, rows in with_wrong_captions().items()}
    there = {"audio": torch.arange(8) == 0}
    assert bool(trusted_rows(check_embeddings(z, NAMES, there), "transport", GateConfig(wrong=0.9)).all())
    pair = check_embeddings({name: rows[:2] for name, rows in z.items()}, NAMES)
    assert bool(trusted_rows(pair, "transport", GateConfig(wrong=0.4)).all())


def test_presets_and_settings_say_what_pairs_are_doubted_by():
    assert (
        ObjectiveConfig(preset="mover").gate_by == "none"
        and ObjectiveConfig(preset="mover-noisy").gate_by == "transport"
    )
    assert ObjectiveConfig(preset="mover-noisy", gate=GateConfig(by="none")).gate_by == "none"
    assert ObjectiveConfig(preset="mover", gate=GateConfig(by="softmax")).gate_by == "softmax"
