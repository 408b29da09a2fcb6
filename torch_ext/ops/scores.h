// scores.h: the volume that every anchor spans with every group.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "ops/arguments.h"

namespace mover_torch {

Tensor volume_scores(const Tensor &anchor, const Tensor &others, std::optional<Tensor> mask, std::string score,
                     std::string precision);

// needs: anchor, others
std::tuple<Tensor, Tensor> volume_scores_backward(const Tensor &grad_scores, const Tensor &anchor, const Tensor &others,
                                                  std::optional<Tensor> mask, std::string score, std::string precision,
                                                  std::vector<bool> needs);

} // namespace mover_torch
