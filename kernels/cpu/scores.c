/*
 * scores.c: the volume of every anchor with every group of others.
 *
 *     alpha_r[i,j] = |anchor_i - others_jr|^2 / 2        one matrix product for each member r = 0..k-2
 *     gamma_rs[j]  = |others_jr - others_js|^2 / 2       for r > s, once for each group
 *
 *     k = 2, 3   the closed forms of alpha_volume.h
 *     k >= 4     M_rs = alpha_r + alpha_s - gamma_rs - alpha_r alpha_s  (M_rr = alpha_r (2 - alpha_r)),
 *                M = L D L^T, Vol = prod sqrt(d_r), in lanes of groups j
 *
 * backward, with N = Vol M^-1 / 2:
 *     dVol/dalpha_r = 2 sum_s N_rs (1 - alpha_s),   dVol/dgamma_rs = -2 N_rs
 *     D_r = grad_scores dVol/dalpha_r takes the place of alpha_r, then goes through the gradient of the distances.
 *
 * Forward, the first alpha stands in `scores` itself: the scratch is k - 2 arrays of n x m; backward k - 1.
 */
#include "real.h"

#include "backend.h"

#include "alpha_volume.h"
#include "cost.h"

typedef real scalar;
#include "small_matrix.h"

enum {
    MOST_OTHERS = MOVER_MAX_K - 1,
    MOST_PAIRS = MOST_OTHERS * (MOST_OTHERS - 1) / 2,
    ROWS = 32,   /* of a forward tile */
    WIDTH = 512, /* columns of a forward tile */
    STRIP = 128  /* columns of a backward strip */
};

/* The place of gamma_rs, r > s, among the pairs. */
MOVER_INLINE int pair(int r, int s) { return r * (r - 1) / 2 + s; }

typedef struct score_call {
    int64_t n, m, d, others_count;
    const real *anchor, *others, *grad_scores;
    real *scores, *grad_others;
    real *alpha[MOST_OTHERS]; /* each (n, m) */
    real *gamma;              /* (pairs, m) */
    real *grad_gamma;         /* (pairs, m) */
    real *product, *sums;     /* scratch of the gradient of the distances */
    R(mover_cost_scratch) cost;
} score_call;

/* ---- gamma ----------------------------------------------------------------------------------------------------------
 */

MOVER_HOT static real half_distance(const real *x, const real *y, int64_t d) {
    double sum = 0;
    MOVER_SIMD_SUM(sum)
    for (int64_t t = 0; t < d; t++) {
        const double difference = (double)x[t] - (double)y[t];
        sum += difference * difference;
    }
    return (real)(sum / 2);
}

static void gamma_groups(int64_t begin, int64_t end, void *ctx) {
    const score_call *call = ctx;
    for (int64_t j = begin; j < end; j++) {
        const real *group = call->others + j * call->others_count * call->d;
        for (int r = 1; r < call->others_count; r++)
            for (int s = 0; s < r; s++)
                call->gamma[pair(r, s) * call->m + j] =
                    half_distance(group + r * call->d, group + s * call->d, call->d);
    }
}

/* Adds what the gammas give to grad_others. */
MOVER_HOT static void add_difference(real weight, const real *x, const real *y, real *grad_x, real *grad_y, int64_t d) {
    MOVER_SIMD
    for (int64_t t = 0; t < d; t++) {
        const real change = weight * (x[t] - y[t]);
        grad_x[t] += change;
        grad_y[t] -= change;
    }
}

static void grad_gamma_groups(int64_t begin, int64_t end, void *ctx) {
    const score_call *call = ctx;
    for (int64_t j = begin; j < end; j++) {
        const real *group = call->others + j * call->others_count * call->d;
        real *grad = call->grad_others + j * call->others_count * call->d;
        for (int r = 1; r < call->others_count; r++)
            for (int s = 0; s < r; s++)
                add_difference(call->grad_gamma[pair(r, s) * call->m + j], group + r * call->d, group + s * call->d,
                               grad + r * call->d, grad + s * call->d, call->d);
    }
}

/* ---- volumes of LANES groups with one anchor, k >= 4 --------------------------------------------------------------
 */

