// sinkhorn.h: entropic optimal transport, for given costs and for given rows.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "ops/arguments.h"

namespace mover_torch {

// plan, f, g, n_iter, marginal_error
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> sinkhorn(const Tensor &cost, std::optional<Tensor> a,
                                                            std::optional<Tensor> b, double epsilon, int64_t max_iter,
                                                            double tol, std::string solver);

// needs: cost, a, b
std::tuple<Tensor, Tensor, Tensor> sinkhorn_backward(const Tensor &grad_plan, const Tensor &plan, double epsilon,
                                                     std::vector<bool> needs);

// plan, cost, f, g, n_iter, marginal_error
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> transport(const Tensor &x, const Tensor &y,
                                                                     std::optional<Tensor> a, std::optional<Tensor> b,
                                                                     double epsilon, int64_t max_iter, double tol,
                                                                     std::string solver, std::string precision);

// needs: x, y, a, b
std::tuple<Tensor, Tensor, Tensor, Tensor> transport_backward(std::optional<Tensor> grad_plan,
                                                              std::optional<Tensor> grad_cost, const Tensor &x,
                                                              const Tensor &y, const Tensor &plan, double epsilon,
                                                              std::string precision, std::vector<bool> needs);

// value, f, g
std::tuple<Tensor, Tensor, Tensor> transport_value(const Tensor &x, const Tensor &y, std::optional<Tensor> a,
                                                   std::optional<Tensor> b, double epsilon, int64_t max_iter,
                                                   double tol, std::string solver, std::string precision);

// needs: x, y, a, b
std::tuple<Tensor, Tensor, Tensor, Tensor> transport_value_backward(const Tensor &grad_value, const Tensor &x,
                                                                    const Tensor &y, std::optional<Tensor> a,
                                                                    std::optional<Tensor> b, const Tensor &f,
                                                                    const Tensor &g, double epsilon,
                                                                    std::string precision, std::vector<bool> needs);

} // namespace mover_torch
