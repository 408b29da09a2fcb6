// cost.h: squared Euclidean distances.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "ops/arguments.h"

namespace mover_torch {

Tensor cost(const Tensor &x, const Tensor &y, std::string precision);

// needs: x, y
std::tuple<Tensor, Tensor> cost_backward(const Tensor &grad_cost, const Tensor &x, const Tensor &y,
                                         std::string precision, std::vector<bool> needs);

} // namespace mover_torch