MOVER_INLINE void lane_load(const real *from, int64_t count, lane_row to) {
    if (count == LANES) {
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) to[lane] = from[lane];
        return;
    }
    for (int64_t lane = 0; lane < count; lane++) to[lane] = from[lane];
    for (int64_t lane = count; lane < LANES; lane++) to[lane] = 0;
}

/* alpha and M = L D L^T of groups [j, j + count) with anchor i; volume is 0 where M is singular to working precision
 * and NaN where an alpha is not finite. */
MOVER_INLINE void lane_volume(const score_call *call, int rows, int64_t i, int64_t j, int64_t count, lane_rows alpha,
                              lane_block matrix, lane_row volume) {
    lane_rows least;
    lane_row gamma, order, poison;
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) poison[lane] = 0;
    for (int r = 0; r < rows; r++) {
        lane_load(call->alpha[r] + i * call->m + j, count, alpha[r]);
        for (int s = 0; s < r; s++) {
            lane_load(call->gamma + pair(r, s) * call->m + j, count, gamma);
            MOVER_SIMD
            for (int lane = 0; lane < LANES; lane++) {
                const real p = alpha[r][lane], q = alpha[s][lane];
                matrix[at(r, s)][lane] = (p - gamma[lane]) + q * (1 - p);
                poison[lane] += 0 * gamma[lane];
            }
        }
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) {
            matrix[at(r, r)][lane] = alpha[r][lane] * (2 - alpha[r][lane]);
            least[r][lane] = ALPHA_NOISE * (real)(rows + 1) * alpha[r][lane];
            poison[lane] += 0 * alpha[r][lane];
        }
    }
    lane_factor(rows, matrix, least, order);
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) volume[lane] = 1;
    for (int r = 0; r < rows; r++) {
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) volume[lane] *= real_sqrt(matrix[at(r, r)][lane]);
    }
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) volume[lane] = (order[lane] > 0 ? 0 : volume[lane]) + poison[lane];
}

/* ---- forward: rows [i0, i1) and columns [j0, j1) ---------------------------------------------------------------- */

MOVER_INLINE void forward_lanes(const score_call *call, int rows, int64_t i, int64_t j0, int64_t j1) {
    for (int64_t j = j0; j < j1; j += LANES) {
        const int64_t count = mover_min(LANES, j1 - j);
        lane_rows alpha;
        lane_block matrix;
        lane_row volume;
        lane_volume(call, rows, i, j, count, alpha, matrix, volume);
        for (int64_t lane = 0; lane < count; lane++) call->scores[i * call->m + j + lane] = volume[lane];
    }
}

MOVER_HOT static void forward_tile(const score_call *call, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
    for (int64_t i = i0; i < i1; i++) {
        real *scores = call->scores + i * call->m;
        if (call->others_count == 1) {
            MOVER_SIMD
            for (int64_t j = j0; j < j1; j++) scores[j] = real_sqrt(pair_square(scores[j]));
        } else if (call->others_count == 2) {
            const real *beta = call->alpha[1] + i * call->m, *gamma = call->gamma;
            MOVER_SIMD
            for (int64_t j = j0; j < j1; j++) {
                real t;
                scores[j] = real_sqrt(triple_square(scores[j], beta[j], gamma[j], &t));
            }
        } else {
            forward_lanes(call, (int)call->others_count, i, j0, j1);
        }
    }
}

static void forward_tiles(int64_t begin, int64_t end, void *ctx) {
    const score_call *call = ctx;
    const int64_t across = mover_ceil_div(call->m, WIDTH);
    for (int64_t tile = begin; tile < end; tile++) {
        const int64_t i = tile / across * ROWS, j = tile % across * WIDTH;
        forward_tile(call, i, mover_min(call->n, i + ROWS), j, mover_min(call->m, j + WIDTH));
    }
}

/* ---- backward: all rows of columns [j0, j1) -----------------------------------------------------------------------
 */

MOVER_HOT static void backward_strip_2(const score_call *call, int64_t j0, int64_t j1) {
    for (int64_t i = 0; i < call->n; i++) {
        const real *grad = call->grad_scores + i * call->m;
        real *alpha = call->alpha[0] + i * call->m;
        MOVER_SIMD
        for (int64_t j = j0; j < j1; j++) {
            const real square = pair_square(alpha[j]);
            alpha[j] = grad[j] * inverse_volume(square, real_sqrt(square)) * (1 - alpha[j]);
        }
    }
}

