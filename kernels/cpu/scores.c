/*
 * scores.c: the volume of every anchor with every group of others, or its distance from their span.
 *
 *     forward    strips of anchors, see score_strip.c
 *     backward   D_r[i,j] = grad_scores dscore/dalpha_r, then, with g_rs[j] = sum_i grad_scores dscore/dgamma_rs,
 *                grad_anchor_i  = (sum_jr D_r[i,j]) x_i - D y
 *                grad_others_jr = (sum_i D_r[i,j]) y_jr - D^T x + sum_s g_rs (y_jr - y_js)
 *
 * D (n, m, members) is scratch; it is made in blocks of ROWS anchors by COLUMNS groups, each of which leaves its sums
 * over rows and columns, which are added in the order of the blocks. D y and D^T x are one matrix product each.
 */
#include "real.h"

#include "score_strip.h"

#include <string.h>

enum { ROWS = 128, COLUMNS = 256, PANEL = 2048 /* columns of D */ };

typedef struct backward_call {
    score_call groups;
    const real *alphas, *grad_scores; /* (n, m, members), (n, m) */
    int64_t row_blocks, column_blocks;
    int64_t panel;       /* groups of a panel */
    int64_t first, last; /* groups of the panel at work */
    real *derivative;    /* (n, last - first, members) */
    real *volume_slope;  /* (pairs, m): dVol/dgamma of the others alone, three and more members */
    real *row_sum;       /* (column_blocks, n): shares of sum_jr D_r[i,j] */
    real *column_sum;    /* (row_blocks, m, members): shares of sum_i D_r[i,j] */
    real *gamma_sum;     /* (row_blocks, pairs, m): shares of g_rs[j] */
    real *of_anchor;     /* (n, d): D y of a panel, where there are several; else NULL */
    real *of_others;     /* (m, members, d): D^T x; grad_others itself where there is no mask */
    real *grad_anchor, *grad_others;
} backward_call;

/* ---- forward ------------------------------------------------------------------------------------------------------
 */

/* Alphas of a strip, for a caller that does not want them; with one member they stand in the scores. */
static real *take_strip(const score_call *call, mover_arena *arena) {
    if (call->members == 1) return NULL;
    return mover_take(arena, mover_min(call->strip, call->n), call->columns, sizeof(real));
}

void R(mover_cpu_volume_scores_layout)(const mover_volume_scores_desc *desc, mover_arena *arena) {
    const score_call call = R(mover_score_take)(desc, arena);
    (void)take_strip(&call, arena);
}

mover_status R(mover_cpu_volume_scores_forward)(const mover_volume_scores_desc *desc, const real *anchor,
                                                const real *others, const uint8_t *mask, real *scores, real *alphas,
                                                void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    score_call call = R(mover_score_take)(desc, &arena);
    real *strip = take_strip(&call, &arena);
    MOVER_TRY(R(mover_score_groups)(&call, anchor, others, mask, exec));
    MOVER_TRY(R(mover_score_norms)(&call, exec));
    for (int64_t first = 0; first < call.n; first += call.strip) {
        real *rows = scores + first * call.m;
        real *into = alphas ? alphas + first * call.columns : call.members == 1 ? rows : strip;
        MOVER_TRY(R(mover_score_strip)(&call, first, into, rows, exec));
    }
    return MOVER_OK;
}

/* ---- backward: D and its sums, for columns [0, width) of a block ---------------------------------------------------
 *
 * alpha, grad and derivative point to a row of the block; column_sum and gamma_sum to its sums. Each returns the sum of
 * what it wrote to derivative. */

MOVER_INLINE real pair_derivatives(int64_t width, const real *restrict alpha, const real *restrict grad,
                                   real *restrict derivative, real *restrict column_sum) {
    real sum = 0;
    MOVER_SIMD_SUM(sum)
    for (int64_t j = 0; j < width; j++) {
        const real square = pair_square(alpha[j]);
        const real value = grad[j] * inverse_volume(square, real_sqrt(square)) * (1 - alpha[j]);
        derivative[j] = value;
        column_sum[j] += value;
        sum += value;
    }
    return sum;
}

