// scores.cpp: see scores.h and mover.h.
#include "ops/scores.h"

#include "host.h"

namespace mover_torch {

using torch::stable::new_empty;

namespace {

mover_score parse_score(const char *op, const std::string &score) {
    if (score == "volume") return MOVER_SCORE_VOLUME;
    require(score != "span", op, "score 'span' is not offered by version ", mover_version(), "; use 'volume'");
    fail(op, "score must be 'volume', got '", score, "'");
}

mover_volume_scores_desc describe(const char *op, const Tensor &anchor, const Tensor &others,
                                  const std::optional<Tensor> &mask, const std::string &score,
                                  const std::string &precision) {
    const mover_dtype dtype = check_dtype(op, "anchor", anchor);
    check_like(op, "others", others, "anchor", anchor);
    const bool fit = anchor.dim() == 2 && others.dim() == 3 && others.size(2) == anchor.size(1);
    require(fit, op, "anchor and others must have the shapes (n, d) and (m, k-1, d), got ",
            shape_text(sizes_of(anchor)), " and ", shape_text(sizes_of(others)));
    const int64_t k = others.size(1) + 1;
    require(k >= 2 && k <= MOVER_MAX_K, op, "a group must have k = 2 to ", int{MOVER_MAX_K},
            " members with the anchor, got k = ", k, " from others of the shape ", shape_text(sizes_of(others)));
    require(!mask.has_value(), op, "mask is not offered by version ", mover_version(),
            "; pass None and only groups whose members are all present");
    return {dtype,
            anchor.size(0),
            others.size(0),
            k,
            anchor.size(1),
            parse_score(op, score),
            parse_precision(op, precision)};
}

} // namespace

Tensor volume_scores(const Tensor &anchor_, const Tensor &others_, std::optional<Tensor> mask, std::string score,
                     std::string precision) {
    const char *op = "volume_scores";
    const mover_volume_scores_desc desc = describe(op, anchor_, others_, mask, score, precision);
    const Tensor anchor = dense(anchor_), others = dense(others_);
    const Tensor scores = new_empty(anchor, Sizes{desc.n, desc.m});
    const Workspace workspace = workspace_for(op, anchor, mover_volume_scores_forward_workspace_size, desc);
    const mover_exec exec = lend(anchor, {desc.n, desc.m * (desc.k - 1), desc.d * (desc.k - 1)});
    check_status(op, mover_volume_scores_forward(&desc, data_of(anchor), data_of(others), nullptr, output(scores),
                                                 workspace.data(), workspace.bytes, &exec));
    return scores;
}

std::tuple<Tensor, Tensor> volume_scores_backward(const Tensor &grad_scores_, const Tensor &anchor_,
                                                  const Tensor &others_, std::optional<Tensor> mask, std::string score,
                                                  std::string precision, std::vector<bool> needs) {
    const char *op = "volume_scores_backward";
    const mover_volume_scores_desc desc = describe(op, anchor_, others_, mask, score, precision);
    check_shape(op, "grad_scores", grad_scores_, {desc.n, desc.m}, "anchor", anchor_);
    check_needs(op, needs, 2);
    const Tensor grad_scores = dense(grad_scores_), anchor = dense(anchor_), others = dense(others_);
    const Tensor grad_anchor = gradient_like(anchor, needs[0]), grad_others = gradient_like(others, needs[1]);
    const Workspace workspace = workspace_for(op, anchor, mover_volume_scores_backward_workspace_size, desc);
    const mover_exec exec = lend(anchor, {desc.n, desc.m * (desc.k - 1), desc.d * (desc.k - 1)});
    check_status(op,
                 mover_volume_scores_backward(&desc, data_of(anchor), data_of(others), nullptr, data_of(grad_scores),
                                              output(grad_anchor, needs[0]), output(grad_others, needs[1]),
                                              workspace.data(), workspace.bytes, &exec));
    return {grad_anchor, grad_others};
}

} // namespace mover_torch
