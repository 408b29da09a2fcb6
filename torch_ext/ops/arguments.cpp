// arguments.cpp: see arguments.h.
#include "ops/arguments.h"

#include <array>
#include <limits>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/ScalarType.h>

namespace mover_torch {

using torch::headeronly::ScalarType;

namespace {

std::string dtype_text(const Tensor &tensor) {
    switch (tensor.scalar_type()) {
    case ScalarType::Float:
        return "float32";
    case ScalarType::Double:
        return "float64";
    case ScalarType::Half:
        return "float16";
    case ScalarType::BFloat16:
        return "bfloat16";
    case ScalarType::Int:
        return "int32";
    case ScalarType::Long:
        return "int64";
    case ScalarType::Bool:
        return "bool";
    case ScalarType::Byte:
        return "uint8";
    default:
        return torch::headeronly::toString(tensor.scalar_type());
    }
}

std::string device_text(const Tensor &tensor) {
    if (tensor.is_cpu()) return "cpu";
    if (tensor.is_cuda()) return "cuda:" + std::to_string(tensor.get_device_index());
    return "another device";
}

bool same_device(const Tensor &one, const Tensor &other) {
    return one.is_cpu() == other.is_cpu() && one.is_cuda() == other.is_cuda() &&
           one.get_device_index() == other.get_device_index();
}

void check_device(const char *op, const char *name, const Tensor &tensor, const char *like_name, const Tensor &like) {
    require(same_device(tensor, like), op, name, " must be on the device of ", like_name, " (", device_text(like),
            "), got ", device_text(tensor));
}

Tensor expand(const Tensor &tensor, const Sizes &sizes) {
    std::array<StableIValue, 3> stack{torch::stable::detail::from(tensor), torch::stable::detail::from(sizes),
                                      torch::stable::detail::from(false)};
    STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::expand", "", stack.data(), TORCH_ABI_VERSION));
    return torch::stable::detail::to<Tensor>(stack[0]);
}

} // namespace

std::string shape_text(const Sizes &sizes) {
    std::string text = "(";
    for (size_t i = 0; i < sizes.size(); i++) text += (i == 0 ? "" : ", ") + std::to_string(sizes[i]);
    return text + ")";
}

Sizes sizes_of(const Tensor &tensor) { return leading_sizes(tensor, 0); }

Sizes leading_sizes(const Tensor &tensor, int64_t trailing) {
    const auto sizes = tensor.sizes();
    return Sizes(sizes.begin(), sizes.end() - trailing);
}

int64_t count(const Sizes &sizes) {
    int64_t product = 1;
    for (const int64_t size : sizes) product *= size;
    return product;
}

Sizes join(Sizes sizes, std::initializer_list<int64_t> more) {
    sizes.insert(sizes.end(), more);
    return sizes;
}

mover_dtype check_dtype(const char *op, const char *name, const Tensor &tensor) {
    switch (tensor.scalar_type()) {
    case ScalarType::Float:
        return MOVER_FLOAT32;
    case ScalarType::Double:
        return MOVER_FLOAT64;
    default:
        fail(op, name, " must be float32 or float64, got ", dtype_text(tensor));
    }
}

void check_dim(const char *op, const char *name, const Tensor &tensor, int64_t least, const char *form) {
    require(tensor.dim() >= least, op, name, " must have the shape ", form, ", got ", shape_text(sizes_of(tensor)));
}

void check_like(const char *op, const char *name, const Tensor &tensor, const char *like_name, const Tensor &like) {
    check_device(op, name, tensor, like_name, like);
    require(tensor.scalar_type() == like.scalar_type(), op, name, " must have the dtype of ", like_name, " (",
            dtype_text(like), "), got ", dtype_text(tensor));
}

void check_shape(const char *op, const char *name, const Tensor &tensor, const Sizes &sizes, const char *like_name,
                 const Tensor &like) {
    check_like(op, name, tensor, like_name, like);
    const Sizes actual = sizes_of(tensor);
    require(actual == sizes, op, name, " must have the shape ", shape_text(sizes), ", got ", shape_text(actual));
}

void check_indices(const char *op, const char *name, const Tensor &tensor, const char *like_name, const Tensor &like) {
    check_device(op, name, tensor, like_name, like);
    require(tensor.scalar_type() == ScalarType::Long, op, name, " must be int64, got ", dtype_text(tensor));
}

void check_mask(const char *op, const char *name, const Tensor &tensor, const Sizes &sizes, const char *like_name,
                const Tensor &like) {
    check_device(op, name, tensor, like_name, like);
    require(tensor.scalar_type() == ScalarType::Bool, op, name, " must be bool, got ", dtype_text(tensor));
    const Sizes actual = sizes_of(tensor);
    require(actual == sizes, op, name, " must have the shape ", shape_text(sizes), ", got ", shape_text(actual));
}

RowSets check_rows(const char *op, const Tensor &x, const Tensor &y) {
    const mover_dtype dtype = check_dtype(op, "x", x);
    check_like(op, "y", y, "x", x);
    check_dim(op, "x", x, 2, "(..., n, d)");
    check_dim(op, "y", y, 2, "(..., m, d)");
    const Sizes leading = leading_sizes(x, 2);
    require(leading_sizes(y, 2) == leading && y.size(y.dim() - 1) == x.size(x.dim() - 1), op,
            "x (..., n, d) and y (..., m, d) must agree in all sizes but n and m, got ", shape_text(sizes_of(x)),
            " and ", shape_text(sizes_of(y)));
    return {dtype, leading, count(leading), x.size(x.dim() - 2), y.size(y.dim() - 2), x.size(x.dim() - 1)};
}

std::optional<Tensor> check_marginal(const char *op, const char *name, const std::optional<Tensor> &marginal,
                                     const Sizes &leading, int64_t n, const char *like_name, const Tensor &like) {
    if (!marginal.has_value()) return std::nullopt;
    check_like(op, name, *marginal, like_name, like);
    const Sizes full = join(leading, {n});
    const Sizes actual = sizes_of(*marginal);
    require(actual == full || actual == Sizes{n}, op, name, " must have the shape ", shape_text({n}),
            leading.empty() ? "" : " or " + shape_text(full), ", got ", shape_text(actual));
    return dense(actual == full ? *marginal : expand(*marginal, full));
}

void check_epsilon(const char *op, double epsilon) {
    require(epsilon > 0 && epsilon <= std::numeric_limits<double>::max(), op, "epsilon must be > 0",
            epsilon > 0 ? " and finite" : "", ", got ", epsilon);
}

int32_t check_iterations(const char *op, int64_t max_iter, double tol) {
    constexpr int64_t most = std::numeric_limits<int32_t>::max();
    require(max_iter >= 1 && max_iter <= most, op, "max_iter must be from 1 to ", most, ", got ", max_iter);
    require(tol >= 0, op, "tol must be >= 0, got ", tol);
    return static_cast<int32_t>(max_iter);
}

mover_solver parse_solver(const char *op, const std::string &solver) {
    if (solver == "auto") return MOVER_SOLVER_AUTO;
    if (solver == "sinkhorn") return MOVER_SOLVER_SINKHORN;
    if (solver == "newton") return MOVER_SOLVER_NEWTON;
    fail(op, "solver must be 'auto', 'sinkhorn' or 'newton', got '", solver, "'");
}

mover_precision parse_precision(const char *op, const std::string &precision, const Tensor &like) {
    if (precision == "float32") return MOVER_PRECISION_FLOAT32;
    if (precision == "tf32" && like.is_cuda()) return MOVER_PRECISION_TF32;
    require(precision != "tf32", op, "precision 'tf32' needs a CUDA device; on the CPU use 'float32'");
    fail(op, "precision must be 'float32'", like.is_cuda() ? " or 'tf32'" : "", ", got '", precision, "'");
}

void check_needs(const char *op, const std::vector<bool> &needs, size_t expected) {
    require(needs.size() == expected, op, "needs must have ", expected, " entries, got ", needs.size());
}

Tensor gradient_like(const Tensor &like, bool needed) {
    return torch::stable::new_empty(like, needed ? sizes_of(like) : Sizes{0});
}

Tensor dense(const Tensor &tensor) { return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor); }

std::optional<Tensor> dense_or_none(const std::optional<Tensor> &tensor) {
    if (!tensor.has_value()) return std::nullopt;
    return dense(*tensor);
}

const void *data_of(const Tensor &tensor) { return tensor.const_data_ptr(); }

const void *data_of(const std::optional<Tensor> &tensor) {
    return tensor.has_value() ? tensor->const_data_ptr() : nullptr;
}

void *output(const Tensor &tensor, bool needed) { return needed ? tensor.mutable_data_ptr() : nullptr; }

} // namespace mover_torch
