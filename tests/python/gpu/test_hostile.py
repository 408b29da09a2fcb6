"""Bad input: NaN stays in its problem, mistakes get a sentence, and the process goes on."""

import pytest
import torch

from cases.on_device import assert_same_bits, moved, outputs_and_gradients
from cases.operators import (
    ALL_OPERATORS,
    OPERATORS,
    differentiable_outputs,
    map_floating,
    operator,
    outputs_of,
    tensors_of,
    unit_rows,
    with_gradients,
)
from mover import ops

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.float64]
BATCHED = ["cost", "sinkhorn", "transport", "transport_value", "gram", "logdet", "volume", "contrast"]


@pytest.fixture(autouse=True)
def _later_calls_are_fine(device):
    yield
    torch.cuda.synchronize()
    assert torch.equal(ops.cost(torch.eye(3, device=device), torch.eye(3, device=device)).cpu(), 2 - 2 * torch.eye(3))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BATCHED)
def test_nan_in_one_problem_stays_there(name, dtype, value, device):
    """The outputs and gradients of the other problems keep their bits."""
    arguments = moved(OPERATORS[name](dtype), device)

    def run(first):
        leaf = first.clone().requires_grad_()
        outputs = outputs_of(operator(name)(leaf, *arguments[1:]))
        ends = differentiable_outputs(name, outputs)
        grads = torch.autograd.grad(ends, leaf, [torch.ones_like(end) for end in ends])
        return [*(output.detach() for output in outputs), *grads]

    spoiled = arguments[0].clone()
    spoiled[(0, *[0] * (spoiled.dim() - 1))] = value
    found, clean = run(spoiled), run(arguments[0])
    assert not torch.isfinite(found[0][0]).all()
    if value != value:
        assert torch.isnan(found[0][0]).any() or name == "logdet"
    assert_same_bits([output[1:] for output in found], [output[1:] for output in clean])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_in_one_row_stays_in_its_scores(value, dtype, device):
    anchor, others = unit_rows(70, 32, dtype=dtype).to(device), unit_rows(66, 2, 32, dtype=dtype, seed=1).to(device)
    clean = ops.volume_scores(anchor, others)
    anchor[3, 5], others[7, 1, 0] = value, value
    found = ops.volume_scores(anchor, others)
    touched = torch.zeros_like(found, dtype=torch.bool)
    touched[3], touched[:, 7] = True, True
    assert bool(torch.isnan(found[touched]).all())
    assert_same_bits([found[~touched]], [clean[~touched]])
    rank = ops.volume_rank(anchor, others, torch.arange(70, device=device) % 66)
    assert int(rank.better[3]) == 65 and int(rank.tied[3]) == 0
    assert int(ops.volume_topk(anchor, others, 66).indices[0, -1]) == 7


def test_nan_in_one_cost_stays_in_its_groups(device):
    costs, groups = moved(OPERATORS["group_volume"](torch.float64), device)
    clean = ops.group_volume(costs, groups)
    costs[0, 0, 1] = torch.nan  # of modalities 1 and 2, rows 0 and 1: in the groups that begin with 0, 1
    found = ops.group_volume(costs, groups)
    touched = (groups[:, 0] == 0) & (groups[:, 1] == 1)
    assert bool(touched.any()) and bool(torch.isnan(found[touched]).all())
    assert_same_bits([found[~touched]], [clean[~touched]])


@pytest.mark.parametrize("row", [-1, 3, 2**40])
def test_a_group_with_a_row_that_is_not_there(row, device):
    """The values of row numbers are not read by the host: such a group has the volume NaN and no gradient."""
    costs, groups = moved(OPERATORS["group_volume"](torch.float64), device)
    clean = ops.group_volume(costs, groups)
    groups[1, 2] = row
    leaf = costs.clone().requires_grad_()
    found = ops.group_volume(leaf, groups)
    assert bool(torch.isnan(found[1]))
    kept = [0, 2, 3, 4]
    assert_same_bits([found[kept].detach()], [clean[kept]])
    found.nansum().backward()
    expected = costs.clone().requires_grad_()
    ops.group_volume(expected, groups[kept]).sum().backward()
    torch.testing.assert_close(leaf.grad, expected.grad)


