/*
 * cost.c: squared Euclidean distances, C_ij = |x_i - y_j|^2, and their gradient.
 *
 * C = |x|^2 + |y|^2 - 2 x.y costs one matrix product, but where C is much smaller than the norms its digits cancel.
 * Such "near" entries, C < NEAR (|x|^2 + |y|^2), are summed again from differences. Where more than one entry in
 * MOVER_COST_SPARSE is near (embeddings that have collapsed to a cone), a float problem is computed in double, a tile
 * of rows at a time: there the product loses no digit that a float keeps, until rows are nearly equal.
 */
#include "cost.h"
#include "../src/backend.h"
#include "real.h"

enum { BLOCK = 64, COLUMNS = 256 };

#if MOVER_REAL_BITS == 32
enum { TILE = 128 };
static const real NEAR = 0.03f;
#else
static const real NEAR = 1e-5;
#endif

R(mover_cost_scratch) R(mover_cost_take)(mover_arena *arena, int64_t n, int64_t m, int64_t d) {
    R(mover_cost_scratch) scratch = {0};
    scratch.norm_x = mover_take(arena, 1, n, sizeof(real));
    scratch.norm_y = mover_take(arena, 1, m, sizeof(real));
    scratch.near = mover_take(arena, 1, mover_ceil_div(n, BLOCK), sizeof(int64_t));
#if MOVER_REAL_BITS == 32
    scratch.tile_x = mover_take(arena, mover_min(n, TILE), d, sizeof(double));
    scratch.y = mover_take(arena, m, d, sizeof(double));
    scratch.tile_cost = mover_take(arena, mover_min(n, TILE), m, sizeof(double));
    scratch.in_double = mover_cost_take_f64(arena, mover_min(n, TILE), m, d);
#else
    (void)d;
#endif
    return scratch;
}

/* ---- squared norms ---------------------------------------------------------------------------------------------- */

typedef struct norms {
    const real *rows;
    int64_t d;
    real *norm;
} norms;

MOVER_HOT static void sum_squares(const norms *task, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
        const real *row = task->rows + i * task->d;
        double sum = 0;
        MOVER_SIMD_SUM(sum)
        for (int64_t t = 0; t < task->d; t++) sum += (double)row[t] * (double)row[t];
        task->norm[i] = (real)sum;
    }
}

static void norms_body(int64_t begin, int64_t end, void *ctx) { sum_squares(ctx, begin, end); }

mover_status R(mover_cost_norms)(const real *rows, int64_t count, int64_t d, real *norm, const mover_exec *exec) {
    norms task = {rows, d, norm};
    return mover_run(exec, 0, count, mover_grain(d), norms_body, &task);
}

/* ---- distances -------------------------------------------------------------------------------------------------- */

typedef struct distances {
    const real *x, *y;
    int64_t n, m, d;
    real scale, *out;
    const R(mover_cost_scratch) * scratch;
} distances;

/* A NaN passes both comparisons unchanged. */
MOVER_INLINE int64_t row_from_products(real norm_x, const real *restrict norm_y, int64_t m, real scale,
                                       real *restrict row) {
    int32_t near = 0;
    MOVER_SIMD_SUM(near)
    for (int64_t j = 0; j < m; j++) {
        const real sum = norm_x + norm_y[j], distance = sum - 2 * row[j];
        near += distance < NEAR * sum;
        row[j] = scale * (distance < 0 ? 0 : distance);
    }
    return near;
}

MOVER_INLINE void repair_row(const real *restrict x, real norm_x, const real *y, const real *norm_y, int64_t m,
                             int64_t d, real scale, real *row) {
    const real threshold = NEAR * scale;
    for (int64_t j = 0; j < m; j++) {
        if (!(row[j] <= threshold * (norm_x + norm_y[j]))) continue;
        const real *restrict other = y + j * d;
        double sum = 0;
        MOVER_SIMD_SUM(sum)
        for (int64_t t = 0; t < d; t++) {
            const double difference = (double)x[t] - (double)other[t];
            sum += difference * difference;
        }
        row[j] = (real)((double)scale * sum);
    }
}

MOVER_HOT static int64_t hot_row(real norm_x, const real *norm_y, int64_t m, real scale, real *row) {
    return row_from_products(norm_x, norm_y, m, scale, row);
}

MOVER_HOT static void hot_repair(const real *x, real norm_x, const real *y, const real *norm_y, int64_t m, int64_t d,
                                 real scale, real *row) {
    repair_row(x, norm_x, y, norm_y, m, d, scale, row);
}

int64_t R(mover_cost_row)(real norm_x, const real *norm_y, int64_t m, real scale, real *row) {
    return hot_row(norm_x, norm_y, m, scale, row);
}

