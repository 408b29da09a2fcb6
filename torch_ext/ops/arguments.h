// arguments.h: checks of what a caller passed. Each failure names the operator, the argument, what was expected and
// what came: "mover::sinkhorn: epsilon must be > 0, got -0.1".
#pragma once

#include <cstdint>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <torch/csrc/stable/tensor.h>

#include "mover/mover.h"

// Headers of torch 2.11 know the check without torch's own message only.
#ifndef STABLE_TORCH_ERROR_CODE_CHECK
#define STABLE_TORCH_ERROR_CODE_CHECK TORCH_ERROR_CODE_CHECK
#endif

namespace mover_torch {

using torch::stable::Tensor;
using Sizes = std::vector<int64_t>;

// Reaches Python as a RuntimeError. (STD_TORCH_CHECK would put the source file and line in front.)
template <class... Parts> [[noreturn]] void fail(const char *op, const Parts &...parts) {
    std::ostringstream text;
    text << "mover::" << op << ": ";
    (text << ... << parts);
    throw std::runtime_error(text.str());
}

template <class... Parts> void require(bool condition, const char *op, const Parts &...parts) {
    if (!condition) fail(op, parts...);
}

std::string shape_text(const Sizes &sizes);
Sizes sizes_of(const Tensor &tensor);

// The sizes before the last `trailing` ones, and the number of problems they make.
Sizes leading_sizes(const Tensor &tensor, int64_t trailing);
int64_t count(const Sizes &sizes);
Sizes join(Sizes sizes, std::initializer_list<int64_t> more);

// float32 or float64.
mover_dtype check_dtype(const char *op, const char *name, const Tensor &tensor);
// At least the dimensions of `form`, e.g. "(..., n, d)" with least = 2.
void check_dim(const char *op, const char *name, const Tensor &tensor, int64_t least, const char *form);
// Type and device of another argument.
void check_like(const char *op, const char *name, const Tensor &tensor, const char *like_name, const Tensor &like);
// The same, and exactly this shape.
void check_shape(const char *op, const char *name, const Tensor &tensor, const Sizes &sizes, const char *like_name,
                 const Tensor &like);

// int64, on the device of another argument.
void check_indices(const char *op, const char *name, const Tensor &tensor, const char *like_name, const Tensor &like);

// bool, of this shape, on the device of another argument.
void check_mask(const char *op, const char *name, const Tensor &tensor, const Sizes &sizes, const char *like_name,
                const Tensor &like);

// x (..., n, d) and y (..., m, d) with equal leading sizes.
struct RowSets {
    mover_dtype dtype;
    Sizes leading;
    int64_t batch, n, m, d;
};
RowSets check_rows(const char *op, const Tensor &x, const Tensor &y);

// A contiguous (leading..., n) tensor from None, (n) or (leading..., n).
std::optional<Tensor> check_marginal(const char *op, const char *name, const std::optional<Tensor> &marginal,
                                     const Sizes &leading, int64_t n, const char *like_name, const Tensor &like);

// Values shared by operators. Products in TF32 are for CUDA, where `like` is.
void check_epsilon(const char *op, double epsilon);
int32_t check_iterations(const char *op, int64_t max_iter, double tol);
mover_solver parse_solver(const char *op, const std::string &solver);
mover_precision parse_precision(const char *op, const std::string &precision, const Tensor &like);

// Which gradients a backward operator is to compute; the others are returned with the shape (0).
void check_needs(const char *op, const std::vector<bool> &needs, size_t expected);
Tensor gradient_like(const Tensor &like, bool needed);

// The tensor itself where it is contiguous already.
Tensor dense(const Tensor &tensor);
std::optional<Tensor> dense_or_none(const std::optional<Tensor> &tensor);

// NULL for an absent tensor or an unwanted gradient.
const void *data_of(const Tensor &tensor);
const void *data_of(const std::optional<Tensor> &tensor);
void *output(const Tensor &tensor, bool needed = true);

} // namespace mover_torch