MOVER_HOT static void backward_strip_3(const score_call *call, int64_t j0, int64_t j1) {
    double sum[STRIP] = {0};
    const int64_t width = j1 - j0;
    const real *restrict gamma = call->gamma + j0;
    for (int64_t i = 0; i < call->n; i++) {
        const int64_t row = i * call->m + j0;
        const real *restrict grad = call->grad_scores + row;
        real *restrict first = call->alpha[0] + row, *restrict second = call->alpha[1] + row;
        MOVER_SIMD
        for (int64_t j = 0; j < width; j++) {
            const real alpha = first[j], beta = second[j];
            real t;
            const real square = triple_square(alpha, beta, gamma[j], &t);
            const real weight = grad[j] * inverse_volume(square, real_sqrt(square));
            first[j] = weight * ((1 - alpha) * (beta * (2 - beta)) - t * (1 - beta));
            second[j] = weight * ((1 - beta) * (alpha * (2 - alpha)) - t * (1 - alpha));
            sum[j] += (double)(weight * t);
        }
    }
    for (int64_t j = 0; j < width; j++) call->grad_gamma[j0 + j] = (real)sum[j];
}

/* Groups [j, j + count) with anchor i: alpha_r becomes D_r, and sum (pairs, STRIP), at column `column`, takes the
 * gradients of the gammas. */
MOVER_INLINE void backward_lanes(const score_call *call, int rows, int64_t i, int64_t j, int64_t count, int64_t column,
                                 double (*sum)[STRIP]) {
    lane_rows alpha;
    lane_block matrix, inverse;
    lane_row volume, weight, total;
    lane_volume(call, rows, i, j, count, alpha, matrix, volume);
    lane_inverse(rows, matrix, inverse);
    lane_load(call->grad_scores + i * call->m + j, count, weight);
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) weight[lane] *= volume[lane];
    for (int entry = 0; entry < at(rows, 0); entry++) {
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++)
            inverse[entry][lane] = volume[lane] == 0 ? 0 : weight[lane] * inverse[entry][lane];
    }
    for (int r = 0; r < rows; r++) {
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) total[lane] = 0;
        for (int s = 0; s < rows; s++) {
            const real *entry = inverse[r > s ? at(r, s) : at(s, r)];
            MOVER_SIMD
            for (int lane = 0; lane < LANES; lane++) total[lane] += entry[lane] * (1 - alpha[s][lane]);
        }
        for (int64_t lane = 0; lane < count; lane++) call->alpha[r][i * call->m + j + lane] = total[lane];
        for (int s = 0; s < r; s++)
            for (int64_t lane = 0; lane < count; lane++)
                sum[pair(r, s)][column + lane] -= (double)inverse[at(r, s)][lane];
    }
}

MOVER_INLINE void backward_row(const score_call *call, int rows, int64_t i, int64_t j0, int64_t j1,
                               double (*sum)[STRIP]) {
    for (int64_t j = j0; j < j1; j += LANES) backward_lanes(call, rows, i, j, mover_min(LANES, j1 - j), j - j0, sum);
}

MOVER_HOT static void backward_strip_many(const score_call *call, int64_t j0, int64_t j1) {
    double sum[MOST_PAIRS][STRIP] = {{0}};
    for (int64_t i = 0; i < call->n; i++) backward_row(call, (int)call->others_count, i, j0, j1, sum);
    for (int r = 1; r < call->others_count; r++)
        for (int s = 0; s < r; s++)
            for (int64_t j = j0; j < j1; j++)
                call->grad_gamma[pair(r, s) * call->m + j] = (real)sum[pair(r, s)][j - j0];
}

static void backward_strips(int64_t begin, int64_t end, void *ctx) {
    const score_call *call = ctx;
    for (int64_t strip = begin; strip < end; strip++) {
        const int64_t j0 = strip * STRIP, j1 = mover_min(call->m, j0 + STRIP);
        if (call->others_count == 1)
            backward_strip_2(call, j0, j1);
        else if (call->others_count == 2)
            backward_strip_3(call, j0, j1);
        else
            backward_strip_many(call, j0, j1);
    }
}

/* ---------------------------------------------------------------------------------------------------------------------
 */

