"""Plans of the entropic problem and of the softmax, with and without known pairs, against plain loops."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from cases.operators import unit_rows
from cases.star import coupled, embeddings
from mover import reference
from mover.config import TransportConfig
from mover.errors import UserError
from mover.losses.coupling import couple
from mover.losses.embeddings import check_embeddings

NAMES = ("text", "video", "audio")
STAR = [(0, 1), (0, 2)]
EXACT = TransportConfig(epsilon=0.4, max_iter=20000, tol=0.0)
EVERYWHERE = {name: torch.ones(6, dtype=torch.bool) for name in NAMES}
SOMEWHERE = {
    "text": torch.tensor([1, 1, 0, 1, 1, 1]).bool(),
    "video": torch.tensor([1, 0, 1, 1, 0, 1]).bool(),
    "audio": torch.tensor([0, 1, 1, 1, 1, 0]).bool(),
}


def with_config(**changes):
    return EXACT.model_copy(update=changes)


@pytest.mark.parametrize("present", [EVERYWHERE, SOMEWHERE], ids=["complete", "missing"])
@pytest.mark.parametrize("coupling", ["transport", "softmax"])
@pytest.mark.parametrize(("guide", "aligned"), [(0.0, None), (0.7, None), (0.7, 3), (0.7, 0), (0.7, 6)])
def test_against_loops(z, present, coupling, guide, aligned):
    clips = check_embeddings(z, NAMES, present)
    plans, costs = couple(clips, STAR, with_config(guide=guide), coupling, aligned)
    masks = [present[name] for name in NAMES]
    expected, masses = coupled([z[name] for name in NAMES], masks, 0.4, coupling, guide, aligned)
    torch.testing.assert_close(plans, torch.stack(expected), rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(plans.sum(-1), masses.expand(2, 6), rtol=1e-9, atol=1e-12)
    true = torch.stack([reference.cost(*(torch.stack(clips.rows)[list(pair)])) for pair in STAR])
    torch.testing.assert_close(costs, true, rtol=1e-9, atol=1e-12)  # those of no pair are lowered


def test_softmax_is_the_first_half_iteration(z):
    """Potentials of the columns at 0: f_i = -epsilon log sum_j b_j exp(-C_ij / epsilon)."""
    clips = check_embeddings(z, NAMES)
    plans, costs = couple(clips, STAR, EXACT, "softmax")
    f = -0.4 * torch.logsumexp(-costs / 0.4 - math.log(6), dim=-1, keepdim=True)
    torch.testing.assert_close(plans, torch.exp((f - costs) / 0.4) / 36, rtol=1e-9, atol=0)
    assert float((plans.sum(-2) - 1 / 6).abs().max()) > 1e-3  # and the columns are not balanced


def test_a_guide_draws_the_plan_to_the_known_pairs(z):
    z = {**z, "video": z["video"].flip(0)}  # the pairs that are told are the wrong ones
    clips = check_embeddings(z, NAMES)
    kept = [float(couple(clips, STAR, with_config(guide=guide)).plans[0].trace().detach()) for guide in (0, 1, 4)]
    assert kept[0] < kept[1] < 0.5 and kept[2] > 0.95
    first = couple(clips, STAR, with_config(guide=4.0), aligned=2).plans[0].diagonal()
    assert float(first[:2].min()) > 0.12 and float(first[2:].max()) < 0.1


@pytest.mark.parametrize("coupling", ["transport", "softmax"])
@pytest.mark.parametrize("guide", [0.0, 0.5])
@pytest.mark.parametrize("present", [None, SOMEWHERE], ids=["complete", "missing"])
def test_the_gradient_of_the_plan(coupling, guide, present):
    leaves = [
        torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(i)).requires_grad_()
        for i in range(3)
    ]
    weights = torch.rand(2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(9))

    def value(*rows, gradient="implicit"):
        clips = check_embeddings({n: normalize(r, dim=1) for n, r in zip(NAMES, rows, strict=True)}, NAMES, present)
        plans, costs = couple(clips, STAR, with_config(guide=guide, plan_gradient=gradient), coupling, 4)
        return (weights * plans * costs).sum()

    assert torch.autograd.gradcheck(value, leaves)
    exact, detached = (torch.autograd.grad(value(*leaves, gradient=g), leaves)[0] for g in ("implicit", "detached"))
    assert float((exact - detached).norm() / exact.norm()) > 0.01
    clips = check_embeddings({n: normalize(r, dim=1) for n, r in zip(NAMES, leaves, strict=True)}, NAMES)
    assert not couple(clips, STAR, with_config(guide=guide), coupling).plans.requires_grad


@pytest.mark.parametrize("coupling", ["transport", "softmax"])
def test_single_precision_and_autocast(coupling):
    """A guide as large as the largest cost at a small epsilon: exponents of 80."""
    z = {name: unit_rows(64, 16, dtype=torch.float32, seed=i) for i, name in enumerate(NAMES)}
    config = TransportConfig(epsilon=0.05, guide=4.0)
    plans, _ = couple(check_embeddings(z, NAMES), STAR, config, coupling, 32)
    exact, _ = couple(check_embeddings({n: r.double() for n, r in z.items()}, NAMES), STAR, config, coupling, 32)
    torch.testing.assert_close(plans.double(), exact, rtol=2e-3, atol=1e-7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(couple(check_embeddings(z, NAMES), STAR, config, coupling, 32).plans, plans)


@pytest.mark.parametrize("aligned", [-1, 7])
def test_more_known_pairs_than_clips_are_refused(z, aligned):
    with pytest.raises(UserError, match=f"a batch of 6 clips, expected 0 to 6 to be aligned, got {aligned}"):
        couple(check_embeddings(z, NAMES), STAR, with_config(guide=1.0), aligned=aligned)


def test_a_nan_stays(z):
    z = embeddings(NAMES, 6, 8)
    z["video"] = torch.where(torch.arange(6)[:, None] == 2, torch.nan, z["video"])
    for coupling in ("transport", "softmax"):
        for guide in (0.0, 1.0):
            assert bool(
                couple(check_embeddings(z, NAMES), STAR, with_config(guide=guide), coupling).plans.isnan().any()
            )
