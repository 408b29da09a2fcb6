/*
 * contrast.c: cross entropy of a square matrix of scores whose positives lie on the diagonal, both ways.
 *
 *     L = scale * scores,   R_i = log sum_j exp L_ij,   C_j = log sum_i exp L_ij
 *     loss = (mean R + mean C) / 2 - (1 - s) mean L_ii - s mean L_ij                  s = label_smoothing
 *     dloss/dL_ij = (exp(L_ij - R_i) + exp(L_ij - C_j)) / 2n - s / n^2 - [i = j] (1 - s) / n
 *
 * With `negatives` the sums leave the diagonal out. One read of the scores forward and one backward: a block of ROWS
 * rows is read for its rows and, while it is in the cache, for its columns, each block about the largest logits of its
 * own; the shares of the blocks are added in their order.
 */
#include "real.h"

#include "../src/backend.h"

#include "exponential.h"

enum { ROWS = 32 };

typedef struct contrast_call {
    int64_t batch, n, blocks; /* blocks of rows of one problem */
    int negatives;
    double smoothing;
    const real *scores, *row_sums, *column_sums; /* (batch, n, n), (batch, n) twice: R and C */
    const real *grad_loss;
    real scale;
    real *rows, *columns, *loss, *grad_scores;
    real *most, *sum; /* (batch, blocks, n): of a block's columns the largest logit, the sum of exp(L - most) */
    double *share;    /* (batch, n, 2): sums over a row of L and of what the positive adds; backward: of dL scores */
} contrast_call;

/* The columns of row i that its sums run over: one or two ranges. */
typedef struct ranges {
    int count;
    int64_t begin[2], end[2];
} ranges;

MOVER_INLINE ranges ranges_of(const contrast_call *call, int64_t i) {
    const ranges all = {1, {0, 0}, {call->n, 0}}, without = {2, {0, i + 1}, {i, call->n}};
    return call->negatives ? without : all;
}

/* ---- forward ------------------------------------------------------------------------------------------------------
 */

MOVER_INLINE real row_most(const real *row, int64_t begin, int64_t end, real scale) {
    real most = -REAL_MAX;
    MOVER_PRAGMA(omp simd reduction(max : most))
    for (int64_t j = begin; j < end; j++) {
        const real logit = scale * row[j];
        most = logit > most ? logit : most;
    }
    return most;
}

MOVER_INLINE real row_exponentials(const real *row, int64_t begin, int64_t end, real scale, real most) {
    real sum = 0;
    MOVER_SIMD_SUM(sum)
    for (int64_t j = begin; j < end; j++) sum += exponential(scale * row[j] - most) + 0 * row[j];
    return sum;
}

MOVER_INLINE void column_most(const real *restrict row, int64_t begin, int64_t end, real scale, real *restrict most) {
    MOVER_SIMD
    for (int64_t j = begin; j < end; j++) {
        const real logit = scale * row[j];
        most[j] = logit > most[j] ? logit : most[j];
    }
}

MOVER_INLINE void column_exponentials(const real *restrict row, int64_t begin, int64_t end, real scale,
                                      const real *restrict most, real *restrict sum) {
    MOVER_SIMD
    for (int64_t j = begin; j < end; j++) sum[j] += exponential(scale * row[j] - most[j]) + 0 * row[j];
}

MOVER_INLINE double row_total(const real *row, int64_t n) {
    real sum = 0;
    MOVER_SIMD_SUM(sum)
    for (int64_t j = 0; j < n; j++) sum += row[j];
    return (double)sum;
}

