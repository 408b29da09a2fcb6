/*
 * group_volume.c: the volumes of listed groups of unit rows, from the squared distances of every pair of sets.
 *
 *     forward    volume[t] = Vol(alpha_p[t]),   alpha_p[t] = costs[p, groups[t,a], groups[t,b]] / 2
 *     backward   grad_costs[p, groups[t,a], groups[t,b]] += grad_volume[t] dVol/dalpha_p / 2
 *
 * where p is the pair (a, b) of sets.
 *
 * k = 2, 3 are the closed forms of alpha_volume.h, k >= 4 those of lane_volume.h, all in lanes of LANES groups. The
 * backward goes through the groups in chunks: the derivatives of a chunk are made in parallel, then every pair adds its
 * own, in the order of the groups, to its own matrix. The scratch does not grow with the number of groups.
 */
#include "real.h"

#include "../src/backend.h"

#include "alpha_volume.h"

#include <string.h>

typedef real scalar;
#include "small_matrix.h"

#include "lane_volume.h"

enum { CHUNK = 8192 };

typedef struct group_call {
    int64_t n, count, k;
    const real *costs, *grad_volume;
    const int64_t *groups;
    real *volume, *grad_costs;
    real *share;   /* (pairs, CHUNK): what a chunk adds to grad_costs */
    int64_t chunk; /* first group of the chunk at work */
} group_call;

static int64_t pairs_of(int64_t k) { return k * (k - 1) / 2; }

/* ---- the volumes of groups [t, t + count), count <= LANES ---------------------------------------------------------
 */

/* half[lane] = costs / 2 of one pair, the columns a and b of `groups`; 0 in lanes to spare. */
MOVER_INLINE void load_pair(const group_call *call, int64_t pair, int64_t a, int64_t b, int64_t t, int64_t count,
                            lane_row half) {
    const real *costs = call->costs + pair * call->n * call->n;
    const int64_t *groups = call->groups + t * call->k;
    for (int64_t lane = 0; lane < count; lane++)
        half[lane] = half_cost(costs[groups[lane * call->k + a] * call->n + groups[lane * call->k + b]]);
    for (int64_t lane = count; lane < LANES; lane++) half[lane] = 0;
}

/* alpha[r] is the pair (0, r + 1); matrix[at(r, s)] the pair (s + 1, r + 1). */
MOVER_INLINE void load_block(const group_call *call, int64_t t, int64_t count, lane_rows alpha, lane_block matrix) {
    const int rows = (int)call->k - 1;
    int64_t pair = 0;
    for (int r = 0; r < rows; r++) load_pair(call, pair++, 0, r + 1, t, count, alpha[r]);
    for (int s = 0; s < rows; s++)
        for (int r = s + 1; r < rows; r++) load_pair(call, pair++, s + 1, r + 1, t, count, matrix[at(r, s)]);
}

MOVER_HOT static void forward_block(const group_call *call, int64_t t, int64_t count) {
    lane_rows alpha;
    lane_block matrix;
    lane_row volume;
    load_block(call, t, count, alpha, matrix);
    if (call->k == 2) {
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) volume[lane] = real_sqrt(pair_square(alpha[0][lane]));
    } else if (call->k == 3) {
        const real *gamma = matrix[at(1, 0)];
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) {
            real mixed;
            volume[lane] = real_sqrt(triple_square(alpha[0][lane], alpha[1][lane], gamma[lane], &mixed));
        }
    } else {
        lane_volume((int)call->k - 1, alpha, matrix, volume);
    }
    for (int64_t lane = 0; lane < count; lane++) call->volume[t + lane] = volume[lane];
}

/* ---- backward -----------------------------------------------------------------------------------------------------
 */

/* weight times dVol/dalpha of three rows: for their pairs (1,2), (1,3), (2,3). */
MOVER_INLINE void gradient_of_three(lane_rows alpha, const real *gamma, lane_row weight, lane_rows grad_alpha,
                                    real *grad_gamma) {
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) {
        const real p = alpha[0][lane], q = alpha[1][lane];
        real mixed;
        const real square = triple_square(p, q, gamma[lane], &mixed);
        const real scale = weight[lane] * inverse_volume(square, real_sqrt(square));
        grad_alpha[0][lane] = scale * ((1 - p) * (q * (2 - q)) - mixed * (1 - q));
        grad_alpha[1][lane] = scale * ((1 - q) * (p * (2 - p)) - mixed * (1 - p));
        grad_gamma[lane] = scale * mixed;
    }
}

