// contrast.h: cross entropy of a square matrix of scores whose positives lie on the diagonal, both ways.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "ops/arguments.h"

namespace mover_torch {

// loss, and the log-sum-exp of rows and columns that the backward takes
std::tuple<Tensor, Tensor, Tensor> contrast(const Tensor &scores, std::optional<Tensor> scale, double label_smoothing,
                                            std::string denominator);

// needs: scores, scale; grad_scores is always made
std::tuple<Tensor, Tensor> contrast_backward(const Tensor &grad_loss, const Tensor &scores, std::optional<Tensor> scale,
                                             const Tensor &rows, const Tensor &columns, double label_smoothing,
                                             std::string denominator, std::vector<bool> needs);

} // namespace mover_torch