MOVER_HOT static void forward_block(const contrast_call *call, int64_t b, int64_t block) {
    const int64_t n = call->n, first = block * ROWS, last = mover_min(n, first + ROWS);
    const real *scores = call->scores + b * n * n, scale = call->scale;
    real *most = call->most + (b * call->blocks + block) * n, *sum = call->sum + (b * call->blocks + block) * n;
    for (int64_t j = 0; j < n; j++) {
        most[j] = -REAL_MAX;
        sum[j] = 0;
    }
    for (int64_t i = first; i < last; i++) {
        const real *row = scores + i * n;
        const ranges in = ranges_of(call, i);
        real largest = -REAL_MAX, total = 0;
        for (int q = 0; q < in.count; q++) {
            const real here = row_most(row, in.begin[q], in.end[q], scale);
            largest = here > largest ? here : largest;
            column_most(row, in.begin[q], in.end[q], scale, most);
        }
        for (int q = 0; q < in.count; q++) total += row_exponentials(row, in.begin[q], in.end[q], scale, largest);
        double *share = call->share + 2 * (b * n + i);
        call->rows[b * n + i] = largest + real_log(total);
        share[0] = (double)scale * row_total(row, n);
        share[1] = (double)scale * (double)row[i];
    }
    for (int64_t i = first; i < last; i++) {
        const ranges in = ranges_of(call, i);
        for (int q = 0; q < in.count; q++)
            column_exponentials(scores + i * n, in.begin[q], in.end[q], scale, most, sum);
    }
}

/* C_j of columns [begin, end) of all problems. */
static void forward_columns(int64_t begin, int64_t end, void *ctx) {
    const contrast_call *call = ctx;
    for (int64_t column = begin; column < end; column++) {
        const int64_t b = column / call->n, j = column % call->n;
        const real *most = call->most + b * call->blocks * call->n + j, *sum = call->sum + (most - call->most);
        real largest = -REAL_MAX;
        double total = 0;
        for (int64_t block = 0; block < call->blocks; block++)
            largest = most[block * call->n] > largest ? most[block * call->n] : largest;
        for (int64_t block = 0; block < call->blocks; block++)
            total += (double)(sum[block * call->n] * exponential(most[block * call->n] - largest));
        call->columns[column] = largest + real_log((real)total);
    }
}

static void forward_losses(const contrast_call *call) {
    const double n = (double)call->n, s = call->smoothing;
    for (int64_t b = 0; b < call->batch; b++) {
        double sums = 0, total = 0, positives = 0;
        for (int64_t q = b * call->n; q < (b + 1) * call->n; q++) {
            sums += (double)call->rows[q] + (double)call->columns[q];
            total += call->share[2 * q];
            positives += call->share[2 * q + 1];
        }
        call->loss[b] = (real)(sums / (2 * n) - (1 - s) * positives / n - s * total / (n * n));
    }
}

static void forward_blocks(int64_t begin, int64_t end, void *ctx) {
    const contrast_call *call = ctx;
    for (int64_t task = begin; task < end; task++) forward_block(call, task / call->blocks, task % call->blocks);
}

/* ---- backward -----------------------------------------------------------------------------------------------------
 */

/* grad = scale * weight * dL but for the terms of the diagonal; returns the sum of weight * dL * scores. */
MOVER_INLINE real row_gradient(const real *restrict row, int64_t begin, int64_t end, real scale, real of_row,
                               const real *restrict of_column, real weight, real smooth, real *restrict grad) {
    real sum = 0;
    MOVER_SIMD_SUM(sum)
    for (int64_t j = begin; j < end; j++) {
        const real logit = scale * row[j], by_row = logit - of_row, by_column = logit - of_column[j];
        const real value = weight * (exponential(by_row) + exponential(by_column)) - smooth + 0 * (by_row + by_column);
        grad[j] = scale * value;
        sum += value * row[j];
    }
    return sum;
}

