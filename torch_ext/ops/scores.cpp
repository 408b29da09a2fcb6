// scores.cpp: see scores.h and mover.h.
#include "ops/scores.h"

#include <torch/headeronly/core/ScalarType.h>

#include "host.h"

namespace mover_torch {

using torch::headeronly::ScalarType;
using torch::stable::new_empty;

namespace {

mover_score parse_score(const char *op, const std::string &score, bool ranks) {
    if (score == "volume") return MOVER_SCORE_VOLUME;
    if (score == "span") return MOVER_SCORE_SPAN;
    if (ranks && score == "cosine") return MOVER_SCORE_COSINE;
    fail(op, "score must be ", ranks ? "'volume', 'span' or 'cosine'" : "'volume' or 'span'", ", got '", score, "'");
}

mover_volume_scores_desc describe(const char *op, const Tensor &anchor, const Tensor &others,
                                  const std::optional<Tensor> &mask, mover_score score, mover_precision precision) {
    const mover_dtype dtype = check_dtype(op, "anchor", anchor);
    check_like(op, "others", others, "anchor", anchor);
    const bool fit = anchor.dim() == 2 && others.dim() == 3 && others.size(2) == anchor.size(1);
    require(fit, op, "anchor and others must have the shapes (n, d) and (m, k-1, d), got ",
            shape_text(sizes_of(anchor)), " and ", shape_text(sizes_of(others)));
    const int64_t k = others.size(1) + 1;
    require(k >= 2 && k <= MOVER_MAX_K, op, "a group must have k = 2 to ", int{MOVER_MAX_K},
            " members with the anchor, got k = ", k, " from others of the shape ", shape_text(sizes_of(others)));
    if (mask.has_value()) check_mask(op, "mask", *mask, {others.size(0), k - 1}, "anchor", anchor);
    mover_volume_scores_desc desc{};
    desc.dtype = dtype;
    desc.n = anchor.size(0);
    desc.m = others.size(0);
    desc.k = k;
    desc.d = anchor.size(1);
    desc.score = score;
    desc.precision = precision;
    desc.masked = mask.has_value();
    return desc;
}

const uint8_t *bytes_of(const std::optional<Tensor> &mask) { return static_cast<const uint8_t *>(data_of(mask)); }

int64_t *indices_in(const Tensor &tensor) { return static_cast<int64_t *>(output(tensor)); }

Host host_for(const Tensor &anchor, const mover_volume_scores_desc &desc) {
    return Host(anchor, {desc.n, desc.m * (desc.k - 1), desc.d});
}

// The forward; alphas are made where they are wanted.
std::tuple<Tensor, Tensor> forward(const char *op, const Tensor &anchor_, const Tensor &others_,
                                   const std::optional<Tensor> &mask_, const std::string &score,
                                   const std::string &precision, bool keep) {
    const mover_volume_scores_desc desc =
        describe(op, anchor_, others_, mask_, parse_score(op, score, false), parse_precision(op, precision, anchor_));
    const Tensor anchor = dense(anchor_), others = dense(others_);
    const std::optional<Tensor> mask = dense_or_none(mask_);
    const Tensor scores = new_large(op, anchor, Sizes{desc.n, desc.m});
    const Tensor alphas = new_large(op, anchor, keep ? Sizes{desc.n, desc.m, desc.k - 1} : Sizes{0});
    const Host host = host_for(anchor, desc);
    const Workspace workspace = workspace_for(op, anchor, mover_volume_scores_forward_workspace_size, desc, host);
    check_status(op,
                 mover_volume_scores_forward(&desc, data_of(anchor), data_of(others), bytes_of(mask), output(scores),
                                             output(alphas, keep), workspace.data(), workspace.bytes, host.exec()));
    return {scores, alphas};
}

} // namespace

Tensor volume_scores(const Tensor &anchor, const Tensor &others, std::optional<Tensor> mask, std::string score,
                     std::string precision) {
    return std::get<0>(forward("volume_scores", anchor, others, mask, score, precision, false));
}

std::tuple<Tensor, Tensor> volume_scores_with_alphas(const Tensor &anchor, const Tensor &others,
                                                     std::optional<Tensor> mask, std::string score,
                                                     std::string precision) {
    return forward("volume_scores", anchor, others, mask, score, precision, true);
}

std::tuple<Tensor, Tensor> volume_scores_backward(const Tensor &grad_scores_, const Tensor &anchor_,
                                                  const Tensor &others_, std::optional<Tensor> mask_,
                                                  const Tensor &alphas_, std::string score, std::string precision,
                                                  std::vector<bool> needs) {
    const char *op = "volume_scores_backward";
    const mover_volume_scores_desc desc =
        describe(op, anchor_, others_, mask_, parse_score(op, score, false), parse_precision(op, precision, anchor_));
    check_shape(op, "alphas", alphas_, {desc.n, desc.m, desc.k - 1}, "anchor", anchor_);
    check_shape(op, "grad_scores", grad_scores_, {desc.n, desc.m}, "anchor", anchor_);
    check_needs(op, needs, 2);
    const Tensor grad_scores = dense(grad_scores_), anchor = dense(anchor_), others = dense(others_);
    const Tensor alphas = dense(alphas_);
    const std::optional<Tensor> mask = dense_or_none(mask_);
    const Tensor grad_anchor = gradient_like(anchor, needs[0]), grad_others = gradient_like(others, needs[1]);
    const Host host = host_for(anchor, desc);
    const Workspace workspace = workspace_for(op, anchor, mover_volume_scores_backward_workspace_size, desc, host);
    check_status(op, mover_volume_scores_backward(&desc, data_of(anchor), data_of(others), bytes_of(mask),
                                                  data_of(alphas), data_of(grad_scores), output(grad_anchor, needs[0]),
                                                  output(grad_others, needs[1]), workspace.data(), workspace.bytes,
                                                  host.exec()));
    return {grad_anchor, grad_others};
}

std::tuple<Tensor, Tensor> volume_topk(const Tensor &anchor_, const Tensor &others_, int64_t topk,
                                       std::optional<Tensor> mask_, std::string score) {
    const char *op = "volume_topk";
    mover_volume_scores_desc desc =
        describe(op, anchor_, others_, mask_, parse_score(op, score, true), MOVER_PRECISION_FLOAT32);
    require(topk >= 1 && topk <= desc.m, op, "topk must be from 1 to the number of groups, ", desc.m, ", got ", topk);
    desc.topk = topk;
    const Tensor anchor = dense(anchor_), others = dense(others_);
    const std::optional<Tensor> mask = dense_or_none(mask_);
    const Tensor values = new_empty(anchor, Sizes{desc.n, topk});
    const Tensor indices = new_empty(anchor, Sizes{desc.n, topk}, ScalarType::Long);
    const Host host = host_for(anchor, desc);
    const Workspace workspace = workspace_for(op, anchor, mover_volume_topk_workspace_size, desc, host);
    check_status(op, mover_volume_topk(&desc, data_of(anchor), data_of(others), bytes_of(mask), output(values),
                                       indices_in(indices), workspace.data(), workspace.bytes, host.exec()));
    return {values, indices};
}

std::tuple<Tensor, Tensor> volume_rank(const Tensor &anchor_, const Tensor &others_, const Tensor &target_,
                                       std::optional<Tensor> mask_, std::string score) {
    const char *op = "volume_rank";
    const mover_volume_scores_desc desc =
        describe(op, anchor_, others_, mask_, parse_score(op, score, true), MOVER_PRECISION_FLOAT32);
    check_indices(op, "target", target_, "anchor", anchor_);
    require(sizes_of(target_) == Sizes{desc.n}, op, "target must have the shape ", shape_text({desc.n}), ", got ",
            shape_text(sizes_of(target_)));
    const Tensor anchor = dense(anchor_), others = dense(others_), target = dense(target_);
    const std::optional<Tensor> mask = dense_or_none(mask_);
    const Tensor better = new_empty(anchor, Sizes{desc.n}, ScalarType::Long);
    const Tensor tied = new_empty(anchor, Sizes{desc.n}, ScalarType::Long);
    const Host host = host_for(anchor, desc);
    const Workspace workspace = workspace_for(op, anchor, mover_volume_rank_workspace_size, desc, host);
    check_status(op,
                 mover_volume_rank(&desc, data_of(anchor), data_of(others),
                                   static_cast<const int64_t *>(data_of(target)), bytes_of(mask), indices_in(better),
                                   indices_in(tied), workspace.data(), workspace.bytes, host.exec()));
    return {better, tied};
}

} // namespace mover_torch
