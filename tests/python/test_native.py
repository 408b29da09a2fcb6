"""mover._native: the functions of mover.h on NumPy arrays."""

import ast
import inspect
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cases.operators import ALL_OPERATORS, OPERATORS, operator, outputs_of, unit_rows
from mover import _native as native
from mover import reference

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
FUNCTIONS = [name for name in dir(native) if not name.startswith("__")]

# How the positional arguments of torch.ops.mover.<name>, as cases.operators makes them, go into mover._native.<name>.
CALLS: dict[str, Callable[..., Arguments]] = {
    "cost": lambda x, y, precision: ((x, y), {}),
    "sinkhorn": lambda cost, a, b, epsilon, max_iter, tol, solver: (
        (cost, a, b),
        {"epsilon": epsilon, "max_iter": max_iter, "tol": tol, "solver": solver},
    ),
    "transport": lambda x, y, a, b, epsilon, max_iter, tol, solver, precision: (
        (x, y, a, b),
        {"epsilon": epsilon, "max_iter": max_iter, "tol": tol, "solver": solver},
    ),
    "gram": lambda v: ((v,), {}),
    "logdet": lambda g, backend: ((g,), {}),
    "volume": lambda v, eps: ((v,), {"eps": eps}),
    "group_volume": lambda costs, groups: ((costs, groups), {}),
    "expected_volume": lambda *costs_and_weights: (costs_and_weights, {}),
    "volume_scores": lambda anchor, others, mask, score, precision: ((anchor, others, mask), {"score": score}),
    "contrast": lambda scores, scale, smoothing, denominator: (
        (scores, scale),
        {"label_smoothing": smoothing, "denominator": denominator},
    ),
    "volume_topk": lambda *inputs_and_score: (inputs_and_score[:-1], {"score": inputs_and_score[-1]}),
}
CALLS["transport_value"] = CALLS["transport"]
CALLS["volume_scores_with_alphas"] = CALLS["volume_scores"]
CALLS["volume_rank"] = CALLS["volume_topk"]
EPSILON = {"epsilon": 0.3}  # that of the cases


def arrays(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.numpy() if isinstance(value, Tensor) else value for value in values)


def call(name: str, dtype: torch.dtype) -> tuple[np.ndarray, ...]:
    positional, options = CALLS[name](*ALL_OPERATORS[name](dtype))
    result = getattr(native, name)(*arrays(positional), **options)
    return result if isinstance(result, tuple) else (result,)


def call_backward(name: str, dtype: torch.dtype) -> tuple[list[np.ndarray], list[Tensor]]:
    """Gradients of the first output (of plan and cost for transport) for random upstream gradients: ours, torch's."""
    arguments = tuple(
        value.clone().requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value
        for value in OPERATORS[name](dtype)
    )
    tensors = [value for value in arguments if isinstance(value, Tensor)]
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    outputs = outputs_of(operator(name)(*arguments))[: 2 if name == "transport" else 1]
    generator = torch.Generator().manual_seed(11)
    upstream = [torch.rand(output.shape, dtype=dtype, generator=generator) for output in outputs]
    exact = list(torch.autograd.grad(outputs, wanted, upstream))
    inputs = [tensor.detach().numpy() for tensor in tensors]
    forward = [output.numpy() for output in call_outputs(name, arguments)]
    up = [gradient.numpy() for gradient in upstream]
    result = {
        "sinkhorn": lambda: native.sinkhorn_backward(forward[0], up[0], **EPSILON),
        "transport": lambda: native.transport_backward(*inputs[:2], forward[0], up[0], up[1], **EPSILON),
        "volume_scores": lambda: native.volume_scores_backward(
            *inputs, None, native.volume_scores_with_alphas(*inputs)[1], *up
        ),
        "contrast": lambda: native.contrast_backward(*inputs, *forward[1:], *up, label_smoothing=0.1),
        "transport_value": lambda: native.transport_value_backward(*inputs, *forward[1:], up[0], **EPSILON),
    }.get(name, lambda: getattr(native, name + "_backward")(*inputs, *up))()
    return list(result) if isinstance(result, tuple) else [result], exact


