// sinkhorn.cpp: see sinkhorn.h and mover.h.
#include "ops/sinkhorn.h"

#include "host.h"

namespace mover_torch {

using torch::headeronly::ScalarType;
using torch::stable::new_empty;

namespace {

// Masses cannot sum to 1 over no points.
void check_not_empty(const char *op, int64_t batch, int64_t n, int64_t m) {
    require(batch == 0 || (n >= 1 && m >= 1), op, "there must be at least one row on either side, got n = ", n,
            " and m = ", m);
}

mover_transport_desc describe(const char *op, const Tensor &x, const RowSets &sets, double epsilon, int64_t max_iter,
                              double tol, const std::string &solver, const std::string &precision) {
    check_not_empty(op, sets.batch, sets.n, sets.m);
    check_epsilon(op, epsilon);
    mover_transport_desc desc{};
    desc.dtype = sets.dtype;
    desc.batch = sets.batch;
    desc.n = sets.n;
    desc.m = sets.m;
    desc.d = sets.d;
    desc.epsilon = epsilon;
    desc.tol = tol;
    desc.max_iter = check_iterations(op, max_iter, tol);
    desc.solver = parse_solver(op, solver);
    desc.precision = parse_precision(op, precision, x);
    return desc;
}

mover_sinkhorn_desc describe_costs(const char *op, const char *name, const Tensor &cost, double epsilon) {
    const mover_dtype dtype = check_dtype(op, name, cost);
    check_dim(op, name, cost, 2, "(..., n, m)");
    check_epsilon(op, epsilon);
    mover_sinkhorn_desc desc{};
    desc.dtype = dtype;
    desc.batch = count(leading_sizes(cost, 2));
    desc.n = cost.size(cost.dim() - 2);
    desc.m = cost.size(cost.dim() - 1);
    check_not_empty(op, desc.batch, desc.n, desc.m);
    desc.epsilon = epsilon;
    desc.max_iter = 1; // a gradient iterates no further; `sinkhorn` sets its own
    return desc;
}

// A gradient of the plan's shape that may be absent.
std::optional<Tensor> check_gradient(const char *op, const char *name, const std::optional<Tensor> &gradient,
                                     const Tensor &plan) {
    if (!gradient.has_value()) return std::nullopt;
    check_shape(op, name, *gradient, sizes_of(plan), "plan", plan);
    return dense(*gradient);
}

} // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> sinkhorn(const Tensor &cost_, std::optional<Tensor> a_,
                                                            std::optional<Tensor> b_, double epsilon, int64_t max_iter,
                                                            double tol, std::string solver) {
    const char *op = "sinkhorn";
    mover_sinkhorn_desc desc = describe_costs(op, "cost", cost_, epsilon);
    desc.tol = tol;
    desc.max_iter = check_iterations(op, max_iter, tol);
    desc.solver = parse_solver(op, solver);
    const Sizes leading = leading_sizes(cost_, 2);
    const std::optional<Tensor> a = check_marginal(op, "a", a_, leading, desc.n, "cost", cost_);
    const std::optional<Tensor> b = check_marginal(op, "b", b_, leading, desc.m, "cost", cost_);
    const Tensor cost = dense(cost_);
    const Tensor plan = new_large(op, cost, sizes_of(cost));
    const Tensor f = new_empty(cost, join(leading, {desc.n})), g = new_empty(cost, join(leading, {desc.m}));
    const Tensor n_iter = new_empty(cost, leading, ScalarType::Int), error = new_empty(cost, leading);
    const Host host(cost);
    const Workspace workspace = workspace_for(op, cost, mover_sinkhorn_forward_workspace_size, desc, host);
    check_status(op, mover_sinkhorn_forward(&desc, data_of(cost), data_of(a), data_of(b), output(plan), output(f),
                                            output(g), static_cast<int32_t *>(output(n_iter)), output(error),
                                            workspace.data(), workspace.bytes, host.exec()));
    return {plan, f, g, n_iter, error};
}

