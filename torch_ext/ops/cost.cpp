// cost.cpp: see cost.h and mover.h.
#include "ops/cost.h"

#include "host.h"

namespace mover_torch {

using torch::stable::new_empty;

namespace {

mover_cost_desc describe(const char *op, const Tensor &x, const RowSets &sets, const std::string &precision) {
    return {sets.dtype, sets.batch, sets.n, sets.m, sets.d, parse_precision(op, precision, x)};
}

} // namespace

Tensor cost(const Tensor &x_, const Tensor &y_, std::string precision) {
    const char *op = "cost";
    const RowSets sets = check_rows(op, x_, y_);
    const mover_cost_desc desc = describe(op, x_, sets, precision);
    const Tensor x = dense(x_), y = dense(y_);
    const Tensor result = new_large(op, x, join(sets.leading, {sets.n, sets.m}));
    const Host host(x, {sets.n, sets.m, sets.d});
    const Workspace workspace = workspace_for(op, x, mover_cost_forward_workspace_size, desc, host);
    check_status(op, mover_cost_forward(&desc, data_of(x), data_of(y), output(result), workspace.data(),
                                        workspace.bytes, host.exec()));
    return result;
}

std::tuple<Tensor, Tensor> cost_backward(const Tensor &grad_cost_, const Tensor &x_, const Tensor &y_,
                                         std::string precision, std::vector<bool> needs) {
    const char *op = "cost_backward";
    const RowSets sets = check_rows(op, x_, y_);
    check_shape(op, "grad_cost", grad_cost_, join(sets.leading, {sets.n, sets.m}), "x", x_);
    check_needs(op, needs, 2);
    const mover_cost_desc desc = describe(op, x_, sets, precision);
    const Tensor grad_cost = dense(grad_cost_), x = dense(x_), y = dense(y_);
    const Tensor grad_x = gradient_like(x, needs[0]), grad_y = gradient_like(y, needs[1]);
    const Host host(x, {sets.n, sets.m, sets.d});
    const Workspace workspace = workspace_for(op, x, mover_cost_backward_workspace_size, desc, host);
    check_status(op, mover_cost_backward(&desc, data_of(x), data_of(y), data_of(grad_cost), output(grad_x, needs[0]),
                                         output(grad_y, needs[1]), workspace.data(), workspace.bytes, host.exec()));
    return {grad_x, grad_y};
}

} // namespace mover_torch
