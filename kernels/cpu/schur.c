/*
 * schur.c: conjugate gradients on the optimality conditions of transport, once the rows are eliminated.
 *
 *     (diag c - P^T diag(1/r) P) x = residual,   r = P 1, c = P^T 1
 *
 * Near a permutation the operator vanishes, so it is applied without subtracting large numbers:
 *
 *     sum_i P_ij (x_j - w_i),   w_i = sum_j P_ij x_j / r_i,
 *
 * one read of P a step. Jacobi preconditioner; the constant, which is its null vector, is taken out of the residual.
 */
#include "../src/backend.h"
#include "cost.h"
#include "real.h"

#include "sinkhorn.h"

enum { TOGETHER = 4 /* rows in one sweep over the columns */ };

void R(schur_take)(schur_system *s, mover_arena *arena) {
    s->blocks = mover_ceil_div(s->n, SINKHORN_BLOCK);
    s->column_sum = mover_take(arena, s->m, 1, sizeof(real));
    s->diagonal = mover_take(arena, s->m, 1, sizeof(real));
    s->residual = mover_take(arena, s->m, 1, sizeof(real));
    s->solution = mover_take(arena, s->m, 1, sizeof(real));
    s->direction = mover_take(arena, s->m, 1, sizeof(real));
    s->product = mover_take(arena, s->m, 1, sizeof(real));
    s->partial = mover_take(arena, s->blocks, s->m, sizeof(real));
}

/* ---- the operator ----------------------------------------------------------------------------------------------- */

MOVER_INLINE void apply_four(int64_t m, const real *restrict p, const real *restrict row_sum, const real *restrict x,
                             real *restrict out) {
    const real *restrict p0 = p, *restrict p1 = p + m, *restrict p2 = p + 2 * m, *restrict p3 = p + 3 * m;
    real w0 = 0, w1 = 0, w2 = 0, w3 = 0;
    MOVER_SIMD_SUM(w0, w1, w2, w3)
    for (int64_t j = 0; j < m; j++) {
        w0 += p0[j] * x[j];
        w1 += p1[j] * x[j];
        w2 += p2[j] * x[j];
        w3 += p3[j] * x[j];
    }
    w0 = row_sum[0] == 0 ? 0 : w0 / row_sum[0];
    w1 = row_sum[1] == 0 ? 0 : w1 / row_sum[1];
    w2 = row_sum[2] == 0 ? 0 : w2 / row_sum[2];
    w3 = row_sum[3] == 0 ? 0 : w3 / row_sum[3];
    MOVER_SIMD
    for (int64_t j = 0; j < m; j++)
        out[j] += (p0[j] * (x[j] - w0) + p1[j] * (x[j] - w1)) + (p2[j] * (x[j] - w2) + p3[j] * (x[j] - w3));
}

MOVER_INLINE void apply_one(int64_t m, const real *restrict p, real row_sum, const real *restrict x,
                            real *restrict out) {
    real w = 0;
    MOVER_SIMD_SUM(w)
    for (int64_t j = 0; j < m; j++) w += p[j] * x[j];
    w = row_sum == 0 ? 0 : w / row_sum;
    MOVER_SIMD
    for (int64_t j = 0; j < m; j++) out[j] += p[j] * (x[j] - w);
}

/* partial = the product of a block of rows with the direction. */
MOVER_HOT static void apply_blocks(const schur_system *s, int64_t begin, int64_t end) {
    const int64_t m = s->m;
    for (int64_t block = begin; block < end; block++) {
        real *partial = s->partial + block * m;
        for (int64_t j = 0; j < m; j++) partial[j] = 0;
        int64_t i = block * SINKHORN_BLOCK;
        const int64_t last = mover_min(s->n, i + SINKHORN_BLOCK);
        for (; i + TOGETHER <= last; i += TOGETHER)
            apply_four(m, s->plan + i * m, s->row_sum + i, s->direction, partial);
        for (; i < last; i++) apply_one(m, s->plan + i * m, s->row_sum[i], s->direction, partial);
    }
}

static void apply_body(int64_t begin, int64_t end, void *ctx) { apply_blocks(ctx, begin, end); }

/* ---- conjugate gradients ---------------------------------------------------------------------------------------- */

MOVER_HOT static double dot(const real *x, const real *y, int64_t count) {
    double sum = 0;
    MOVER_SIMD_SUM(sum)
    for (int64_t j = 0; j < count; j++) sum += (double)x[j] * (double)y[j];
    return sum;
}

MOVER_HOT static void add_multiple(real factor, const real *restrict x, real *restrict to, int64_t count) {
    MOVER_SIMD
    for (int64_t j = 0; j < count; j++) to[j] += factor * x[j];
}

/* to = x + factor to */
MOVER_HOT static void scale_and_add(real factor, const real *restrict x, real *restrict to, int64_t count) {
    MOVER_SIMD
    for (int64_t j = 0; j < count; j++) to[j] = x[j] + factor * to[j];
}

/* Takes the mean over the columns with mass out of the residual. */
static void project(const schur_system *s) {
    double sum = 0;
    int64_t count = 0;
    for (int64_t j = 0; j < s->m; j++)
        if (s->column_sum[j] != 0) {
            sum += (double)s->residual[j];
            count++;
        }
    const real mean = count ? (real)(sum / (double)count) : 0;
    for (int64_t j = 0; j < s->m; j++) s->residual[j] = s->column_sum[j] != 0 ? s->residual[j] - mean : 0;
}

/* out = residual over the diagonal; returns <residual, out>. */
static double precondition(const schur_system *s, real *out) {
    for (int64_t j = 0; j < s->m; j++) {
        const real column = s->column_sum[j], least = REAL_EPSILON * column;
        out[j] = column == 0 ? 0 : s->residual[j] / (s->diagonal[j] > least ? s->diagonal[j] : least);
    }
    return dot(s->residual, out, s->m);
}

mover_status R(schur_solve)(schur_system *s, double tolerance, int steps, const mover_exec *exec) {
    const int64_t m = s->m;
    project(s);
    for (int64_t j = 0; j < m; j++) s->solution[j] = 0;
    double rho = precondition(s, s->direction);
    for (int step = 0; step < steps && sqrt(dot(s->residual, s->residual, m)) > tolerance && rho > 0; step++) {
        MOVER_TRY(mover_run(exec, 0, s->blocks, mover_grain(SINKHORN_BLOCK * m), apply_body, s));
        MOVER_TRY(R(mover_cost_column_sums)(s->partial, s->blocks, m, m, s->product, exec));
        const double curvature = dot(s->direction, s->product, m);
        if (!(curvature > 0)) break;
        const real length = (real)(rho / curvature);
        add_multiple(length, s->direction, s->solution, m);
        add_multiple(-length, s->product, s->residual, m);
        project(s);
        const double before = rho;
        rho = precondition(s, s->product);
        scale_and_add((real)(rho / before), s->product, s->direction, m);
    }
    return MOVER_OK;
}
