/*
 * cost.h: the cost stage, as the other stages of the CPU backend use it.
 */
#ifndef MOVER_CPU_COST_H
#define MOVER_CPU_COST_H

#include "../src/internal.h"

/* Scratch of one product of n rows by m rows of width d. */
typedef struct mover_cost_scratch_f64 {
    double *norm_x, *norm_y; /* (n), (m): squared norms */
    int64_t *near;           /* one count per block of rows */
} mover_cost_scratch_f64;

typedef struct mover_cost_scratch_f32 {
    float *norm_x, *norm_y;
    int64_t *near;
    double *tile_x, *y, *tile_cost; /* a tile of rows, all of y, and their distances, in double */
    mover_cost_scratch_f64 in_double;
} mover_cost_scratch_f32;

/* Where more than one entry in so many is near, a float problem is computed in double. */
enum { MOVER_COST_SPARSE = 16 };

#define MOVER_CPU_COST_DECLARE(real, S)                                                                                \
    mover_cost_scratch_##S mover_cost_take_##S(mover_arena *arena, int64_t n, int64_t m, int64_t d);                   \
                                                                                                                       \
    /* out (n, m) = scale * |x_i - y_j|^2 for one problem, x (n, d), y (m, d). Accurate to the last digits however     \
     * close the rows are. Not finite where a row is not. */                                                           \
    mover_status mover_cost_product_##S(const real *x, const real *y, int64_t n, int64_t m, int64_t d, real scale,     \
                                        real *out, const mover_cost_scratch_##S *scratch, const mover_exec *exec);     \
                                                                                                                       \
    /* The same in pieces, for callers that go on with a row while it is in the cache: squared norms of rows; a row of \
     * products x_i.y_j to scale * |x_i - y_j|^2, in place, which returns how many entries are near; and those again   \
     * from differences. */                                                                                            \
    mover_status mover_cost_norms_##S(const real *rows, int64_t count, int64_t d, real *norm, const mover_exec *exec); \
    int64_t mover_cost_row_##S(real norm_x, const real *norm_y, int64_t m, real scale, real *row);                     \
    void mover_cost_repair_##S(const real *x, real norm_x, const real *y, const real *norm_y, int64_t m, int64_t d,    \
                               real scale, real *row);                                                                 \
                                                                                                                       \
    /* sums[j] = sum_i matrix[i*stride + j], i < n, j < m, in the order of the rows. */                                \
    mover_status mover_cost_column_sums_##S(const real *matrix, int64_t n, int64_t stride, int64_t m, real *sums,      \
                                            const mover_exec *exec);                                                   \
                                                                                                                       \
    /* The gradient of sum(D . |x - y|^2) for one problem, D (n, m):                                                   \
     *     grad_x = 2 (diag(D 1) x - D y),   grad_y = 2 (diag(D^T 1) y - D^T x)                                        \
     * Either may be NULL. `summed` (n, m) has the row and column sums of D: D itself, or the part of it beside one    \
     * whose rows and columns sum to 0; NULL: they all do. sums (n + m) is scratch. */                                 \
    mover_status mover_cost_gradient_##S(const real *x, const real *y, int64_t n, int64_t m, int64_t d,                \
                                         const real *grad, const real *summed, real *grad_x, real *grad_y, real *sums, \
                                         const mover_exec *exec);

MOVER_CPU_COST_DECLARE(double, f64)
MOVER_CPU_COST_DECLARE(float, f32)

/* mover_cost_product_f32 with all products in double, whose norm_x, norm_y and near it does not use. */
mover_status mover_cost_in_double(const float *x, const float *y, int64_t n, int64_t m, int64_t d, float scale,
                                  float *out, const mover_cost_scratch_f32 *scratch, const mover_exec *exec);

#endif
