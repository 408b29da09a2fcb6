"""InfoNCE between all pairs, recomputed with loops; the temperature."""

import math

import pytest
import torch

from mover.errors import UserError
from mover.losses import PairwiseLoss
from mover.losses.temperature import Temperature

NAMES = ("text", "video", "audio")


@pytest.mark.parametrize("names", [("video", "text"), NAMES])
def test_against_loops(z, names):
    loss = PairwiseLoss(names, temperature=0.5, label_smoothing=0.1).double()
    terms = []
    for p in range(len(names)):
        for q in range(p + 1, len(names)):
            x, y = z[names[p]], z[names[q]]
            for a, b in ((x, y), (y, x)):
                for i in range(6):
                    logits = torch.stack([(a[i] * b[j]).sum() / 0.5 for j in range(6)])
                    log_share = logits - logits.exp().sum().log()
                    terms.append(-(0.9 * log_share[i] + 0.1 * log_share.mean()))
    torch.testing.assert_close(loss(z), torch.stack(terms).mean(), rtol=1e-6, atol=1e-6)


def test_gradient(z):
    loss = PairwiseLoss(NAMES, temperature=0.5).double()
    assert torch.autograd.gradcheck(lambda *rows: loss(dict(zip(NAMES, rows, strict=True))), tuple(z.values()))


def test_autocast_does_not_reach_the_products(z):
    single = {name: rows.detach().float() for name, rows in z.items()}
    loss = PairwiseLoss(NAMES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = loss(single)
    assert torch.equal(under, loss(single))


def test_temperature_is_learned_as_a_logarithm():
    temperature = Temperature(0.07)
    assert float(temperature().detach()) == pytest.approx(0.07)
    assert [name for name, _ in temperature.named_parameters()] == ["log"]
    temperature().backward()
    assert float(temperature.log.grad) == pytest.approx(0.07)


@pytest.mark.parametrize(("drift", "bound"), [(-20.0, 0.01), (5.0, 1.0)])
def test_temperature_stays_in_its_interval_and_comes_back(drift, bound):
    temperature = Temperature(0.07)
    with torch.no_grad():
        temperature.log.add_(drift)
    assert float(temperature().detach()) == pytest.approx(bound)
    temperature().backward()
    assert float(temperature.log.grad) == pytest.approx(bound)  # not stuck at the bound
    assert float(temperature.log.detach()) == pytest.approx(math.log(bound))


def test_fixed_temperature_is_no_parameter_but_is_saved():
    temperature = Temperature(0.07, learned=False)
    assert list(temperature.parameters()) == []
    assert set(temperature.state_dict()) == {"log"}


@pytest.mark.parametrize("initial", [0.001, 1.5, float("nan")])
def test_initial_temperature_out_of_range(initial):
    with pytest.raises(UserError, match=r"must lie in \[0.01, 1.0\]"):
        Temperature(initial)
