/*
 * scaling.c: one iteration of entropic transport.
 *
 *     plan_ij = K_ij U_i V_j,   K_ij = exp(u_i + v_j - C_ij / epsilon)
 *
 * u and v are in log domain; the kernel K is written where the plan will stand, and an iteration is two multiply-adds
 * an element: U_i = a_i / sum_j K_ij V_j, c_j = sum_i K_ij U_i, V_j = b_j / c_j.
 *
 * The first iteration, and any one that begins with a V_j beyond e^{+-20}, "refreshes" K: U and V are taken into u and
 * v and the exponentials are made again. So nothing overflows at any epsilon, and the exponentials that were cut off
 * (exponential.h) stay below the rounding of the sums they belong to.
 *
 * u starts at the row's largest exponent. Only the first column sums can vanish (a column far from every row, for small
 * epsilon): those columns are summed again about their own largest exponent.
 *
 * Work is divided into blocks of rows; their column sums are added in order, so results do not depend on the threads.
 */
#include "../src/backend.h"
#include "cost.h"
#include "real.h"

#include "exponential.h"
#include "sinkhorn.h"

enum { TOGETHER = 4 /* rows in one sweep over the columns */ };

static const real UNDERFLOW = (real)1e-30; /* column sums below are taken again */
static const real STRETCH = (real)5e8;     /* e^20 */
static const real FARTHEST = 2;            /* bound on the factor that is relaxed */

/* U or V beyond its update `plain`, given its value before: plain (plain / before)^over to first order. */
MOVER_INLINE real beyond(real plain, real before, real over) {
    real ratio = plain / before;
    ratio = ratio < FARTHEST ? ratio : FARTHEST;
    ratio = ratio > 1 / FARTHEST ? ratio : 1 / FARTHEST;
    return plain * (1 + over * (ratio - 1));
}

/* ---- an iteration that refreshes the kernel ---------------------------------------------------------------------- */

/* The largest exponent of a row; adds the costs that are out of bounds to *bad. */
MOVER_INLINE real largest_exponent(const real *restrict cost, const real *restrict v, real inverse, real bound,
                                   int64_t m, int32_t *bad) {
    real largest = -REAL_MAX;
    int32_t count = 0;
    MOVER_PRAGMA(omp simd reduction(max : largest) reduction(+ : count))
    for (int64_t j = 0; j < m; j++) {
        const real exponent = v[j] - cost[j] * inverse;
        largest = exponent > largest ? exponent : largest;
        count += !(real_fabs(cost[j]) <= bound);
    }
    *bad += count;
    return largest;
}

/* The exponentials of one row; returns their sum. */
MOVER_INLINE real exponentials(const real *restrict cost, const real *restrict v, real u, real inverse, int64_t m,
                               real *restrict e) {
    real sum = 0;
    MOVER_SIMD_SUM(sum)
    for (int64_t j = 0; j < m; j++) {
        e[j] = exponential((v[j] + u) - cost[j] * inverse);
        sum += e[j];
    }
    return sum;
}

/* One row of the kernel times the column scales; returns its sum. */
MOVER_INLINE real rescaled(real *restrict kernel, const real *restrict v, int64_t m) {
    real sum = 0;
    MOVER_SIMD_SUM(sum)
    for (int64_t j = 0; j < m; j++) {
        kernel[j] *= v[j];
        sum += kernel[j];
    }
    return sum;
}

/* Row i of the kernel, scaled to its mass and added to the sums. */
MOVER_INLINE void refresh_row(const sinkhorn_problem *q, int64_t i, real *restrict sums, real *restrict diagonal,
                              int32_t *bad) {
    const int64_t m = q->m;
    const real mass = q->row_mass[i], inverse = (real)(1 / q->epsilon), *cost = q->cost + i * m;
    real *restrict kernel = q->plan + i * m;
    if (!q->started) {
        const real bound = SINKHORN_LARGEST * (real)fmin(1, q->epsilon);
        const real largest = largest_exponent(cost, q->v, inverse, bound, m, bad);
        q->u[i] = mass > 0 ? -largest : SINKHORN_NO_MASS;
    }
    if (mass == 0) {
        for (int64_t j = 0; j < m; j++) kernel[j] = 0;
        return;
    }
    const real sum =
        q->by_scales ? rescaled(kernel, q->column_scale, m) : exponentials(cost, q->v, q->u[i], inverse, m, kernel);
    const real factor = mass / sum, share = 1 / mass;
    q->u[i] += real_log(factor);
    if (diagonal) {
        MOVER_SIMD
        for (int64_t j = 0; j < m; j++) {
            kernel[j] *= factor;
            sums[j] += kernel[j];
            diagonal[j] += kernel[j] * ((mass - kernel[j]) * share);
        }
    } else {
        MOVER_SIMD
        for (int64_t j = 0; j < m; j++) {
            kernel[j] *= factor;
            sums[j] += kernel[j];
        }
    }
}

