"""The schemas are the contract: a change here is a change for every caller and every exported program."""

import pytest
import torch

from cases.operators import operator

TRANSPORT_ARGUMENTS = (
    "(Tensor x, Tensor y, Tensor? a, Tensor? b, float epsilon, int max_iter, float tol, "
    'str solver="auto", str precision="float32")'
)
SCORES_ARGUMENTS = '(Tensor anchor, Tensor others, Tensor? mask=None, str score="volume", str precision="float32")'
SCHEMAS = {
    "cost": '(Tensor x, Tensor y, str precision="float32") -> Tensor',
    "cost_backward": "(Tensor grad_cost, Tensor x, Tensor y, str precision, bool[] needs) "
    "-> (Tensor grad_x, Tensor grad_y)",
    "sinkhorn": "(Tensor cost, Tensor? a, Tensor? b, float epsilon, int max_iter, float tol, "
    'str solver="auto") -> (Tensor plan, Tensor f, Tensor g, Tensor n_iter, Tensor marginal_error)',
    "sinkhorn_backward": "(Tensor grad_plan, Tensor plan, float epsilon, bool[] needs) "
    "-> (Tensor grad_cost, Tensor grad_a, Tensor grad_b)",
    "transport": TRANSPORT_ARGUMENTS
    + " -> (Tensor plan, Tensor cost, Tensor f, Tensor g, Tensor n_iter, Tensor marginal_error)",
    "transport_backward": "(Tensor? grad_plan, Tensor? grad_cost, Tensor x, Tensor y, Tensor plan, float epsilon, "
    "str precision, bool[] needs) -> (Tensor grad_x, Tensor grad_y, Tensor grad_a, Tensor grad_b)",
    "transport_value": TRANSPORT_ARGUMENTS + " -> (Tensor value, Tensor f, Tensor g)",
    "transport_value_backward": "(Tensor grad_value, Tensor x, Tensor y, Tensor? a, Tensor? b, Tensor f, Tensor g, "
    "float epsilon, str precision, bool[] needs) -> (Tensor grad_x, Tensor grad_y, Tensor grad_a, Tensor grad_b)",
    "gram": "(Tensor v) -> Tensor",
    "gram_backward": "(Tensor grad_gram, Tensor v) -> Tensor",
    "logdet": '(Tensor g, str backend="auto") -> (Tensor logdet, Tensor info)',
    "logdet_backward": "(Tensor grad_logdet, Tensor g, str backend) -> Tensor",
    "volume": "(Tensor v, float eps=0.) -> Tensor",
    "volume_backward": "(Tensor grad_volume, Tensor v, float eps) -> Tensor",
    "group_volume": "(Tensor costs, Tensor groups) -> Tensor",
    "group_volume_backward": "(Tensor grad_volume, Tensor costs, Tensor groups) -> Tensor",
    "expected_volume": "(Tensor c12, Tensor c13, Tensor c23, Tensor? p12=None, Tensor? p13=None, Tensor? p23=None) "
    "-> Tensor",
    "expected_volume_with_gradients": "(Tensor c12, Tensor c13, Tensor c23, Tensor? p12, Tensor? p13, "
    "Tensor? p23, bool[] needs) -> (Tensor value, Tensor grad_c12, Tensor grad_c13, Tensor grad_c23, "
    "Tensor grad_p12, Tensor grad_p13, Tensor grad_p23)",
    "volume_scores": SCORES_ARGUMENTS + " -> Tensor",
    "volume_scores_with_alphas": SCORES_ARGUMENTS + " -> (Tensor scores, Tensor alphas)",
    "volume_scores_backward": "(Tensor grad_scores, Tensor anchor, Tensor others, Tensor? mask, Tensor alphas, "
    "str score, str precision, bool[] needs) -> (Tensor grad_anchor, Tensor grad_others)",
    "volume_topk": '(Tensor anchor, Tensor others, int topk, Tensor? mask=None, str score="volume") '
    "-> (Tensor values, Tensor indices)",
    "volume_rank": '(Tensor anchor, Tensor others, Tensor target, Tensor? mask=None, str score="volume") '
    "-> (Tensor better, Tensor tied)",
    "contrast": '(Tensor scores, Tensor? scale=None, float label_smoothing=0., str denominator="all") '
    "-> (Tensor loss, Tensor rows, Tensor columns)",
    "contrast_backward": "(Tensor grad_loss, Tensor scores, Tensor? scale, Tensor rows, Tensor columns, "
    "float label_smoothing, str denominator, bool[] needs) -> (Tensor grad_scores, Tensor grad_scale)",
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema(name):
    assert str(operator(name)._schema) == f"mover::{name}{SCHEMAS[name]}"


def test_no_operator_is_missing_from_this_table():
    import mover.ops  # noqa: F401

    defined = {name.removeprefix("mover::") for name in torch._C._dispatch_get_all_op_names() if "mover::" in name}
    assert defined == set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_operator_has_a_kernel_a_gradient_and_a_fake(name):
    qualified = operator(name).name()
    for key in ("CPU", "Autograd", "Meta"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(qualified, key), f"{qualified} has nothing for {key}"