MOVER_INLINE real triple_derivatives(int64_t width, const real *restrict alphas, const real *restrict gamma,
                                     const real *restrict grad, real *restrict derivative, real *restrict column_sum,
                                     real *restrict gamma_sum) {
    real sum = 0;
    MOVER_SIMD_SUM(sum)
    for (int64_t j = 0; j < width; j++) {
        const real alpha = alphas[2 * j], beta = alphas[2 * j + 1];
        real t;
        const real square = triple_square(alpha, beta, gamma[j], &t);
        const real weight = grad[j] * inverse_volume(square, real_sqrt(square));
        const real first = weight * ((1 - alpha) * (beta * (2 - beta)) - t * (1 - beta));
        const real second = weight * ((1 - beta) * (alpha * (2 - alpha)) - t * (1 - alpha));
        derivative[2 * j] = first;
        derivative[2 * j + 1] = second;
        column_sum[2 * j] += first;
        column_sum[2 * j + 1] += second;
        gamma_sum[j] += weight * t;
        sum += first + second;
    }
    return sum;
}

MOVER_INLINE real span_derivatives(int64_t width, const real *restrict alphas, const real *restrict gamma,
                                   const real *restrict inverse, const real *restrict grad, real *restrict derivative,
                                   real *restrict column_sum, real *restrict gamma_sum) {
    real sum = 0;
    MOVER_SIMD_SUM(sum)
    for (int64_t j = 0; j < width; j++) {
        const real alpha = alphas[2 * j], beta = alphas[2 * j + 1];
        real c;
        const real square = span_square(alpha, beta, gamma[j], inverse[j], &c);
        const real weight = grad[j] * inverse_volume(square, real_sqrt(square));
        const real vertex = (1 - alpha) - c * (1 - gamma[j]);
        const real first = weight * vertex, second = weight * c;
        derivative[2 * j] = first;
        derivative[2 * j + 1] = second;
        column_sum[2 * j] += first;
        column_sum[2 * j + 1] += second;
        gamma_sum[j] -= first * c;
        sum += first + second;
    }
    return sum;
}

/* Groups [j, j + count) of a row whose arrays start at column 0 of the block, which is group j0 of all. */
MOVER_INLINE real lane_derivatives(const backward_call *call, int64_t j0, int64_t j, int64_t count, const real *alphas,
                                   const real *grad, real *derivative, real *column_sum, real (*gamma_sum)[COLUMNS],
                                   real *slope_sum) {
    const lane_others *others = call->groups.factors + (j0 + j) / LANES;
    const int members = (int)call->groups.members, rows = members - 1;
    const int volume = call->groups.score == MOVER_SCORE_VOLUME;
    lane_rows alpha, u, c;
    lane_row square, weight, distance;
    real sum = 0;
    for (int r = 0; r < members; r++) load_alpha(alphas + j * members, members, r, count, alpha[r]);
    load_alpha(grad + j, 1, 0, count, weight);
    lane_distance(rows, others, alpha, u, square);
    lane_coefficients(rows, others, alpha, u, c);
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) {
        distance[lane] = weight[lane] * real_sqrt(square[lane]);
        weight[lane] *= inverse_volume(square[lane], real_sqrt(square[lane])) * (volume ? others->volume[lane] : 1);
    }
    if (volume)
        for (int64_t lane = 0; lane < count; lane++) slope_sum[j + lane] += distance[lane];
    for (int r = 0; r < members; r++) {
        lane_row value;
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) value[lane] = weight[lane] == 0 ? 0 : weight[lane] * c[r][lane];
        for (int64_t lane = 0; lane < count; lane++) {
            const int64_t at_r = (j + lane) * members + r;
            derivative[at_r] = value[lane];
            column_sum[at_r] += value[lane];
            sum += value[lane];
        }
        for (int s = 0; s < r; s++)
            for (int64_t lane = 0; lane < count; lane++)
                gamma_sum[pair_at(r, s)][j + lane] -= weight[lane] == 0 ? 0 : value[lane] * c[s][lane];
    }
    return sum;
}