def call_outputs(name: str, arguments: tuple[Any, ...]) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return outputs_of(operator(name)(*arguments))


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 2e-5, "atol": 2e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-13}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [name for name in ALL_OPERATORS if name != "expected_volume_with_gradients"])
def test_forward_equals_torch_ops(name, dtype):
    ours = call(name, dtype)
    theirs = outputs_of(operator(name)(*ALL_OPERATORS[name](dtype)))
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.dtype, one.shape) == (other.numpy().dtype, tuple(other.shape))
        if one.dtype in (np.int32, np.int64):
            assert (one == other.numpy()).all()
        elif name in ("sinkhorn", "transport") and one is ours[-1]:
            assert (np.abs(one) < 1e-5).all()  # the marginal error: rounding
        else:
            np.testing.assert_allclose(one, other.numpy(), **tolerance(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPERATORS)
def test_backward_equals_torch_ops(name, dtype):
    ours, theirs = call_backward(name, dtype)
    if name in ("sinkhorn", "transport", "transport_value"):
        # torch sums the gradient of masses shared by all problems, (n), over the problems
        ours = [one.sum(0) if one.ndim > other.dim() else one for one, other in zip(ours, theirs, strict=True)]
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.dtype, one.shape) == (other.numpy().dtype, tuple(other.shape))
        scale = max(1.0, float(other.abs().max()))
        bound = 1e-4 if dtype == torch.float32 else 1e-9  # sinkhorn and transport solve a system
        np.testing.assert_allclose(one / scale, other.numpy() / scale, rtol=0, atol=bound)