MOVER_HOT static void refresh_blocks(const sinkhorn_problem *q, int64_t begin, int64_t end) {
    const int64_t m = q->m;
    for (int64_t block = begin; block < end; block++) {
        real *sums = q->system.partial + block * m, *diagonal = q->want_diagonal ? q->diagonal + block * m : NULL;
        int32_t bad = 0;
        for (int64_t j = 0; j < m; j++) sums[j] = 0;
        for (int64_t j = 0; diagonal && j < m; j++) diagonal[j] = 0;
        for (int64_t i = block * SINKHORN_BLOCK; i < mover_min(q->n, (block + 1) * SINKHORN_BLOCK); i++)
            refresh_row(q, i, sums, diagonal, &bad);
        q->part[block] = bad;
    }
}

static void refresh_body(int64_t begin, int64_t end, void *ctx) { refresh_blocks(ctx, begin, end); }

void R(sinkhorn_absorb)(sinkhorn_problem *q) {
    for (int64_t i = 0; i < q->n; i++) {
        if (q->row_mass[i] > 0) q->u[i] += real_log(q->row_scale[i]);
        q->row_scale[i] = 1;
    }
    for (int64_t j = 0; j < q->m; j++) {
        if (q->column_mass[j] > 0) q->v[j] += real_log(q->column_scale[j]);
        q->column_scale[j] = 1;
    }
}

mover_status R(sinkhorn_refresh)(sinkhorn_problem *q, int by_scales, const mover_exec *exec) {
    const int64_t blocks = q->system.blocks, m = q->m;
    if (!by_scales && q->started) R(sinkhorn_absorb)(q);
    q->by_scales = by_scales;
    MOVER_TRY(mover_run(exec, 0, blocks, mover_grain(SINKHORN_BLOCK * m * 4), refresh_body, q));
    if (by_scales) { /* the new factor of a row stands in for its scale */
        for (int64_t i = 0; i < q->n; i++) q->row_scale[i] = 1;
        R(sinkhorn_absorb)(q);
    }
    for (int64_t block = 0; block < blocks; block++)
        if (q->part[block] > 0) q->finite = 0;
    q->started = 1;
    if (q->want_diagonal) MOVER_TRY(R(mover_cost_column_sums)(q->diagonal, blocks, m, m, q->system.diagonal, exec));
    return R(mover_cost_column_sums)(q->system.partial, blocks, m, m, q->system.column_sum, exec);
}

/* ---- an iteration of multiply-adds --------------------------------------------------------------------------------
 */

/* U of a row from its sum of K V; *error takes the error that is left in the row. A row without mass has U = 0. */
MOVER_INLINE real row_factor(const sinkhorn_problem *q, int64_t i, real sum, double *error) {
    const real mass = q->row_mass[i];
    if (mass == 0) return 0;
    const real plain = mass / sum;
    if (q->over == 0) return plain;
    const real scale = beyond(plain, q->row_scale[i], q->over);
    *error += (double)real_fabs(scale * sum - mass);
    return scale;
}

/* U of rows i to i + 3, and their part of the column sums; returns the error left in the rows. */
MOVER_INLINE double scale_four(const sinkhorn_problem *q, int64_t i, real *restrict sums) {
    const int64_t m = q->m;
    const real *restrict k0 = q->plan + i * m, *restrict k1 = k0 + m, *restrict k2 = k1 + m, *restrict k3 = k2 + m;
    const real *restrict v = q->column_scale;
    real r0 = 0, r1 = 0, r2 = 0, r3 = 0;
    double error = 0;
    MOVER_SIMD_SUM(r0, r1, r2, r3)
    for (int64_t j = 0; j < m; j++) {
        r0 += k0[j] * v[j];
        r1 += k1[j] * v[j];
        r2 += k2[j] * v[j];
        r3 += k3[j] * v[j];
    }
    const real u0 = row_factor(q, i, r0, &error), u1 = row_factor(q, i + 1, r1, &error);
    const real u2 = row_factor(q, i + 2, r2, &error), u3 = row_factor(q, i + 3, r3, &error);
    MOVER_SIMD
    for (int64_t j = 0; j < m; j++) sums[j] += (k0[j] * u0 + k1[j] * u1) + (k2[j] * u2 + k3[j] * u3);
    q->row_scale[i] = u0;
    q->row_scale[i + 1] = u1;
    q->row_scale[i + 2] = u2;
    q->row_scale[i + 3] = u3;
    return error;
}