/* Rows [i0, i1) of columns [j0, j1). */
MOVER_HOT static void backward_block(const backward_call *call, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
    const score_call *groups = &call->groups;
    const int64_t m = groups->m, members = groups->members, width = j1 - j0, block = i0 / ROWS;
    const int64_t pairs = members * (members - 1) / 2;
    real gamma_sum[MOST_PAIRS][COLUMNS], slope_sum[COLUMNS], scored[COLUMNS];
    real *column_sum = call->column_sum + (block * m + j0) * members;
    memset(column_sum, 0, (size_t)(width * members) * sizeof(real));
    memset(gamma_sum, 0, (size_t)pairs * sizeof gamma_sum[0]);
    memset(slope_sum, 0, sizeof slope_sum);
    for (int64_t i = i0; i < i1; i++) {
        const real *alphas = call->alphas + (i * m + j0) * members, *grad = call->grad_scores + i * m + j0;
        real *derivative = call->derivative + (i * (call->last - call->first) + j0 - call->first) * members, sum = 0;
        if (groups->present) { /* groups without members have a score of NaN and no gradient, whatever arrives */
            for (int64_t j = 0; j < width; j++) scored[j] = groups->present[j0 + j] ? grad[j] : 0;
            grad = scored;
        }
        if (members == 1)
            sum = pair_derivatives(width, alphas, grad, derivative, column_sum);
        else if (members == 2 && groups->score == MOVER_SCORE_VOLUME)
            sum = triple_derivatives(width, alphas, groups->gamma + j0, grad, derivative, column_sum, gamma_sum[0]);
        else if (members == 2)
            sum = span_derivatives(width, alphas, groups->gamma + j0, groups->inverse + j0, grad, derivative,
                                   column_sum, gamma_sum[0]);
        else
            for (int64_t j = 0; j < width; j += LANES)
                sum += lane_derivatives(call, j0, j, mover_min(LANES, width - j), alphas, grad, derivative, column_sum,
                                        gamma_sum, slope_sum);
        call->row_sum[j0 / COLUMNS * groups->n + i] = sum;
    }
    for (int64_t pair = 0; pair < pairs; pair++) {
        real *to = call->gamma_sum + (block * pairs + pair) * m + j0;
        const real *slope = members > 2 ? call->volume_slope + pair * m + j0 : NULL;
        for (int64_t j = 0; j < width; j++)
            to[j] = gamma_sum[pair][j] + (slope && slope[j] != 0 ? slope_sum[j] * slope[j] : 0);
    }
}

static void backward_blocks(int64_t begin, int64_t end, void *ctx) {
    const backward_call *call = ctx;
    const int64_t across = mover_ceil_div(call->last - call->first, COLUMNS);
    for (int64_t task = begin; task < end; task++) {
        const int64_t i = task / across * ROWS, j = call->first + task % across * COLUMNS;
        backward_block(call, i, mover_min(call->groups.n, i + ROWS), j, mover_min(call->last, j + COLUMNS));
    }
}

/* dVol(others)/dgamma of LANES groups, for the volume; 0 for the span. */
MOVER_HOT static void slope_block(const backward_call *call, int64_t block) {
    const score_call *groups = &call->groups;
    const int rows = (int)groups->members - 1;
    const int64_t j = block * LANES, count = mover_min(LANES, groups->m - j);
    lane_others others = groups->factors[block];
    lane_rows grad_first;
    lane_block grad_gamma;
    lane_row weight;
    for (int lane = 0; lane < LANES; lane++) weight[lane] = groups->score == MOVER_SCORE_VOLUME ? 1 : 0;
    lane_volume_gradient(rows, others.first, others.lower, others.volume, weight, grad_first, grad_gamma);
    for (int r = 0; r < rows; r++) {
        real *slope = call->volume_slope + pair_at(r + 1, 0) * groups->m + j;
        for (int64_t lane = 0; lane < count; lane++) slope[lane] = grad_first[r][lane];
        for (int s = 0; s < r; s++) {
            slope = call->volume_slope + pair_at(r + 1, s + 1) * groups->m + j;
            for (int64_t lane = 0; lane < count; lane++) slope[lane] = grad_gamma[at(r, s)][lane];
        }
    }
}

