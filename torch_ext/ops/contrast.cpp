// contrast.cpp: see contrast.h and mover.h.
#include "ops/contrast.h"

#include "host.h"

namespace mover_torch {

using torch::stable::new_empty;

namespace {

mover_contrast_desc describe(const char *op, const Tensor &scores, const std::optional<Tensor> &scale,
                             double label_smoothing, const std::string &denominator) {
    const mover_dtype dtype = check_dtype(op, "scores", scores);
    const bool square = scores.dim() >= 2 && scores.size(scores.dim() - 1) == scores.size(scores.dim() - 2);
    require(square, op, "scores must have the shape (..., B, B), got ", shape_text(sizes_of(scores)));
    const int64_t batch = count(leading_sizes(scores, 2)), n = scores.size(scores.dim() - 1);
    require(n >= 1 || batch == 0, op, "there must be at least one row, got scores of the shape ",
            shape_text(sizes_of(scores)));
    if (scale.has_value()) check_shape(op, "scale", *scale, {}, "scores", scores);
    require(label_smoothing >= 0 && label_smoothing <= 1, op, "label_smoothing must be from 0 to 1, got ",
            label_smoothing);
    require(denominator == "all" || denominator == "negatives", op, "denominator must be 'all' or 'negatives', got '",
            denominator, "'");
    return {dtype, batch, n, label_smoothing,
            denominator == "all" ? MOVER_DENOMINATOR_ALL : MOVER_DENOMINATOR_NEGATIVES};
}

} // namespace

std::tuple<Tensor, Tensor, Tensor> contrast(const Tensor &scores_, std::optional<Tensor> scale, double label_smoothing,
                                            std::string denominator) {
    const char *op = "contrast";
    const mover_contrast_desc desc = describe(op, scores_, scale, label_smoothing, denominator);
    const Tensor scores = dense(scores_);
    const Tensor loss = new_empty(scores, leading_sizes(scores, 2));
    const Tensor rows = new_empty(scores, leading_sizes(scores, 1)), columns = new_empty(scores, sizes_of(rows));
    const Host host(scores);
    const Workspace workspace = workspace_for(op, scores, mover_contrast_forward_workspace_size, desc, host);
    check_status(op, mover_contrast_forward(&desc, data_of(scores), data_of(scale), output(loss), output(rows),
                                            output(columns), workspace.data(), workspace.bytes, host.exec()));
    return {loss, rows, columns};
}

std::tuple<Tensor, Tensor> contrast_backward(const Tensor &grad_loss_, const Tensor &scores_,
                                             std::optional<Tensor> scale, const Tensor &rows_, const Tensor &columns_,
                                             double label_smoothing, std::string denominator, std::vector<bool> needs) {
    const char *op = "contrast_backward";
    const mover_contrast_desc desc = describe(op, scores_, scale, label_smoothing, denominator);
    check_shape(op, "grad_loss", grad_loss_, leading_sizes(scores_, 2), "scores", scores_);
    check_shape(op, "rows", rows_, leading_sizes(scores_, 1), "scores", scores_);
    check_shape(op, "columns", columns_, leading_sizes(scores_, 1), "scores", scores_);
    check_needs(op, needs, 2);
    const Tensor grad_loss = dense(grad_loss_), scores = dense(scores_), rows = dense(rows_), columns = dense(columns_);
    const Tensor grad_scores = gradient_like(scores, true);
    const Tensor grad_scale = new_empty(scores, needs[1] ? Sizes{} : Sizes{0});
    const Host host(scores);
    const Workspace workspace = workspace_for(op, scores, mover_contrast_backward_workspace_size, desc, host);
    check_status(op, mover_contrast_backward(&desc, data_of(scores), data_of(scale), data_of(rows), data_of(columns),
                                             data_of(grad_loss), output(grad_scores), output(grad_scale, needs[1]),
                                             workspace.data(), workspace.bytes, host.exec()));
    return {grad_scores, grad_scale};
}

} // namespace mover_torch
