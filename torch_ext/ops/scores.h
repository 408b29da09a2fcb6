// scores.h: scores of every anchor with every group, and retrieval by them.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "ops/arguments.h"

namespace mover_torch {

Tensor volume_scores(const Tensor &anchor, const Tensor &others, std::optional<Tensor> mask, std::string score,
                     std::string precision);

// scores, and the alphas that the backward takes
std::tuple<Tensor, Tensor> volume_scores_with_alphas(const Tensor &anchor, const Tensor &others,
                                                     std::optional<Tensor> mask, std::string score,
                                                     std::string precision);

// needs: anchor, others
std::tuple<Tensor, Tensor> volume_scores_backward(const Tensor &grad_scores, const Tensor &anchor, const Tensor &others,
                                                  std::optional<Tensor> mask, const Tensor &alphas, std::string score,
                                                  std::string precision, std::vector<bool> needs);

// values, indices
std::tuple<Tensor, Tensor> volume_topk(const Tensor &anchor, const Tensor &others, int64_t topk,
                                       std::optional<Tensor> mask, std::string score);

// better, tied
std::tuple<Tensor, Tensor> volume_rank(const Tensor &anchor, const Tensor &others, const Tensor &target,
                                       std::optional<Tensor> mask, std::string score);

} // namespace mover_torch