@pytest.mark.parametrize("target", [-1, 66, 2**40])
def test_a_target_that_is_not_there(target, device):
    """Its ranks are -1, the others' what they are without it."""
    anchor, others = unit_rows(70, 32).to(device), unit_rows(66, 2, 32, seed=1).to(device)
    targets = torch.arange(70, device=device) % 66
    clean = ops.volume_rank(anchor, others, targets)
    targets[9] = target
    found = ops.volume_rank(anchor, others, targets)
    assert int(found.better[9]) == int(found.tied[9]) == -1
    kept = torch.arange(70, device=device) != 9
    assert_same_bits([found.better[kept], found.tied[kept]], [clean.better[kept], clean.tied[kept]])


@pytest.mark.parametrize("name", ALL_OPERATORS)
def test_tensors_on_two_devices(name, device):
    arguments = list(moved(ALL_OPERATORS[name](torch.float32), device))
    tensors = [i for i, value in enumerate(arguments) if isinstance(value, torch.Tensor)]
    for i in tensors if len(tensors) > 1 else []:
        mixed = [value.cpu() if j == i else value for j, value in enumerate(arguments)]
        where = r"\(cpu\), got cuda:0" if i == tensors[0] else r"\(cuda:0\), got cpu"
        called = name.removesuffix("_with_alphas")
        with pytest.raises(RuntimeError, match=rf"mover::{called}: \w+ must be on the device of \w+ {where}"):
            operator(name)(*mixed)


@pytest.mark.parametrize("name", ALL_OPERATORS)
def test_tensors_of_two_types(name, device):
    arguments = list(moved(ALL_OPERATORS[name](torch.float32), device))
    tensors = [i for i, v in enumerate(arguments) if isinstance(v, torch.Tensor) and v.is_floating_point()]
    for i in tensors[1:]:
        mixed = [value.double() if j == i else value for j, value in enumerate(arguments)]
        called = name.removesuffix("_with_alphas")
        with pytest.raises(RuntimeError, match=rf"mover::{called}: \w+ must have the dtype of \w+ \(float32\), got"):
            operator(name)(*mixed)


REFUSED = {
    "cost: x must be float32 or float64, got int64": lambda x, y: operator("cost")(x.long(), y),
    "cost: x (..., n, d) and y (..., m, d) must agree in all sizes but n and m": lambda x, y: ops.cost(x, y[:, :3]),
    "transport: epsilon must be > 0": lambda x, y: ops.transport(x, y, epsilon=0.0),
    "transport: there must be at least one row on either side": lambda x, y: ops.transport(x, y[:0]),
    "volume: a group must have 1 to 8 vectors, got k = 15": lambda x, y: ops.volume(x.repeat(3, 1)),
    "volume_scores: a group must have k = 2 to 8 members": lambda x, y: ops.volume_scores(
        x, y[:, None].expand(-1, 8, -1)
    ),
    "volume_topk: topk must be from 1 to the number of groups": lambda x, y: ops.volume_topk(x, y[:, None], 7),
    "contrast: scores must have the shape (..., B, B)": lambda x, y: ops.contrast(x),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message, device):
    x, y = unit_rows(5, 7, dtype=torch.float32).to(device), unit_rows(6, 7, dtype=torch.float32, seed=1).to(device)
    with pytest.raises(RuntimeError) as error:
        REFUSED[message](x, y)
    assert str(error.value).startswith(f"mover::{message}")
    assert "\n" not in str(error.value)


def test_more_than_the_memory_holds(device):
    x = torch.rand(1 << 21, 1, device=device)
    with pytest.raises(RuntimeError, match=r"needs .* GB"):
        ops.cost(x, x)
    with pytest.raises(RuntimeError, match=r"needs .* GB"):
        ops.transport(x, x)
    assert ops.volume_rank(x[:10], x[:20, None], torch.arange(10, device=device)).better.shape == (10,)


@pytest.mark.parametrize("name", OPERATORS)
def test_extreme_numbers_end(name, device):
    """Tiny, huge and equal rows: finite or NaN, but every call comes back."""
    for factor in (0.0, 1e-30, 1e30):
        arguments = map_floating(lambda v, f=factor: v * f, moved(OPERATORS[name](torch.float32), device))
        leaves = with_gradients(arguments)
        ends = differentiable_outputs(name, operator(name)(*leaves))
        torch.autograd.grad(ends, tensors_of(leaves), [torch.ones_like(end) for end in ends])
    torch.cuda.synchronize()
    expected = outputs_and_gradients(name, moved(OPERATORS[name](torch.float32), device))
    again = outputs_and_gradients(name, moved(OPERATORS[name](torch.float32), device))
    for one, other in zip(expected, again, strict=True):
        assert_same_bits(one, other)