void R(mover_cost_repair)(const real *x, real norm_x, const real *y, const real *norm_y, int64_t m, int64_t d,
                          real scale, real *row) {
    hot_repair(x, norm_x, y, norm_y, m, d, scale, row);
}

/* Products to distances, in place; counts the near ones of each block. */
MOVER_HOT static void distances_from_products(const distances *task, int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; block++) {
        int64_t near = 0;
        for (int64_t i = block * BLOCK; i < mover_min(task->n, (block + 1) * BLOCK); i++)
            near += row_from_products(task->scratch->norm_x[i], task->scratch->norm_y, task->m, task->scale,
                                      task->out + i * task->m);
        task->scratch->near[block] = near;
    }
}

/* The near entries of a block, from differences. */
MOVER_HOT static void repair_near(const distances *task, int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; block++) {
        if (task->scratch->near[block] == 0) continue;
        for (int64_t i = block * BLOCK; i < mover_min(task->n, (block + 1) * BLOCK); i++)
            repair_row(task->x + i * task->d, task->scratch->norm_x[i], task->y, task->scratch->norm_y, task->m,
                       task->d, task->scale, task->out + i * task->m);
    }
}

static void distances_body(int64_t begin, int64_t end, void *ctx) { distances_from_products(ctx, begin, end); }
static void repair_body(int64_t begin, int64_t end, void *ctx) { repair_near(ctx, begin, end); }

#if MOVER_REAL_BITS == 32
static void widen(const float *rows, int64_t count, double *wide) {
    for (int64_t q = 0; q < count; q++) wide[q] = (double)rows[q];
}

static mover_status distances_in_double(const distances *task, const mover_exec *exec) {
    const R(mover_cost_scratch) *scratch = task->scratch;
    widen(task->y, task->m * task->d, scratch->y);
    for (int64_t first = 0; first < task->n; first += TILE) {
        const int64_t rows = mover_min(TILE, task->n - first);
        widen(task->x + first * task->d, rows * task->d, scratch->tile_x);
        MOVER_TRY(mover_cost_product_f64(scratch->tile_x, scratch->y, rows, task->m, task->d, (double)task->scale,
                                         scratch->tile_cost, &scratch->in_double, exec));
        float *out = task->out + first * task->m;
        for (int64_t q = 0; q < rows * task->m; q++) out[q] = (float)scratch->tile_cost[q];
    }
    return MOVER_OK;
}

mover_status mover_cost_in_double(const float *x, const float *y, int64_t n, int64_t m, int64_t d, float scale,
                                  float *out, const mover_cost_scratch_f32 *scratch, const mover_exec *exec) {
    const distances task = {x, y, n, m, d, scale, out, scratch};
    return distances_in_double(&task, exec);
}
#endif

mover_status R(mover_cost_product)(const real *x, const real *y, int64_t n, int64_t m, int64_t d, real scale, real *out,
                                   const R(mover_cost_scratch) * scratch, const mover_exec *exec) {
    if (n == 0 || m == 0) return MOVER_OK;
    distances task = {x, y, n, m, d, scale, out, scratch};
    const int64_t blocks = mover_ceil_div(n, BLOCK);
    MOVER_TRY(R(mover_cost_norms)(x, n, d, scratch->norm_x, exec));
    MOVER_TRY(R(mover_cost_norms)(y, m, d, scratch->norm_y, exec));
    MOVER_TRY(mover_product(exec, REAL_DTYPE, 0, 1, n, m, d, x, d, y, d, out, m));
    MOVER_TRY(mover_run(exec, 0, blocks, mover_grain(BLOCK * m), distances_body, &task));

    int64_t near = 0;
    for (int64_t block = 0; block < blocks; block++) near += scratch->near[block];
    if (near == 0) return MOVER_OK;
#if MOVER_REAL_BITS == 32
    if (near > n * m / MOVER_COST_SPARSE) return distances_in_double(&task, exec);
#endif
    return mover_run(exec, 0, blocks, 1, repair_body, &task);
}

void R(mover_cpu_cost_layout)(const mover_cost_desc *desc, mover_arena *arena) {
    (void)R(mover_cost_take)(arena, desc->n, desc->m, desc->d);
}

mover_status R(mover_cpu_cost_forward)(const mover_cost_desc *desc, const real *x, const real *y, real *cost,
                                       void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    const int64_t n = desc->n, m = desc->m, d = desc->d;
    const R(mover_cost_scratch) scratch = R(mover_cost_take)(&arena, n, m, d);
    for (int64_t b = 0; b < desc->batch; b++)
        MOVER_TRY(R(mover_cost_product)(x + b * n * d, y + b * m * d, n, m, d, 1, cost + b * n * m, &scratch, exec));
    return MOVER_OK;
}