std::tuple<Tensor, Tensor, Tensor> sinkhorn_backward(const Tensor &grad_plan_, const Tensor &plan_, double epsilon,
                                                     std::vector<bool> needs) {
    const char *op = "sinkhorn_backward";
    const mover_sinkhorn_desc desc = describe_costs(op, "plan", plan_, epsilon);
    check_shape(op, "grad_plan", grad_plan_, sizes_of(plan_), "plan", plan_);
    check_needs(op, needs, 3);
    const Sizes leading = leading_sizes(plan_, 2);
    const Tensor grad_plan = dense(grad_plan_), plan = dense(plan_);
    const Tensor grad_cost = new_large(op, plan, sizes_of(plan)); // the library always writes it
    const Tensor grad_a = new_empty(plan, needs[1] ? join(leading, {desc.n}) : Sizes{0});
    const Tensor grad_b = new_empty(plan, needs[2] ? join(leading, {desc.m}) : Sizes{0});
    const Host host(plan);
    const Workspace workspace = workspace_for(op, plan, mover_sinkhorn_backward_workspace_size, desc, host);
    check_status(op, mover_sinkhorn_backward(&desc, data_of(plan), data_of(grad_plan), output(grad_cost),
                                             output(grad_a, needs[1]), output(grad_b, needs[2]), workspace.data(),
                                             workspace.bytes, host.exec()));
    return {needs[0] ? grad_cost : new_empty(plan, Sizes{0}), grad_a, grad_b};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> transport(const Tensor &x_, const Tensor &y_,
                                                                     std::optional<Tensor> a_, std::optional<Tensor> b_,
                                                                     double epsilon, int64_t max_iter, double tol,
                                                                     std::string solver, std::string precision) {
    const char *op = "transport";
    const RowSets sets = check_rows(op, x_, y_);
    const mover_transport_desc desc = describe(op, x_, sets, epsilon, max_iter, tol, solver, precision);
    const std::optional<Tensor> a = check_marginal(op, "a", a_, sets.leading, sets.n, "x", x_);
    const std::optional<Tensor> b = check_marginal(op, "b", b_, sets.leading, sets.m, "x", x_);
    const Tensor x = dense(x_), y = dense(y_);
    const Tensor plan = new_large(op, x, join(sets.leading, {sets.n, sets.m})), cost = new_large(op, x, sizes_of(plan));
    const Tensor f = new_empty(x, join(sets.leading, {sets.n})), g = new_empty(x, join(sets.leading, {sets.m}));
    const Tensor n_iter = new_empty(x, sets.leading, ScalarType::Int), error = new_empty(x, sets.leading);
    const Host host(x, {sets.n, sets.m, sets.d});
    const Workspace workspace = workspace_for(op, x, mover_transport_forward_workspace_size, desc, host);
    check_status(op, mover_transport_forward(&desc, data_of(x), data_of(y), data_of(a), data_of(b), output(plan),
                                             output(cost), output(f), output(g), static_cast<int32_t *>(output(n_iter)),
                                             output(error), workspace.data(), workspace.bytes, host.exec()));
    return {plan, cost, f, g, n_iter, error};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> transport_backward(std::optional<Tensor> grad_plan_,
                                                              std::optional<Tensor> grad_cost_, const Tensor &x_,
                                                              const Tensor &y_, const Tensor &plan_, double epsilon,
                                                              std::string precision, std::vector<bool> needs) {
    const char *op = "transport_backward";
    const RowSets sets = check_rows(op, x_, y_);
    const mover_transport_desc desc = describe(op, x_, sets, epsilon, 1, 0, "auto", precision);
    check_shape(op, "plan", plan_, join(sets.leading, {sets.n, sets.m}), "x", x_);
    require(grad_plan_.has_value() || grad_cost_.has_value(), op, "grad_plan and grad_cost must not both be None");
    check_needs(op, needs, 4);
    const std::optional<Tensor> grad_plan = check_gradient(op, "grad_plan", grad_plan_, plan_);
    const std::optional<Tensor> grad_cost = check_gradient(op, "grad_cost", grad_cost_, plan_);
    const Tensor x = dense(x_), y = dense(y_), plan = dense(plan_);
    const Tensor grad_x = gradient_like(x, needs[0]), grad_y = gradient_like(y, needs[1]);
    const Tensor grad_a = new_empty(x, needs[2] ? join(sets.leading, {sets.n}) : Sizes{0});
    const Tensor grad_b = new_empty(x, needs[3] ? join(sets.leading, {sets.m}) : Sizes{0});
    const Host host(x, {sets.n, sets.m, sets.d});
    const Workspace workspace = workspace_for(op, x, mover_transport_backward_workspace_size, desc, host);
    check_status(op, mover_transport_backward(&desc, data_of(x), data_of(y), data_of(plan), data_of(grad_plan),
                                              data_of(grad_cost), output(grad_x, needs[0]), output(grad_y, needs[1]),
                                              output(grad_a, needs[2]), output(grad_b, needs[3]), workspace.data(),
                                              workspace.bytes, host.exec()));
    return {grad_x, grad_y, grad_a, grad_b};
}

std::tuple<Tensor, Tensor, Tensor> transport_value(const Tensor &x_, const Tensor &y_, std::optional<Tensor> a_,
                                                   std::optional<Tensor> b_, double epsilon, int64_t max_iter,
                                                   double tol, std::string solver, std::string precision) {
    const char *op = "transport_value";
    const RowSets sets = check_rows(op, x_, y_);
    const mover_transport_desc desc = describe(op, x_, sets, epsilon, max_iter, tol, solver, precision);
    const std::optional<Tensor> a = check_marginal(op, "a", a_, sets.leading, sets.n, "x", x_);
    const std::optional<Tensor> b = check_marginal(op, "b", b_, sets.leading, sets.m, "x", x_);
    const Tensor x = dense(x_), y = dense(y_);
    const Tensor value = new_empty(x, sets.leading);
    const Tensor f = new_empty(x, join(sets.leading, {sets.n})), g = new_empty(x, join(sets.leading, {sets.m}));
    const Host host(x, {sets.n, sets.m, sets.d});
    const Workspace workspace = workspace_for(op, x, mover_transport_value_forward_workspace_size, desc, host);
    check_status(op,
                 mover_transport_value_forward(&desc, data_of(x), data_of(y), data_of(a), data_of(b), output(value),
                                               output(f), output(g), workspace.data(), workspace.bytes, host.exec()));
    return {value, f, g};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> transport_value_backward(const Tensor &grad_value_, const Tensor &x_,
                                                                    const Tensor &y_, std::optional<Tensor> a_,
                                                                    std::optional<Tensor> b_, const Tensor &f_,
                                                                    const Tensor &g_, double epsilon,
                                                                    std::string precision, std::vector<bool> needs) {
    const char *op = "transport_value_backward";
    const RowSets sets = check_rows(op, x_, y_);
    const mover_transport_desc desc = describe(op, x_, sets, epsilon, 1, 0, "auto", precision);
    const std::optional<Tensor> a = check_marginal(op, "a", a_, sets.leading, sets.n, "x", x_);
    const std::optional<Tensor> b = check_marginal(op, "b", b_, sets.leading, sets.m, "x", x_);
    check_shape(op, "grad_value", grad_value_, sets.leading, "x", x_);
    check_shape(op, "f", f_, join(sets.leading, {sets.n}), "x", x_);
    check_shape(op, "g", g_, join(sets.leading, {sets.m}), "x", x_);
    check_needs(op, needs, 4);
    const Tensor grad_value = dense(grad_value_), x = dense(x_), y = dense(y_);
    const Tensor f = dense(f_), g = dense(g_);
    const Tensor grad_x = gradient_like(x, needs[0]), grad_y = gradient_like(y, needs[1]);
    const Tensor grad_a = gradient_like(f, needs[2]), grad_b = gradient_like(g, needs[3]);
    const Host host(x, {sets.n, sets.m, sets.d});
    const Workspace workspace = workspace_for(op, x, mover_transport_value_backward_workspace_size, desc, host);
    check_status(op, mover_transport_value_backward(&desc, data_of(x), data_of(y), data_of(a), data_of(b), data_of(f),
                                                    data_of(g), data_of(grad_value), output(grad_x, needs[0]),
                                                    output(grad_y, needs[1]), output(grad_a, needs[2]),
                                                    output(grad_b, needs[3]), workspace.data(), workspace.bytes,
                                                    host.exec()));
    return {grad_x, grad_y, grad_a, grad_b};
}

} // namespace mover_torch