static score_call take(const mover_volume_scores_desc *desc, int backward, mover_arena *arena) {
    score_call call = {.n = desc->n, .m = desc->m, .d = desc->d, .others_count = desc->k - 1};
    const int64_t pairs = (desc->k - 1) * (desc->k - 2) / 2;
    call.cost = R(mover_cost_take)(arena, desc->n, desc->m, desc->d);
    for (int64_t r = backward ? 0 : 1; r < call.others_count; r++)
        call.alpha[r] = mover_take(arena, desc->n, desc->m, sizeof(real));
    call.gamma = mover_take(arena, pairs, desc->m, sizeof(real));
    if (backward) {
        call.grad_gamma = mover_take(arena, pairs, desc->m, sizeof(real));
        call.product = mover_take(arena, mover_max(desc->n, desc->m), desc->d, sizeof(real));
        call.sums = mover_take(arena, desc->n + desc->m, 1, sizeof(real));
    }
    return call;
}

void R(mover_cpu_volume_scores_layout)(const mover_volume_scores_desc *desc, mover_arena *arena) {
    (void)take(desc, 0, arena);
}

void R(mover_cpu_volume_scores_backward_layout)(const mover_volume_scores_desc *desc, mover_arena *arena) {
    (void)take(desc, 1, arena);
}

static mover_status alphas(const score_call *call, const mover_exec *exec) {
    const int64_t d = call->d, width = call->others_count * d;
    for (int64_t r = 0; r < call->others_count; r++)
        MOVER_TRY(R(mover_cost_product)(call->anchor, d, call->others + r * d, width, call->n, call->m, d, (real)0.5,
                                        call->alpha[r], call->m, &call->cost, exec));
    if (call->others_count == 1) return MOVER_OK;
    return mover_run(exec, 0, call->m, mover_grain(width * call->others_count / 2), gamma_groups, (void *)call);
}

/* Simple operations for one element of the score matrix. */
static int64_t work(const score_call *call) {
    const int64_t rows = call->others_count;
    return rows < 3 ? 2 : rows * rows * rows / 2;
}

mover_status R(mover_cpu_volume_scores_forward)(const mover_volume_scores_desc *desc, const real *anchor,
                                                const real *others, real *scores, void *workspace,
                                                const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    score_call call = take(desc, 0, &arena);
    call.anchor = anchor;
    call.others = others;
    call.scores = call.alpha[0] = scores;
    MOVER_TRY(alphas(&call, exec));
    const int64_t tiles = mover_ceil_div(call.n, ROWS) * mover_ceil_div(call.m, WIDTH);
    return mover_run(exec, 0, tiles, mover_grain(ROWS * mover_min(WIDTH, call.m) * work(&call)), forward_tiles, &call);
}

mover_status R(mover_cpu_volume_scores_backward)(const mover_volume_scores_desc *desc, const real *anchor,
                                                 const real *others, const real *grad_scores, real *grad_anchor,
                                                 real *grad_others, void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    score_call call = take(desc, 1, &arena);
    const int64_t n = call.n, m = call.m, d = call.d, width = call.others_count * d;
    call.anchor = anchor;
    call.others = others;
    call.grad_scores = grad_scores;
    call.grad_others = grad_others;
    MOVER_TRY(alphas(&call, exec));
    MOVER_TRY(mover_run(exec, 0, mover_ceil_div(m, STRIP), mover_grain(n * mover_min(STRIP, m) * work(&call)),
                        backward_strips, &call));
    for (int64_t r = 0; r < call.others_count; r++) {
        const real *member = others + r * d;
        if (grad_anchor)
            MOVER_TRY(R(mover_cost_gradient)(anchor, d, member, width, n, m, d, (real)0.5, call.alpha[r], m,
                                             grad_anchor, d, NULL, 0, r > 0, call.product, call.sums, exec));
        if (grad_others)
            MOVER_TRY(R(mover_cost_gradient)(anchor, d, member, width, n, m, d, (real)0.5, call.alpha[r], m, NULL, 0,
                                             grad_others + r * d, width, 0, call.product, call.sums, exec));
    }
    if (!grad_others || call.others_count == 1) return MOVER_OK;
    return mover_run(exec, 0, m, mover_grain(width * call.others_count / 2), grad_gamma_groups, &call);
}
