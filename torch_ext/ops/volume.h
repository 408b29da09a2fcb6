// volume.h: the volumes of groups of vectors and of listed groups of unit rows, and their sum over all triples.
#pragma once

#include <optional>
#include <tuple>
#include <vector>

#include "ops/arguments.h"

namespace mover_torch {

Tensor volume(const Tensor &v, double eps);
Tensor volume_backward(const Tensor &grad_volume, const Tensor &v, double eps);

Tensor group_volume(const Tensor &costs, const Tensor &groups);
Tensor group_volume_backward(const Tensor &grad_volume, const Tensor &costs, const Tensor &groups);

Tensor expected_volume(const Tensor &c12, const Tensor &c13, const Tensor &c23, std::optional<Tensor> p12,
                       std::optional<Tensor> p13, std::optional<Tensor> p23);

// needs: c12, c13, c23, p12, p13, p23
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>
expected_volume_backward(const Tensor &grad_value, const Tensor &c12, const Tensor &c13, const Tensor &c23,
                         std::optional<Tensor> p12, std::optional<Tensor> p13, std::optional<Tensor> p23,
                         std::vector<bool> needs);

} // namespace mover_torch
