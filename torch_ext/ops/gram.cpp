// gram.cpp: see gram.h and mover.h.
#include "ops/gram.h"

#include "host.h"

namespace mover_torch {

using torch::headeronly::ScalarType;
using torch::stable::new_empty;

namespace {

mover_gram_desc describe_vectors(const char *op, const Tensor &v) {
    const mover_dtype dtype = check_dtype(op, "v", v);
    check_dim(op, "v", v, 2, "(..., k, d)");
    const int64_t k = v.size(v.dim() - 2);
    require(k >= 1, op, "v must have at least one vector per group, got the shape ", shape_text(sizes_of(v)));
    return {dtype, count(leading_sizes(v, 2)), k, v.size(v.dim() - 1)};
}

mover_factorization parse_backend(const char *op, const std::string &backend, const Tensor &like) {
    if (backend == "auto") return MOVER_FACTORIZATION_AUTO;
    if (backend == "registers") return MOVER_FACTORIZATION_REGISTERS;
    if (backend == "cusolver" && like.is_cuda()) return MOVER_FACTORIZATION_CUSOLVER;
    require(backend != "cusolver", op, "backend 'cusolver' needs a CUDA device; on the CPU use 'registers' or 'auto'");
    fail(op, "backend must be 'auto'", like.is_cuda() ? ", 'registers' or 'cusolver'" : " or 'registers'", ", got '",
         backend, "'");
}

mover_logdet_desc describe_matrices(const char *op, const Tensor &g, const std::string &backend) {
    const mover_dtype dtype = check_dtype(op, "g", g);
    check_dim(op, "g", g, 2, "(..., k, k)");
    const int64_t k = g.size(g.dim() - 1);
    require(k >= 1 && g.size(g.dim() - 2) == k, op, "g must have the shape (..., k, k) with k >= 1, got ",
            shape_text(sizes_of(g)));
    return {dtype, count(leading_sizes(g, 2)), k, parse_backend(op, backend, g)};
}

Host host_for(const Tensor &g, const mover_logdet_desc &desc) {
    const bool large = desc.factorization == MOVER_FACTORIZATION_AUTO && desc.k > MOVER_MAX_K;
    return Host(g, {}, large || desc.factorization == MOVER_FACTORIZATION_CUSOLVER);
}

} // namespace

Tensor gram(const Tensor &v_) {
    const char *op = "gram";
    const mover_gram_desc desc = describe_vectors(op, v_);
    const Tensor v = dense(v_);
    const Tensor result = new_empty(v, join(leading_sizes(v, 2), {desc.k, desc.k}));
    const Host host(v);
    check_status(op, mover_gram_forward(&desc, data_of(v), output(result), host.exec()));
    return result;
}

Tensor gram_backward(const Tensor &grad_gram_, const Tensor &v_) {
    const char *op = "gram_backward";
    const mover_gram_desc desc = describe_vectors(op, v_);
    check_shape(op, "grad_gram", grad_gram_, join(leading_sizes(v_, 2), {desc.k, desc.k}), "v", v_);
    const Tensor grad_gram = dense(grad_gram_), v = dense(v_);
    const Tensor grad_v = gradient_like(v, true);
    const Host host(v);
    check_status(op, mover_gram_backward(&desc, data_of(v), data_of(grad_gram), output(grad_v), host.exec()));
    return grad_v;
}

std::tuple<Tensor, Tensor> logdet(const Tensor &g_, std::string backend) {
    const char *op = "logdet";
    const mover_logdet_desc desc = describe_matrices(op, g_, backend);
    const Sizes leading = leading_sizes(g_, 2);
    const Tensor g = dense(g_);
    const Tensor result = new_empty(g, leading), info = new_empty(g, leading, ScalarType::Int);
    const Host host = host_for(g, desc);
    const Workspace workspace = workspace_for(op, g, mover_logdet_workspace_size, desc, host);
    check_status(op, mover_logdet_forward(&desc, data_of(g), output(result), static_cast<int32_t *>(output(info)),
                                          workspace.data(), workspace.bytes, host.exec()));
    return {result, info};
}

Tensor logdet_backward(const Tensor &grad_logdet_, const Tensor &g_, std::string backend) {
    const char *op = "logdet_backward";
    const mover_logdet_desc desc = describe_matrices(op, g_, backend);
    check_shape(op, "grad_logdet", grad_logdet_, leading_sizes(g_, 2), "g", g_);
    const Tensor grad_logdet = dense(grad_logdet_), g = dense(g_);
    const Tensor grad_g = gradient_like(g, true);
    const Host host = host_for(g, desc);
    const Workspace workspace = workspace_for(op, g, mover_logdet_workspace_size, desc, host);
    check_status(op, mover_logdet_backward(&desc, data_of(g), data_of(grad_logdet), output(grad_g), workspace.data(),
                                           workspace.bytes, host.exec()));
    return grad_g;
}

} // namespace mover_torch
