// gram.h: Gram matrices and their log-determinants.
#pragma once

#include <string>
#include <tuple>

#include "ops/arguments.h"

namespace mover_torch {

Tensor gram(const Tensor &v);
Tensor gram_backward(const Tensor &grad_gram, const Tensor &v);

// logdet, info
std::tuple<Tensor, Tensor> logdet(const Tensor &g, std::string backend);
Tensor logdet_backward(const Tensor &grad_logdet, const Tensor &g, std::string backend);

} // namespace mover_torch