/* ---- column sums ------------------------------------------------------------------------------------------------ */

typedef struct column_sums {
    const real *matrix;
    int64_t n, stride, m;
    real *sums;
} column_sums;

/* Chunks [begin, end) of COLUMNS columns. */
MOVER_HOT static void sum_columns(const column_sums *task, int64_t begin, int64_t end) {
    const int64_t first = begin * COLUMNS, last = mover_min(task->m, end * COLUMNS);
    real *restrict sums = task->sums;
    for (int64_t j = first; j < last; j++) sums[j] = 0;
    for (int64_t i = 0; i < task->n; i++) {
        const real *restrict row = task->matrix + i * task->stride;
        MOVER_SIMD
        for (int64_t j = first; j < last; j++) sums[j] += row[j];
    }
}

static void columns_body(int64_t begin, int64_t end, void *ctx) { sum_columns(ctx, begin, end); }

mover_status R(mover_cost_column_sums)(const real *matrix, int64_t n, int64_t stride, int64_t m, real *sums,
                                       const mover_exec *exec) {
    column_sums task = {matrix, n, stride, m, sums};
    return mover_run(exec, 0, mover_ceil_div(m, COLUMNS), mover_grain(n * COLUMNS / 4), columns_body, &task);
}

/* ---- gradient --------------------------------------------------------------------------------------------------- */

typedef struct gradient {
    const real *summed; /* (n, m) */
    const real *rows;   /* (count, d): x or y */
    int64_t n, m, d;
    real *sums, *out; /* (count), (count, d): first the product, then the gradient */
} gradient;

MOVER_HOT static void sum_rows(const gradient *task, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
        const real *row = task->summed + i * task->m;
        real sum = 0;
        MOVER_SIMD_SUM(sum)
        for (int64_t j = 0; j < task->m; j++) sum += row[j];
        task->sums[i] = sum;
    }
}

/* out = 2 (sums_i rows_i - out) */
MOVER_HOT static void combine_rows(const gradient *task, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
        const real *restrict row = task->rows + i * task->d;
        real *restrict out = task->out + i * task->d;
        const real sum = task->summed ? task->sums[i] : 0;
        MOVER_SIMD
        for (int64_t t = 0; t < task->d; t++) out[t] = 2 * (sum * row[t] - out[t]);
    }
}

static void rows_body(int64_t begin, int64_t end, void *ctx) { sum_rows(ctx, begin, end); }
static void combine_body(int64_t begin, int64_t end, void *ctx) { combine_rows(ctx, begin, end); }

mover_status R(mover_cost_gradient)(const real *x, const real *y, int64_t n, int64_t m, int64_t d, const real *grad,
                                    const real *summed, real *grad_x, real *grad_y, real *sums,
                                    const mover_exec *exec) {
    if (grad_x) {
        gradient task = {summed, x, n, m, d, sums, grad_x};
        if (summed) MOVER_TRY(mover_run(exec, 0, n, mover_grain(m), rows_body, &task));
        MOVER_TRY(mover_product(exec, REAL_DTYPE, 0, 0, n, d, m, grad, m, y, d, grad_x, d));
        MOVER_TRY(mover_run(exec, 0, n, mover_grain(d), combine_body, &task));
    }
    if (grad_y) {
        gradient task = {summed, y, n, m, d, sums + n, grad_y};
        if (summed) MOVER_TRY(R(mover_cost_column_sums)(summed, n, m, m, task.sums, exec));
        MOVER_TRY(mover_product(exec, REAL_DTYPE, 1, 0, m, d, n, grad, m, x, d, grad_y, d));
        MOVER_TRY(mover_run(exec, 0, m, mover_grain(d), combine_body, &task));
    }
    return MOVER_OK;
}

void R(mover_cpu_cost_backward_layout)(const mover_cost_desc *desc, mover_arena *arena) {
    mover_take(arena, desc->n + desc->m, 1, sizeof(real));
}

mover_status R(mover_cpu_cost_backward)(const mover_cost_desc *desc, const real *x, const real *y,
                                        const real *grad_cost, real *grad_x, real *grad_y, void *workspace,
                                        const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    const int64_t n = desc->n, m = desc->m, d = desc->d;
    real *sums = mover_take(&arena, n + m, 1, sizeof(real));
    for (int64_t b = 0; b < desc->batch; b++)
        MOVER_TRY(R(mover_cost_gradient)(x + b * n * d, y + b * m * d, n, m, d, grad_cost + b * n * m,
                                         grad_cost + b * n * m, grad_x ? grad_x + b * n * d : NULL,
                                         grad_y ? grad_y + b * m * d : NULL, sums, exec));
    return MOVER_OK;
}
