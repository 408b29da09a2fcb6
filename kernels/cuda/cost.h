/*
 * cost.h: the cost stage, as the other stages of the CUDA backend use it.
 *
 * Everything is enqueued on the stream of `exec`. The bits of an entry depend on its two rows and on d, n and m only,
 * neither on its place nor on what else is computed in the same call. `function` names the entry point in errors.
 */
#ifndef MOVER_CUDA_COST_H
#define MOVER_CUDA_COST_H

#include "real.h"

#include "../src/internal.h"

/* Squared norms of both sides of `batch` problems. */
typedef struct R(mover_cuda_cost_scratch) {
    real *norm_x, *norm_y; /* (batch, n), (batch, m) */
} R(mover_cuda_cost_scratch);

R(mover_cuda_cost_scratch) R(mover_cuda_cost_take)(mover_arena *arena, int64_t batch, int64_t n, int64_t m);

/* cost (batch, n, m) = |x_i - y_j|^2, x (batch, n, d), y (batch, m, d). Relative error at most 1e-5 (float) or 1e-10
 * (double) however close the rows are, 0 exactly for equal rows; with MOVER_PRECISION_TF32 rows that are not close have
 * an error of about 1e-3. NaN or Inf where a row is not finite.
 * row_minimum (batch, n), or NULL: the smallest cost of each row; NaN where one of them is. */
mover_status R(mover_cuda_costs)(const char *function, int64_t batch, int64_t n, int64_t m, int64_t d, const real *x,
                                 const real *y, mover_precision precision, real *cost, real *row_minimum,
                                 const R(mover_cuda_cost_scratch) * scratch, const mover_exec *exec);

/* The same in pieces, for one problem: norm[i] = |rows_i|^2, rows (count, d); and out (n, m) = scale |x_i - y_j|^2 from
 * rows and their norms, with the bits of mover_cuda_costs where scale is a power of two. */
mover_status R(mover_cuda_norms)(const char *function, int64_t count, int64_t d, const real *rows, real *norm,
                                 const mover_exec *exec);
mover_status R(mover_cuda_scaled_costs)(const char *function, int64_t n, int64_t m, int64_t d, const real *x,
                                        const real *norm_x, const real *y, const real *norm_y, real scale,
                                        mover_precision precision, real *out, const mover_exec *exec);

/* What both choose: the largest tile, 128, 64 or 32 entries a side, that the problem would not leave mostly empty and
 * of which there are enough; and the costs in tiles of a given side. Without 128 where memory is not aligned to
 * vectors, or in double. */
int R(mover_cuda_tile_side)(int64_t batch, int64_t n, int64_t m);
mover_status R(mover_cuda_tiled_costs)(const char *function, int side, int64_t n, int64_t m, int64_t d, const real *x,
                                       const real *norm_x, const real *y, const real *norm_y, real scale,
                                       mover_precision precision, real *out, const mover_exec *exec);

/* The gradient of sum(D . |x - y|^2), D = grad (batch, n, m):
 *     grad_x = 2 (diag(D 1) x - D y),   grad_y = 2 (diag(D^T 1) y - D^T x)
 * Either may be NULL. `summed` (batch, n, m) has the row and column sums of D: D itself, or the part of it beside one
 * whose rows and columns sum to 0; NULL: they all do. Uses exec->blas, one product for each problem and output. */
typedef struct R(mover_cuda_cost_gradient_scratch) {
    real *sum_x, *sum_y; /* (batch, n), (batch, m) */
    real *partial;       /* (batch, chunks, m): column sums of chunks of rows */
} R(mover_cuda_cost_gradient_scratch);

R(mover_cuda_cost_gradient_scratch)
R(mover_cuda_cost_gradient_take)(mover_arena *arena, int64_t batch, int64_t n, int64_t m);

mover_status R(mover_cuda_cost_gradient)(const char *function, int64_t batch, int64_t n, int64_t m, int64_t d,
                                         const real *x, const real *y, mover_precision precision, const real *grad,
                                         const real *summed, real *grad_x, real *grad_y,
                                         const R(mover_cuda_cost_gradient_scratch) * scratch, const mover_exec *exec);

#endif
