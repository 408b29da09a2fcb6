// volume.cpp: see volume.h and mover.h.
#include "ops/volume.h"

#include "host.h"

namespace mover_torch {

using torch::stable::new_empty;

namespace {

mover_volume_desc describe_groups(const char *op, const Tensor &v, double eps) {
    const mover_dtype dtype = check_dtype(op, "v", v);
    check_dim(op, "v", v, 2, "(..., k, d)");
    const int64_t k = v.size(v.dim() - 2);
    require(k >= 1 && k <= MOVER_MAX_K, op, "a group must have 1 to ", int{MOVER_MAX_K}, " vectors, got k = ", k,
            " in v of the shape ", shape_text(sizes_of(v)));
    require(eps >= 0, op, "eps must be >= 0, got ", eps);
    return {dtype, count(leading_sizes(v, 2)), k, v.size(v.dim() - 1), eps};
}

mover_group_volume_desc describe_listed(const char *op, const Tensor &costs, const Tensor &groups) {
    const mover_dtype dtype = check_dtype(op, "costs", costs);
    check_indices(op, "groups", groups, "costs", costs);
    require(groups.dim() == 2, op, "groups must have the shape (T, k), got ", shape_text(sizes_of(groups)));
    const int64_t k = groups.size(1), pairs = k * (k - 1) / 2;
    require(k >= 2 && k <= MOVER_MAX_K, op, "a group must have 2 to ", int{MOVER_MAX_K}, " rows, got k = ", k,
            " in groups of the shape ", shape_text(sizes_of(groups)));
    require(costs.dim() == 3 && costs.size(0) == pairs && costs.size(1) == costs.size(2), op,
            "costs must have the shape (", pairs, ", B, B) for the ", pairs, " pairs of k = ", k, " sets, got ",
            shape_text(sizes_of(costs)));
    return {dtype, costs.size(1), k, groups.size(0)};
}

mover_expected_volume_desc describe_triples(const char *op, const Tensor &c12, const Tensor &c13, const Tensor &c23) {
    const mover_dtype dtype = check_dtype(op, "c12", c12);
    check_like(op, "c13", c13, "c12", c12);
    check_like(op, "c23", c23, "c12", c12);
    const bool fit = c12.dim() == 2 && c13.dim() == 2 && c23.dim() == 2 && c13.size(0) == c12.size(0) &&
                     c23.size(0) == c12.size(1) && c23.size(1) == c13.size(1);
    require(fit, op, "c12, c13, c23 must have the shapes (n1, n2), (n1, n3), (n2, n3), got ", shape_text(sizes_of(c12)),
            ", ", shape_text(sizes_of(c13)), ", ", shape_text(sizes_of(c23)));
    return {dtype, c12.size(0), c12.size(1), c13.size(1)};
}

std::optional<Tensor> check_weights(const char *op, const char *name, const std::optional<Tensor> &weights,
                                    const char *like_name, const Tensor &like) {
    if (!weights.has_value()) return std::nullopt;
    check_shape(op, name, *weights, sizes_of(like), like_name, like);
    return dense(*weights);
}

} // namespace

Tensor volume(const Tensor &v_, double eps) {
    const char *op = "volume";
    const mover_volume_desc desc = describe_groups(op, v_, eps);
    const Tensor v = dense(v_);
    const Tensor result = new_empty(v, leading_sizes(v, 2));
    const Host host(v);
    check_status(op, mover_volume_forward(&desc, data_of(v), output(result), host.exec()));
    return result;
}

Tensor volume_backward(const Tensor &grad_volume_, const Tensor &v_, double eps) {
    const char *op = "volume_backward";
    const mover_volume_desc desc = describe_groups(op, v_, eps);
    check_shape(op, "grad_volume", grad_volume_, leading_sizes(v_, 2), "v", v_);
    const Tensor grad_volume = dense(grad_volume_), v = dense(v_);
    const Tensor grad_v = gradient_like(v, true);
    const Host host(v);
    check_status(op, mover_volume_backward(&desc, data_of(v), data_of(grad_volume), output(grad_v), host.exec()));
    return grad_v;
}

Tensor group_volume(const Tensor &costs_, const Tensor &groups_) {
    const char *op = "group_volume";
    const mover_group_volume_desc desc = describe_listed(op, costs_, groups_);
    const Tensor costs = dense(costs_), groups = dense(groups_);
    const Tensor result = new_empty(costs, Sizes{desc.count});
    const Host host(costs);
    check_status(op, mover_group_volume_forward(&desc, data_of(costs), static_cast<const int64_t *>(data_of(groups)),
                                                output(result), host.exec()));
    return result;
}

Tensor group_volume_backward(const Tensor &grad_volume_, const Tensor &costs_, const Tensor &groups_) {
    const char *op = "group_volume_backward";
    const mover_group_volume_desc desc = describe_listed(op, costs_, groups_);
    check_shape(op, "grad_volume", grad_volume_, {desc.count}, "costs", costs_);
    const Tensor grad_volume = dense(grad_volume_), costs = dense(costs_), groups = dense(groups_);
    const Tensor grad_costs = gradient_like(costs, true);
    const Host host(costs);
    const Workspace workspace = workspace_for(op, costs, mover_group_volume_backward_workspace_size, desc, host);
    check_status(op, mover_group_volume_backward(&desc, data_of(costs), static_cast<const int64_t *>(data_of(groups)),
                                                 data_of(grad_volume), output(grad_costs), workspace.data(),
                                                 workspace.bytes, host.exec()));
    return grad_costs;
}

Tensor expected_volume(const Tensor &c12_, const Tensor &c13_, const Tensor &c23_, std::optional<Tensor> p12_,
                       std::optional<Tensor> p13_, std::optional<Tensor> p23_) {
    const char *op = "expected_volume";
    const mover_expected_volume_desc desc = describe_triples(op, c12_, c13_, c23_);
    const std::optional<Tensor> p12 = check_weights(op, "p12", p12_, "c12", c12_);
    const std::optional<Tensor> p13 = check_weights(op, "p13", p13_, "c13", c13_);
    const std::optional<Tensor> p23 = check_weights(op, "p23", p23_, "c23", c23_);
    const Tensor c12 = dense(c12_), c13 = dense(c13_), c23 = dense(c23_);
    const Tensor value = new_empty(c12, Sizes{});
    const Host host(c12);
    const Workspace workspace = workspace_for(op, c12, mover_expected_volume_forward_workspace_size, desc, host);
    check_status(op, mover_expected_volume_forward(&desc, data_of(c12), data_of(c13), data_of(c23), data_of(p12),
                                                   data_of(p13), data_of(p23), output(value), workspace.data(),
                                                   workspace.bytes, host.exec()));
    return value;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>
expected_volume_with_gradients(const Tensor &c12_, const Tensor &c13_, const Tensor &c23_, std::optional<Tensor> p12_,
                               std::optional<Tensor> p13_, std::optional<Tensor> p23_, std::vector<bool> needs) {
    const char *op = "expected_volume_with_gradients";
    const mover_expected_volume_desc desc = describe_triples(op, c12_, c13_, c23_);
    const std::optional<Tensor> p12 = check_weights(op, "p12", p12_, "c12", c12_);
    const std::optional<Tensor> p13 = check_weights(op, "p13", p13_, "c13", c13_);
    const std::optional<Tensor> p23 = check_weights(op, "p23", p23_, "c23", c23_);
    check_needs(op, needs, 6);
    const Tensor c12 = dense(c12_), c13 = dense(c13_), c23 = dense(c23_), value = new_empty(c12, Sizes{});
    const Tensor grad_c12 = gradient_like(c12, needs[0]), grad_c13 = gradient_like(c13, needs[1]),
                 grad_c23 = gradient_like(c23, needs[2]);
    const Tensor grad_p12 = gradient_like(c12, needs[3]), grad_p13 = gradient_like(c13, needs[4]),
                 grad_p23 = gradient_like(c23, needs[5]);
    const Host host(c12);
    const Workspace workspace = workspace_for(op, c12, mover_expected_volume_backward_workspace_size, desc, host);
    check_status(op, mover_expected_volume_backward(
                         &desc, data_of(c12), data_of(c13), data_of(c23), data_of(p12), data_of(p13), data_of(p23),
                         nullptr, output(value), output(grad_c12, needs[0]), output(grad_c13, needs[1]),
                         output(grad_c23, needs[2]), output(grad_p12, needs[3]), output(grad_p13, needs[4]),
                         output(grad_p23, needs[5]), workspace.data(), workspace.bytes, host.exec()));
    return {value, grad_c12, grad_c13, grad_c23, grad_p12, grad_p13, grad_p23};
}

} // namespace mover_torch