MOVER_INLINE double scale_one(const sinkhorn_problem *q, int64_t i, real *restrict sums) {
    const int64_t m = q->m;
    const real *restrict k = q->plan + i * m, *restrict v = q->column_scale;
    real r = 0;
    double error = 0;
    MOVER_SIMD_SUM(r)
    for (int64_t j = 0; j < m; j++) r += k[j] * v[j];
    const real u = row_factor(q, i, r, &error);
    MOVER_SIMD
    for (int64_t j = 0; j < m; j++) sums[j] += k[j] * u;
    q->row_scale[i] = u;
    return error;
}

MOVER_HOT static void scale_blocks(const sinkhorn_problem *q, int64_t begin, int64_t end) {
    const int64_t m = q->m;
    for (int64_t block = begin; block < end; block++) {
        real *sums = q->system.partial + block * m;
        double error = 0;
        for (int64_t j = 0; j < m; j++) sums[j] = 0;
        int64_t i = block * SINKHORN_BLOCK;
        const int64_t last = mover_min(q->n, i + SINKHORN_BLOCK);
        for (; i + TOGETHER <= last; i += TOGETHER) error += scale_four(q, i, sums);
        for (; i < last; i++) error += scale_one(q, i, sums);
        q->part[block] = error;
    }
}

static void scale_body(int64_t begin, int64_t end, void *ctx) { scale_blocks(ctx, begin, end); }

mover_status R(sinkhorn_scale_rows)(sinkhorn_problem *q, double *error, const mover_exec *exec) {
    const int64_t blocks = q->system.blocks, m = q->m;
    MOVER_TRY(mover_run(exec, 0, blocks, mover_grain(SINKHORN_BLOCK * m), scale_body, q));
    *error = 0;
    for (int64_t block = 0; block < blocks; block++) *error += q->part[block];
    return R(mover_cost_column_sums)(q->system.partial, blocks, m, m, q->system.column_sum, exec);
}

/* ---- columns ------------------------------------------------------------------------------------------------------
 */

/* log sum_i exp(u_i - C_ij / epsilon) of column j, about its largest exponent, with the row scales in u. */
static real column_log_sum(const sinkhorn_problem *q, int64_t j) {
    const real *cost = q->cost + j, inverse = (real)(1 / q->epsilon);
    real largest = SINKHORN_NO_MASS, sum = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < q->n; i++) {
            if (q->row_mass[i] == 0) continue;
            const real exponent = (q->u[i] + real_log(q->row_scale[i])) - cost[i * q->m] * inverse;
            if (pass)
                sum += exponential(exponent - largest);
            else
                largest = exponent > largest ? exponent : largest;
        }
    return largest + real_log(sum);
}

double R(sinkhorn_column_error)(const sinkhorn_problem *q) {
    double error = 0;
    for (int64_t j = 0; j < q->m; j++)
        error += (double)real_fabs(q->column_scale[j] * q->system.column_sum[j] - q->column_mass[j]);
    return error;
}

int R(sinkhorn_scale_columns)(sinkhorn_problem *q) {
    int stretched = 0;
    for (int64_t j = 0; j < q->m; j++) {
        const real mass = q->column_mass[j], sum = q->system.column_sum[j];
        if (mass == 0) continue;
        if (sum < UNDERFLOW) {
            q->v[j] = real_log(mass) - column_log_sum(q, j);
            q->column_scale[j] = 1;
            stretched = 1;
            continue;
        }
        const real scale = beyond(mass / sum, q->column_scale[j], q->over);
        q->column_scale[j] = scale;
        stretched |= !(scale < STRETCH && scale > 1 / STRETCH);
    }
    return stretched;
}