def test_forward_equals_the_definitions():
    """Each against mover.reference in float64."""
    x, y = unit_rows(2, 5, 7, seed=1), unit_rows(2, 6, 7, seed=2)
    v, sets = unit_rows(3, 4, 6), [unit_rows(n, 7, seed=n) for n in (4, 5, 3)]
    costs = [reference.cost(sets[i], sets[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    others = unit_rows(4, 2, 7, seed=8)
    solve = {"epsilon": 0.3, "max_iter": 5000, "tol": 1e-14}
    plan = reference.transport(x, y, epsilon=0.3)
    listed, groups = torch.stack([reference.cost(y[0], y[1]) for _ in range(3)]), torch.tensor([[0, 1, 2], [5, 5, 3]])
    pairs = [
        (native.cost(x.numpy(), y.numpy()), reference.cost(x, y)),
        *zip(native.transport(x.numpy(), y.numpy(), **solve)[:4], plan[:4], strict=True),
        (native.sinkhorn(plan.cost.numpy(), **solve)[0], plan.plan),
        (native.transport_value(x.numpy(), y.numpy(), **solve)[0], reference.transport_value(x, y, epsilon=0.3)),
        (native.gram(v.numpy()), reference.gram(v)),
        (native.logdet(reference.gram(v).numpy())[0], reference.logdet(reference.gram(v)).logdet),
        (native.volume(v.numpy(), eps=0.1), reference.volume(v, 0.1)),
        (native.group_volume(listed.numpy(), groups.numpy()), reference.group_volume(listed, groups)),
        (native.expected_volume(*arrays(tuple(costs))), reference.expected_volume(*costs)),
        (native.volume_scores(x[0].numpy(), others.numpy()), reference.volume_scores(x[0], others)),
    ]
    for ours, exact in pairs:
        np.testing.assert_allclose(ours, exact.numpy(), rtol=0, atol=1e-10)


def test_the_gradient_of_a_plan_equals_the_dense_solution():
    cost = reference.cost(unit_rows(5, 7), unit_rows(6, 7, seed=1))
    plan = reference.sinkhorn(cost, epsilon=0.3).plan
    upstream = torch.rand(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = native.sinkhorn_backward(plan.numpy(), upstream.numpy(), epsilon=0.3)
    for one, exact in zip(ours, reference.plan_gradient(plan, upstream, 0.3), strict=True):
        np.testing.assert_allclose(one, exact.numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("given", ["plan", "cost"])
def test_one_of_two_gradients_of_transport_may_be_none(given):
    x, y = unit_rows(5, 7).numpy(), unit_rows(6, 7, seed=1).numpy()
    plan = native.transport(x, y)[0]
    upstream = np.linspace(-1, 1, 30).reshape(5, 6)
    both = (upstream, np.zeros_like(upstream)) if given == "plan" else (np.zeros_like(upstream), upstream)
    one = (upstream, None) if given == "plan" else (None, upstream)
    for full, sparse in zip(
        native.transport_backward(x, y, plan, *both, epsilon=0.1),
        native.transport_backward(x, y, plan, *one, epsilon=0.1),
        strict=True,
    ):
        np.testing.assert_allclose(sparse, full, rtol=0, atol=1e-12)


def test_absent_weights_are_ones_and_absent_masses_uniform():
    costs = [np.random.default_rng(i).random(shape) for i, shape in enumerate([(2, 3), (2, 4), (3, 4)])]
    ones = [np.ones_like(cost) for cost in costs]
    assert native.expected_volume(*costs) == native.expected_volume(*costs, *ones)
    assert native.expected_volume(*costs, None, 2 * ones[1]) == 2 * native.expected_volume(*costs)
    plan = native.sinkhorn(costs[0])[0]
    assert np.array_equal(plan, native.sinkhorn(costs[0], np.full(2, 1 / 2), np.full(3, 1 / 3))[0])


@pytest.mark.parametrize("function", [native.sinkhorn, native.transport])
def test_options_of_the_solver_reach_it(function):
    x, y = np.random.default_rng(0).random((2, 30, 2))
    inputs = (x, y) if function is native.transport else (native.cost(x, y),)
    bounded, loose, tight = (
        function(*inputs, epsilon=0.02, max_iter=max_iter, tol=tol, solver="sinkhorn")[-2]
        for max_iter, tol in ((3, 0.0), (1000, 1e-1), (1000, 1e-6))
    )
    newton = function(*inputs, epsilon=0.02, max_iter=1000, tol=1e-6, solver="newton")[-2]
    assert bounded == 3
    assert loose < tight < 1000
    assert newton < tight


def test_masses_of_one_problem_serve_all():
    cost = np.random.default_rng(0).random((3, 2, 4, 5))
    a = np.array([0.1, 0.2, 0.3, 0.4])
    shared, full = native.sinkhorn(cost, a), native.sinkhorn(cost, np.broadcast_to(a, (3, 2, 4)))
    assert all(np.array_equal(one, other) for one, other in zip(shared, full, strict=True))
    np.testing.assert_allclose(shared[0].sum(-1), np.broadcast_to(a, (3, 2, 4)), atol=1e-3)


def transposed(array):
    return np.ascontiguousarray(array.swapaxes(-1, -2)).swapaxes(-1, -2)


def strided(array):
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, dtype=array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def misaligned(array):
    memory = np.empty(array.nbytes + 1, dtype=np.uint8)
    odd = np.frombuffer(memory.data, array.dtype, array.size, offset=1)
    odd[:] = array.ravel()
    return odd.reshape(array.shape)


def read_only(array):
    copy = array.copy()
    copy.setflags(write=False)
    return copy


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", [transposed, strided, misaligned, read_only, np.asfortranarray])
def test_layout_of_inputs(layout, dtype):
    x, y = unit_rows(2, 5, 7).numpy().astype(dtype), unit_rows(2, 6, 7, seed=1).numpy().astype(dtype)
    odd = layout(x)
    if layout is misaligned:
        assert not odd.flags.aligned
    for one, other in zip(native.transport(odd, layout(y)), native.transport(x, y), strict=True):
        assert np.array_equal(one, other)
        assert one.flags.c_contiguous
        assert one.flags.writeable
    assert np.array_equal(odd, x)


def test_results_are_new_arrays_and_inputs_stay():
    v = unit_rows(3, 4, 6).numpy()
    before = v.copy()
    one, other = native.gram(v), native.gram(v)
    one[:] = 0
    assert other.any()
    assert np.array_equal(v, before)


def test_numbers_and_lists_are_arrays_too():
    assert native.cost([[1.0, 2.0]], [[3.0, 4.0]]).tolist() == [[8.0]]
    assert native.logdet_backward([[4.0]], 2.0).tolist() == [[0.5]]


def test_empty_batches_and_sets():
    assert native.gram(np.ones((0, 3, 4))).shape == (0, 3, 3)
    assert native.transport(np.ones((2, 0, 3, 4)), np.ones((2, 0, 5, 4)))[0].shape == (2, 0, 3, 5)
    assert native.cost(np.ones((0, 4)), np.ones((5, 4))).shape == (0, 5)
    assert native.volume_scores(np.ones((0, 4)), np.ones((5, 1, 4))).shape == (0, 5)
    assert native.expected_volume(np.ones((0, 3)), np.ones((0, 4)), np.ones((3, 4))) == 0


def test_nan_stays_in_its_problem():
    x, y = unit_rows(3, 5, 7).numpy(), unit_rows(3, 6, 7, seed=1).numpy()
    clean = native.transport(x, y)[0]
    x[1, 0, 0] = np.nan
    plan = native.transport(x, y)[0]
    assert np.isnan(plan[1]).all()
    assert np.array_equal(plan[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("score", ["volume", "span"])
def test_masked_scores_and_their_gradient(score):
    anchor, others = unit_rows(5, 7, seed=7), unit_rows(4, 2, 7, seed=8)
    mask = np.array([[1, 1], [0, 1], [1, 0], [1, 1]], dtype=bool)
    inputs = anchor.numpy(), others.numpy(), mask
    anchor.requires_grad_(), others.requires_grad_()
    exact = operator("volume_scores")(anchor, others, torch.from_numpy(mask), score)
    scores, alphas = native.volume_scores_with_alphas(*inputs, score=score)
    np.testing.assert_allclose(scores, exact.detach().numpy(), rtol=0, atol=1e-13)
    upstream = np.linspace(-1, 1, 20).reshape(5, 4)
    ours = native.volume_scores_backward(*inputs, alphas, upstream, score=score)
    for one, gradient in zip(
        ours, torch.autograd.grad(exact, (anchor, others), torch.from_numpy(upstream)), strict=True
    ):
        np.testing.assert_allclose(one, gradient.numpy(), rtol=0, atol=1e-12)
    best = native.volume_topk(*inputs[:2], 4, mask, score=score)[1]
    assert np.array_equal(best, np.argsort(scores, axis=1, kind="stable"))
    target = np.array([0, 1, 2, 3, 0])
    better, tied = native.volume_rank(*inputs[:2], target, mask, score=score)
    assert np.array_equal(better, np.argmax(best == target[:, None], axis=1))
    assert not tied.any()


X, Y = np.ones((2, 5, 7)), np.ones((2, 6, 7))
REFUSED: dict[str, Callable[[], Any]] = {
    "cost: x must be float32 or float64, got int64": lambda: native.cost(X.astype(np.int64), Y),
    "cost: x must be float32 or float64, got float16": lambda: native.cost(X.astype(np.float16), Y),
    "cost: x must be float32 or float64, got >f8": lambda: native.cost(X.astype(">f8"), Y),
    "cost: x must be float32 or float64, got object": lambda: native.cost(None, Y),
    "cost: x must be an array of numbers": lambda: native.cost([[1.0], [1.0, 2.0]], Y),
    "cost: y must have the dtype of x (float32), got float64": lambda: native.cost(X.astype(np.float32), Y),
    "cost: x must have the shape (..., n, d), got (7,)": lambda: native.cost(X[0, 0], Y),
    "cost: y must have the shape (2, m, d) with d = 7, got (2, 6, 3)": lambda: native.cost(X, Y[..., :3]),
    "cost: y must have the shape (2, m, d) with d = 7, got (6, 7)": lambda: native.cost(X, Y[0]),
    "cost: y must have the shape (m, d) with d = 7, got (2, 6, 7)": lambda: native.cost(X[0], Y),
    "cost_backward: grad_cost must have the shape (2, n, m) with n = 5, m = 6, got (2, 6, 5)": lambda: (
        native.cost_backward(X, Y, np.ones((2, 6, 5)))
    ),
    "sinkhorn: a must have the shape (n) with n = 5, got (6,)": lambda: native.sinkhorn(X, np.ones(6)),
    "sinkhorn: b must have the shape (2, m) with m = 7, got (1, 7)": lambda: native.sinkhorn(X, None, np.ones((1, 7))),
    "sinkhorn: a must have the dtype of cost (float64), got float32": lambda: native.sinkhorn(
        X, np.ones(5, dtype=np.float32)
    ),
    "sinkhorn: max_iter must be at most 2147483647, got 4294967297": lambda: native.sinkhorn(X, max_iter=2**32 + 1),
    "sinkhorn: solver must be 'auto', 'sinkhorn' or 'newton', got 'lbfgs'": lambda: native.sinkhorn(X, solver="lbfgs"),
    "mover_sinkhorn_forward_workspace_size: max_iter must be >= 1, got 0": lambda: native.sinkhorn(X, max_iter=0),
    "mover_transport_forward_workspace_size: epsilon must be > 0": lambda: native.transport(X, Y, epsilon=-1.0),
    "mover_transport_backward: grad_plan and grad_cost must not both be NULL": lambda: native.transport_backward(
        X, Y, np.ones((2, 5, 6)), None, None, epsilon=0.1
    ),
    "logdet: gram must have the shape (2, k, k) with k = 5, got (2, 5, 7)": lambda: native.logdet(X),
    "mover_volume_forward: k must be between 1 and 8, got 9": lambda: native.volume(np.ones((9, 12))),
    "mover_volume_forward: eps must be >= 0 and finite, got -1": lambda: native.volume(X, eps=-1.0),
    "expected_volume: c23 must have the shape (n2, n3) with n2 = 3, n3 = 4, got (2, 4)": lambda: native.expected_volume(
        np.ones((2, 3)), np.ones((2, 4)), np.ones((2, 4))
    ),
    "group_volume: groups must be int64, got int32": lambda: native.group_volume(
        np.ones((1, 5, 5)), np.zeros((4, 2), dtype=np.int32)
    ),
    "group_volume: costs must have the shape (3, n, n) for the pairs of k = 3 sets, got pairs = 2": lambda: (
        native.group_volume(np.ones((2, 5, 5)), np.zeros((4, 3), dtype=np.int64))
    ),
    "mover_group_volume_forward: ": lambda: native.group_volume(np.ones((1, 5, 5)), np.full((4, 2), 5)),
    "group_volume: costs must have the shape (pairs, n, n) with n = 5, got (2, 5, 7)": lambda: native.group_volume(
        X, np.zeros((4, 2), dtype=np.int64)
    ),
    "volume_scores: others must have the shape (m, k-1, d) with d = 7, got (6, 7)": lambda: native.volume_scores(
        X[0], Y[0]
    ),
    "volume_scores: mask must be bool, got int64": lambda: native.volume_scores(
        X[0], Y, np.ones((2, 6), dtype=np.int64)
    ),
    "volume_scores: mask must have the shape (m, k-1) with m = 2, k-1 = 6, got (6,)": lambda: native.volume_scores(
        X[0], Y, np.ones(6, dtype=bool)
    ),
    "volume_scores: score must be 'volume', 'span' or 'cosine', got 'area'": lambda: native.volume_scores(
        X[0], Y, score="area"
    ),
    "volume_topk: topk must be from 1 to m = 2, got 3": lambda: native.volume_topk(X[0], Y, 3),
    "volume_rank: target must be int64, got float64": lambda: native.volume_rank(X[0], Y, np.zeros(5)),
    "mover_volume_rank: ": lambda: native.volume_rank(X[0], Y, np.array([0, 1, 2, 0, 0])),
    "mover_volume_scores_forward_workspace_size: k must be between 2 and 8": lambda: native.volume_scores(
        X[0], np.ones((4, 8, 7))
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message):
    with pytest.raises(ValueError) as error:
        REFUSED[message]()
    assert str(error.value).startswith(message)


def test_options_are_given_by_name():
    with pytest.raises(TypeError):
        native.sinkhorn(X, None, None, 0.1)


def test_without_torch():
    code = "import mover._native as n, sys; assert 'torch' not in sys.modules; print(n.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    version = (Path(__file__).parents[2] / "VERSION").read_text().strip()
    assert done.stdout.strip() == version, done.stderr


def test_other_threads_run_during_a_call():
    """A thread counts while another is inside one long call; with the lock held it would not be scheduled at all."""
    x = unit_rows(900, 64).numpy()
    inside, ticks = threading.Event(), []

    def solve() -> None:
        inside.set()
        native.transport(x, x, epsilon=0.005, max_iter=150, tol=0.0)
        ticks.append("end")

    thread = threading.Thread(target=solve)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        thread.start()
        inside.wait()
        while thread.is_alive() and len(ticks) < 200:
            ticks.append("tick")
            thread.join(1e-4)
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert ticks.index("end") > 10


def test_calls_in_several_threads_are_right_and_keep_their_own_errors():
    x, y = unit_rows(40, 16).numpy(), unit_rows(30, 16, seed=1).numpy()
    expected = native.transport(x, y)[0]
    failures: list[str] = []

    def work(own: int) -> None:
        for _ in range(50):
            if not np.array_equal(native.transport(x, y)[0], expected):
                failures.append("another plan")
            try:
                native.volume(np.ones((own, 3)))
                failures.append("not refused")
            except ValueError as error:
                if not str(error).endswith(f"got {own}"):
                    failures.append(str(error))

    threads = [threading.Thread(target=work, args=(9 + i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_nothing_is_kept_after_a_call():
    x = unit_rows(5, 7).numpy()
    references = sys.getrefcount(x)
    for _ in range(10):
        native.transport(x, x)
        with pytest.raises(ValueError):
            native.cost(x, x[:, :3])
    assert sys.getrefcount(x) == references


def stub() -> dict[str, ast.FunctionDef]:
    tree = ast.parse(Path(native.__file__).with_name("_native.pyi").read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_stub_names_every_function():
    assert sorted(stub()) == sorted(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_stub_has_the_arguments_of_the_function(name):
    first_line = getattr(native, name).__doc__.splitlines()[0]  # name(x: object, ..., *, eps: ... = 0.0) -> ...
    actual = ast.parse(f"def {first_line}: ...").body[0]
    declared = stub()[name]

    def arguments(node):
        positional = [argument.arg for argument in node.args.args]
        defaults = [ast.literal_eval(value) if value else None for value in node.args.defaults + node.args.kw_defaults]
        return positional, [argument.arg for argument in node.args.kwonlyargs], defaults

    assert arguments(actual) == arguments(declared)
    assert len(inspect.getdoc(getattr(native, name)).splitlines()) >= 3  # signature, empty line, text