MOVER_HOT static void backward_block(const contrast_call *call, int64_t b, int64_t block) {
    const int64_t n = call->n, first = block * ROWS, last = mover_min(n, first + ROWS);
    const double count = (double)n, upstream = (double)call->grad_loss[b], s = call->smoothing;
    const real weight = (real)(upstream / (2 * count)), smooth = (real)(upstream * s / (count * count));
    const real positive = (real)(upstream * (1 - s) / count), scale = call->scale;
    for (int64_t i = first; i < last; i++) {
        const real *row = call->scores + (b * n + i) * n;
        real *grad = call->grad_scores + (b * n + i) * n, sum = 0;
        const ranges in = ranges_of(call, i);
        if (call->negatives) {
            grad[i] = -scale * smooth;
            sum = -smooth * row[i];
        }
        for (int q = 0; q < in.count; q++)
            sum += row_gradient(row, in.begin[q], in.end[q], scale, call->row_sums[b * n + i],
                                call->column_sums + b * n, weight, smooth, grad);
        grad[i] -= scale * positive;
        call->share[b * n + i] = (double)sum - (double)positive * (double)row[i];
    }
}

static void backward_blocks(int64_t begin, int64_t end, void *ctx) {
    const contrast_call *call = ctx;
    for (int64_t task = begin; task < end; task++) backward_block(call, task / call->blocks, task % call->blocks);
}

/* ---------------------------------------------------------------------------------------------------------------------
 */

static contrast_call describe(const mover_contrast_desc *desc, const real *scores, const real *scale) {
    contrast_call call = {.batch = desc->batch, .n = desc->n, .scores = scores, .scale = scale ? *scale : 1};
    call.blocks = mover_ceil_div(desc->n, ROWS);
    call.negatives = desc->denominator == MOVER_DENOMINATOR_NEGATIVES;
    call.smoothing = desc->label_smoothing;
    return call;
}

static void take(contrast_call *call, mover_arena *arena) {
    call->most = mover_take(arena, call->batch * call->blocks, call->n, sizeof(real));
    call->sum = mover_take(arena, call->batch * call->blocks, call->n, sizeof(real));
    call->share = mover_take(arena, call->batch * call->n, 2, sizeof(double));
}

void R(mover_cpu_contrast_layout)(const mover_contrast_desc *desc, mover_arena *arena) {
    contrast_call call = describe(desc, NULL, NULL);
    take(&call, arena);
}

void R(mover_cpu_contrast_backward_layout)(const mover_contrast_desc *desc, mover_arena *arena) {
    (void)mover_take(arena, desc->batch * desc->n, 1, sizeof(double));
}

mover_status R(mover_cpu_contrast_forward)(const mover_contrast_desc *desc, const real *scores, const real *scale,
                                           real *loss, real *rows, real *columns, void *workspace,
                                           const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    contrast_call call = describe(desc, scores, scale);
    take(&call, &arena);
    call.loss = loss;
    call.rows = rows;
    call.columns = columns;
    MOVER_TRY(mover_run(exec, 0, call.batch * call.blocks, mover_grain(8 * ROWS * call.n), forward_blocks, &call));
    MOVER_TRY(mover_run(exec, 0, call.batch * call.n, mover_grain(16 * call.blocks), forward_columns, &call));
    forward_losses(&call);
    return MOVER_OK;
}

mover_status R(mover_cpu_contrast_backward)(const mover_contrast_desc *desc, const real *scores, const real *scale,
                                            const real *rows, const real *columns, const real *grad_loss,
                                            real *grad_scores, real *grad_scale, void *workspace,
                                            const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    contrast_call call = describe(desc, scores, scale);
    call.share = mover_take(&arena, call.batch * call.n, 1, sizeof(double));
    call.row_sums = rows;
    call.column_sums = columns;
    call.grad_loss = grad_loss;
    call.grad_scores = grad_scores;
    MOVER_TRY(mover_run(exec, 0, call.batch * call.blocks, mover_grain(8 * ROWS * call.n), backward_blocks, &call));
    if (!grad_scale) return MOVER_OK;
    double sum = 0;
    for (int64_t q = 0; q < call.batch * call.n; q++) sum += call.share[q];
    *grad_scale = (real)sum;
    return MOVER_OK;
}