static void slope_blocks(int64_t begin, int64_t end, void *ctx) {
    for (int64_t block = begin; block < end; block++) slope_block(ctx, block);
}

/* ---- backward: from sums and products to gradients ----------------------------------------------------------------
 */

/* grad_anchor less D y of a panel; after the last panel plus the sums times x. */
MOVER_HOT static void anchor_gradient(const backward_call *call, int64_t begin, int64_t end) {
    const int64_t d = call->groups.d;
    const int only = !call->of_anchor, start = call->first == 0, done = call->last == call->groups.m;
    for (int64_t i = begin; i < end; i++) {
        const real *x = call->groups.anchor + i * d;
        real *grad = call->grad_anchor + i * d;
        const real *product = only ? grad : call->of_anchor + i * d;
        if (start) {
            MOVER_SIMD
            for (int64_t t = 0; t < d; t++) grad[t] = -product[t];
        } else {
            MOVER_SIMD
            for (int64_t t = 0; t < d; t++) grad[t] -= product[t];
        }
        if (!done) continue;
        double total = 0;
        for (int64_t block = 0; block < call->column_blocks; block++)
            total += (double)call->row_sum[block * call->groups.n + i];
        const real sum = (real)total;
        MOVER_SIMD
        for (int64_t t = 0; t < d; t++) grad[t] += sum * x[t];
    }
}

/* grad = sum_s weight[s] rows_s - product, which may be the same row as grad. */
MOVER_INLINE void combine_rows(int64_t count, const real *weight, const real *rows, int64_t d, const real *product,
                               real *grad) {
    MOVER_SIMD
    for (int64_t t = 0; t < d; t++) grad[t] = weight[0] * rows[t] - product[t];
    for (int64_t s = 1; s < count; s++) {
        const real share = weight[s], *row = rows + s * d;
        MOVER_SIMD
        for (int64_t t = 0; t < d; t++) grad[t] += share * row[t];
    }
}

MOVER_HOT static void others_gradient(const backward_call *call, int64_t begin, int64_t end) {
    const score_call *groups = &call->groups;
    const int64_t m = groups->m, d = groups->d, members = groups->members, pairs = members * (members - 1) / 2;
    for (int64_t j = begin; j < end; j++) {
        const int64_t present = groups->present ? groups->present[j] : members;
        real weight[MOST_OTHERS][MOST_OTHERS];
        for (int64_t r = 0; r < members; r++) {
            double sum = 0;
            for (int64_t block = 0; block < call->row_blocks; block++)
                sum += (double)call->column_sum[(block * m + j) * members + r];
            weight[r][r] = (real)sum;
        }
        for (int r = 1; r < members; r++)
            for (int s = 0; s < r; s++) {
                double sum = 0;
                for (int64_t block = 0; block < call->row_blocks; block++)
                    sum += (double)call->gamma_sum[(block * pairs + pair_at(r, s)) * m + j];
                weight[r][s] = weight[s][r] = -(real)sum;
                weight[r][r] += (real)sum;
                weight[s][s] += (real)sum;
            }
        const real *product = call->of_others + j * members * d, *rows = groups->others + j * members * d;
        for (int64_t r = 0; r < members; r++) {
            real *grad = call->grad_others + (j * members + (groups->place ? groups->place[j * members + r] : r)) * d;
            if (r < present)
                combine_rows(present, weight[r], rows, d, product + r * d, grad);
            else
                memset(grad, 0, (size_t)d * sizeof(real));
        }
    }
}