/* The shares of groups [t, t + count) of the chunk. */
MOVER_HOT static void backward_block(const group_call *call, int64_t t, int64_t count) {
    lane_rows alpha, grad_alpha;
    lane_block matrix, grad_gamma;
    lane_row volume, weight;
    const int rows = (int)call->k - 1;
    load_block(call, t, count, alpha, matrix);
    for (int64_t lane = 0; lane < LANES; lane++) weight[lane] = lane < count ? call->grad_volume[t + lane] / 2 : 0;
    if (rows == 1) {
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) {
            const real square = pair_square(alpha[0][lane]);
            grad_alpha[0][lane] = weight[lane] * inverse_volume(square, real_sqrt(square)) * (1 - alpha[0][lane]);
        }
    } else if (rows == 2) {
        gradient_of_three(alpha, matrix[at(1, 0)], weight, grad_alpha, grad_gamma[at(1, 0)]);
    } else {
        lane_volume(rows, alpha, matrix, volume);
        lane_volume_gradient(rows, alpha, matrix, volume, weight, grad_alpha, grad_gamma);
    }
    real *share = call->share + t - call->chunk;
    for (int r = 0; r < rows; r++, share += CHUNK) memcpy(share, grad_alpha[r], (size_t)count * sizeof(real));
    for (int s = 0; s < rows; s++)
        for (int r = s + 1; r < rows; r++, share += CHUNK)
            memcpy(share, grad_gamma[at(r, s)], (size_t)count * sizeof(real));
}

/* The chunk's shares of pairs [begin, end), each to its matrix. */
static void scatter_pairs(int64_t begin, int64_t end, void *ctx) {
    const group_call *call = ctx;
    const int64_t last = mover_min(call->count, call->chunk + CHUNK);
    int64_t pair = 0;
    for (int64_t a = 0; a < call->k; a++)
        for (int64_t b = a + 1; b < call->k; b++, pair++) {
            if (pair < begin || pair >= end) continue;
            real *grad = call->grad_costs + pair * call->n * call->n;
            const real *share = call->share + pair * CHUNK - call->chunk;
            for (int64_t t = call->chunk; t < last; t++) {
                const int64_t *group = call->groups + t * call->k;
                grad[group[a] * call->n + group[b]] += share[t];
            }
        }
}

/* ---------------------------------------------------------------------------------------------------------------------
 */

static void forward_blocks(int64_t begin, int64_t end, void *ctx) {
    const group_call *call = ctx;
    for (int64_t block = begin; block < end; block++)
        forward_block(call, block * LANES, mover_min(LANES, call->count - block * LANES));
}

static void backward_blocks(int64_t begin, int64_t end, void *ctx) {
    const group_call *call = ctx;
    for (int64_t block = begin; block < end; block++) {
        const int64_t t = call->chunk + block * LANES;
        backward_block(call, t, mover_min(LANES, call->count - t));
    }
}

static void zero_pairs(int64_t begin, int64_t end, void *ctx) {
    const group_call *call = ctx;
    const int64_t square = call->n * call->n;
    memset(call->grad_costs + begin * square, 0, (size_t)((end - begin) * square) * sizeof(real));
}

/* Simple operations for LANES groups. */
static int64_t work(int64_t k) { return LANES * k * k * k; }

mover_status R(mover_cpu_group_volume_forward)(const mover_group_volume_desc *desc, const real *costs,
                                               const int64_t *groups, real *volume, const mover_exec *exec) {
    group_call call = {.n = desc->n, .count = desc->count, .k = desc->k, .costs = costs, .groups = groups};
    call.volume = volume;
    return mover_run(exec, 0, mover_ceil_div(desc->count, LANES), mover_grain(work(desc->k)), forward_blocks, &call);
}

void R(mover_cpu_group_volume_backward_layout)(const mover_group_volume_desc *desc, mover_arena *arena) {
    (void)mover_take(arena, pairs_of(desc->k), CHUNK, sizeof(real));
}

mover_status R(mover_cpu_group_volume_backward)(const mover_group_volume_desc *desc, const real *costs,
                                                const int64_t *groups, const real *grad_volume, real *grad_costs,
                                                void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    const int64_t pairs = pairs_of(desc->k);
    group_call call = {.n = desc->n, .count = desc->count, .k = desc->k, .costs = costs, .groups = groups};
    call.grad_volume = grad_volume;
    call.grad_costs = grad_costs;
    call.share = mover_take(&arena, pairs, CHUNK, sizeof(real));
    MOVER_TRY(mover_run(exec, 0, pairs, mover_grain(call.n * call.n), zero_pairs, &call));
    for (; call.chunk < call.count; call.chunk += CHUNK) {
        const int64_t groups_here = mover_min(CHUNK, call.count - call.chunk);
        MOVER_TRY(
            mover_run(exec, 0, mover_ceil_div(groups_here, LANES), mover_grain(work(desc->k)), backward_blocks, &call));
        MOVER_TRY(mover_run(exec, 0, pairs, mover_grain(4 * groups_here), scatter_pairs, &call));
    }
    return MOVER_OK;
}
