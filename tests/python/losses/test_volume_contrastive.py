"""Equations 9 and 10, recomputed with loops."""

import math

import pytest
import torch

from mover import reference
from mover.errors import UserError
from mover.losses import VolumeContrastiveLoss
from mover.losses.contrast import diagonal_cross_entropy, symmetric_cross_entropy

NAMES = ("text", "video", "audio")


def with_loops(volumes, tau, smoothing, denominator):
    """-log exp(-Vol_ii/tau) / sum_j exp(-Vol_ij/tau), smoothed, averaged over rows and columns."""
    n = volumes.shape[0]
    total = torch.zeros((), dtype=torch.float64)
    for matrix in (volumes, volumes.T):
        for i in range(n):
            others = [j for j in range(n) if denominator == "all" or j != i]
            normaliser = sum(torch.exp(-matrix[i, j] / tau) for j in others).log()
            for j in range(n):
                target = (1 - smoothing if i == j else 0) + smoothing / n
                total = total - target * (-matrix[i, j] / tau - normaliser)
    return total / (2 * n)


@pytest.mark.parametrize("denominator", ["all", "negatives"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("names", [("text", "audio"), NAMES])
def test_against_loops(z, names, smoothing, denominator):
    loss = VolumeContrastiveLoss(
        names, "audio", temperature=0.2, label_smoothing=smoothing, denominator=denominator
    ).double()
    value = loss(z)
    others = torch.stack([z[name] for name in names if name != "audio"], dim=1)
    volumes = reference.volume_scores(z["audio"], others)
    expected = with_loops(volumes, 0.2, smoothing, denominator)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)  # tau is stored in single precision
    value.backward()
    ours = z["text"].grad.clone()
    theirs = torch.autograd.grad(expected, z["text"])[0]
    tangent = [g - (g * z["text"]).sum(1, keepdim=True) * z["text"] for g in (ours, theirs)]
    torch.testing.assert_close(*tangent, rtol=1e-5, atol=1e-6)
    assert loss.temperature.log.grad.abs() > 0


def test_cross_entropy_agrees_with_torch():
    logits = torch.randn(3, 7, 7)
    expected = [torch.nn.functional.cross_entropy(m, torch.arange(7), label_smoothing=0.1) for m in logits]
    torch.testing.assert_close(diagonal_cross_entropy(logits, 0.1), torch.stack(expected))
    torch.testing.assert_close(symmetric_cross_entropy(logits, 0.1), symmetric_cross_entropy(logits.mT, 0.1))


def test_two_groups_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    # rows: log 4 and log 2; columns: log 2 and log 4
    assert float(symmetric_cross_entropy(logits)) == pytest.approx((math.log(4) + math.log(2)) / 2)
    # without the positive: log 3 - 0 and 0 - 0; columns the same
    assert float(symmetric_cross_entropy(logits, 0.0, "negatives")) == pytest.approx(math.log(3) / 2)


def test_aligned_clips_have_a_smaller_loss_than_mixed_ones(z):
    loss = VolumeContrastiveLoss(NAMES, "text", temperature=0.05, label_smoothing=0.0)
    aligned, mixed = loss(z), loss({**z, "text": z["text"].flip(0)})
    assert float(aligned.detach()) < float(mixed.detach())


def test_more_modalities_than_volumes_are_for():
    names = [f"m{i}" for i in range(9)]
    VolumeContrastiveLoss(names[:8], "m0")
    with pytest.raises(UserError, match=r"at most 8 modalities, got 9\. Set objective\.volume_contrastive to 0"):
        VolumeContrastiveLoss(names, "m0")