static void anchor_rows(int64_t begin, int64_t end, void *ctx) { anchor_gradient(ctx, begin, end); }
static void others_rows(int64_t begin, int64_t end, void *ctx) { others_gradient(ctx, begin, end); }

static backward_call take_backward(const mover_volume_scores_desc *desc, mover_arena *arena) {
    backward_call call = {.groups = R(mover_score_take)(desc, arena)};
    const int64_t n = desc->n, m = desc->m, members = desc->k - 1, pairs = members * (members - 1) / 2;
    call.panel = mover_min(m, mover_max(1, PANEL / members / COLUMNS) * COLUMNS);
    call.row_blocks = mover_ceil_div(n, ROWS);
    call.column_blocks = mover_ceil_div(m, COLUMNS);
    call.derivative = mover_take(arena, n, call.panel * members, sizeof(real));
    call.row_sum = mover_take(arena, call.column_blocks, n, sizeof(real));
    call.column_sum = mover_take(arena, call.row_blocks, m * members, sizeof(real));
    call.gamma_sum = mover_take(arena, call.row_blocks, pairs * m, sizeof(real));
    if (members > 2) call.volume_slope = mover_take(arena, pairs, m, sizeof(real));
    if (call.panel < m) call.of_anchor = mover_take(arena, n, desc->d, sizeof(real));
    if (desc->masked) call.of_others = mover_take(arena, m * members, desc->d, sizeof(real));
    return call;
}

void R(mover_cpu_volume_scores_backward_layout)(const mover_volume_scores_desc *desc, mover_arena *arena) {
    (void)take_backward(desc, arena);
}

/* D of groups [first, last), then its two products. */
static mover_status backward_panel(backward_call *call, const mover_exec *exec) {
    const score_call *groups = &call->groups;
    const int64_t n = groups->n, d = groups->d, members = groups->members;
    const int64_t width = call->last - call->first, columns = width * members, offset = call->first * members * d;
    const int64_t work = members < 3 ? 8 : members * members * 4;
    MOVER_TRY(mover_run(exec, 0, call->row_blocks * mover_ceil_div(width, COLUMNS),
                        mover_grain(mover_min(n, ROWS) * mover_min(width, COLUMNS) * work), backward_blocks, call));
    if (call->grad_anchor) {
        MOVER_TRY(mover_product(exec, REAL_DTYPE, 0, 0, n, d, columns, call->derivative, columns,
                                groups->others + offset, d, call->of_anchor ? call->of_anchor : call->grad_anchor, d));
        MOVER_TRY(mover_run(exec, 0, n, mover_grain(d), anchor_rows, call));
    }
    if (!call->grad_others) return MOVER_OK;
    return mover_product(exec, REAL_DTYPE, 1, 0, columns, d, n, call->derivative, columns, groups->anchor, d,
                         call->of_others + offset, d);
}

mover_status R(mover_cpu_volume_scores_backward)(const mover_volume_scores_desc *desc, const real *anchor,
                                                 const real *others, const uint8_t *mask, const real *alphas,
                                                 const real *grad_scores, real *grad_anchor, real *grad_others,
                                                 void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    backward_call call = take_backward(desc, &arena);
    const int64_t m = desc->m, members = desc->k - 1;
    call.alphas = alphas;
    call.grad_scores = grad_scores;
    call.grad_anchor = grad_anchor;
    call.grad_others = grad_others;
    if (!mask) call.of_others = grad_others;
    MOVER_TRY(R(mover_score_groups)(&call.groups, anchor, others, mask, exec));
    if (members > 2)
        MOVER_TRY(mover_run(exec, 0, mover_ceil_div(m, LANES), mover_grain(LANES * members * members * members),
                            slope_blocks, &call));
    for (; call.first < m; call.first += call.panel) {
        call.last = mover_min(m, call.first + call.panel);
        MOVER_TRY(backward_panel(&call, exec));
    }
    if (!grad_others) return MOVER_OK;
    return mover_run(exec, 0, m, mover_grain(members * members * desc->d), others_rows, &call);
}
