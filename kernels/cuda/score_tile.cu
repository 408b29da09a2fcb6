/*
 * score_tile.cu: scores of a tile of anchors and groups.
 *
 *     alpha_r[i,j] = |anchor_i - others_jr|^2 / 2        the costs of the tile's rows, scaled
 *     gamma_rs[j]  = |others_jr - others_js|^2 / 2       r > s, from differences, once for each group
 *
 * A tile of alphas is small enough to stay in the second-level cache until its scores are made. With a mask the members
 * that are present are moved to the front and rows of 0 stand for the missing, whose alpha and gamma are then set to 1:
 * a row orthogonal to all others changes neither volume nor span, and the bits of what is present do not depend on what
 * is not.
 */
#include "score_tile.h"

#include "alpha_volume.cuh"
#include "cost.h"
#include "device.h"
#include "product.h"
#include "reduce.cuh"

enum {
    THREADS = 128,
    ANCHORS = 8, /* of a thread of score_cells */
    LANES = 8    /* for a group in gamma_groups */
};

score_call R(mover_cuda_score_take)(const char *function, const mover_volume_scores_desc *desc, mover_arena *arena) {
    const int64_t members = desc->k - 1, m = desc->m;
    const bool cosine = desc->score == MOVER_SCORE_COSINE;
    score_call call = {};
    call.function = function;
    call.n = desc->n;
    call.m = m;
    call.d = desc->d;
    call.members = members;
    call.width = cosine ? 1 : members;
    call.score = desc->score;
    call.precision = desc->precision;
    call.plan = score_plan_of(call.n, m, call.width);
    if (desc->masked || cosine) call.copy = (real *)mover_take(arena, m * call.width, desc->d, sizeof(real));
    if (desc->masked) {
        call.present_to = (uint8_t *)mover_take(arena, m, 1, 1);
        call.place_to = (uint8_t *)mover_take(arena, m, members, 1);
    }
    if (cosine) return call;
    call.norm_anchor = (real *)mover_take(arena, call.n, 1, sizeof(real));
    call.norm_others = (real *)mover_take(arena, m, members, sizeof(real));
    if (members == 1) return call;
    call.gamma = (real *)mover_take(arena, pair_at((int)members, 0), m, sizeof(real));
    call.group = (real *)mover_take(arena, group_numbers((int)members), m, sizeof(real));
    return call;
}

/* ---- groups -------------------------------------------------------------------------------------------------------
 */

/* The order of the members, those present first, by a thread for each group. */
static __global__ void __launch_bounds__(THREADS) sort_groups(score_call call, const uint8_t *mask) {
    const int members = (int)call.members;
    for (int64_t j = blockIdx.x * (int64_t)THREADS + threadIdx.x; j < call.m; j += gridDim.x * (int64_t)THREADS) {
        uint8_t *place = call.place_to + j * members;
        int front = 0;
        for (int r = 0; r < members; r++)
            if (mask[j * members + r]) place[front++] = (uint8_t)r;
        call.present_to[j] = (uint8_t)front;
        for (int r = 0; r < members; r++)
            if (!mask[j * members + r]) place[front++] = (uint8_t)r;
    }
}

/* The copy: the rows of the members in their order, or the sum of those present for the cosine. A warp owns a row of
 * the copy, a lane every WARP-th entry. Reads what is present once, writes the copy once. */
static __global__ void __launch_bounds__(THREADS) copy_rows(score_call call, const real *others) {
    const int64_t d = call.d, rows = call.m * call.width, warps = gridDim.x * (int64_t)(THREADS / WARP);
    const int lane = threadIdx.x % WARP;
    for (int64_t row = blockIdx.x * (int64_t)(THREADS / WARP) + threadIdx.x / WARP; row < rows; row += warps) {
        const int64_t j = row / call.width;
        const int members = (int)call.members, r = (int)(row % call.width);
        const int present = call.present ? call.present[j] : members, end = call.width == 1 ? present : r + 1;
        real *to = call.copy + row * d;
        for (int64_t t = lane; t < d; t += WARP) {
            real sum = 0;
            for (int s = r; s < end && s < present; s++) {
                const int member = call.place ? call.place[j * members + s] : s;
                sum += others[(j * members + member) * d + t];
            }
            to[t] = sum;
        }
    }
}

/* gamma, accumulated in double. LANES lanes own a group, each every LANES-th entry of its rows. Reads the rows once. */
template <int members> static __global__ void __launch_bounds__(THREADS) gamma_groups(score_call call) {
    constexpr int pairs = pair_at(members, 0);
    const int64_t m = call.m, d = call.d, step = gridDim.x * (int64_t)(THREADS / LANES);
    const int lane = threadIdx.x % LANES;
    for (int64_t first = blockIdx.x * (int64_t)(THREADS / LANES); first < m; first += step) {
        const int64_t j = first + threadIdx.x / LANES;
        const bool inside = j < m;
        const real *rows = call.others + j * members * d;
        const int present = inside && call.present ? call.present[j] : members;
        double sum[pairs];
        MOVER_UNROLL
        for (int pair = 0; pair < pairs; pair++) sum[pair] = 0;
        for (int64_t t = lane; inside && t < d; t += LANES) {
            double entry[members];
            MOVER_UNROLL
            for (int r = 0; r < members; r++) entry[r] = (double)rows[r * d + t];
            MOVER_UNROLL
            for (int r = 1; r < members; r++) {
                MOVER_UNROLL
                for (int s = 0; s < r; s++) sum[pair_at(r, s)] += (entry[r] - entry[s]) * (entry[r] - entry[s]);
            }
        }
        MOVER_UNROLL
        for (int r = 1; r < members; r++) {
            MOVER_UNROLL
            for (int s = 0; s < r; s++) {
                const double total = mover_lanes_sum<LANES>(sum[pair_at(r, s)]);
                if (inside && lane == 0) call.gamma[pair_at(r, s) * m + j] = r < present ? (real)(total / 2) : real(1);
            }
        }
    }
}

template <int members> static __global__ void __launch_bounds__(THREADS) factor_groups(score_call call) {
    for (int64_t j = blockIdx.x * (int64_t)THREADS + threadIdx.x; j < call.m; j += gridDim.x * (int64_t)THREADS) {
        real gamma[pair_at(members, 0) + 1];
        MOVER_UNROLL
        for (int pair = 0; pair < pair_at(members, 0); pair++) gamma[pair] = call.gamma[pair * call.m + j];
        group_store<members>(group_factor<members>(gamma), call.group + j, call.m);
    }
}

template <int members> static mover_status launch_groups(const score_call *call, const mover_exec *exec) {
    if constexpr (members > 1) {
        const unsigned lanes = mover_blocks(mover_ceil_div(call->m, THREADS / LANES), MOVER_MOST_BLOCKS);
        const unsigned threads = mover_blocks(mover_ceil_div(call->m, THREADS), MOVER_MOST_BLOCKS);
        MOVER_CUDA_TRY(call->function,
                       MOVER_LAUNCH(gamma_groups<members>, lanes, THREADS, 0, mover_stream(exec), *call));
        MOVER_CUDA_TRY(call->function,
                       MOVER_LAUNCH(factor_groups<members>, threads, THREADS, 0, mover_stream(exec), *call));
    }
    return MOVER_OK;
}

mover_status R(mover_cuda_score_groups)(score_call *call, const real *anchor, const real *others, const uint8_t *mask,
                                        const mover_exec *exec) {
    call->anchor = anchor;
    call->others = others;
    if (call->m == 0) return MOVER_OK;
    if (mask) {
        const unsigned blocks = mover_blocks(mover_ceil_div(call->m, THREADS), MOVER_MOST_BLOCKS);
        MOVER_CUDA_TRY(call->function, MOVER_LAUNCH(sort_groups, blocks, THREADS, 0, mover_stream(exec), *call, mask));
        call->present = call->present_to;
        call->place = call->place_to;
    }
    if (call->copy) {
        const unsigned blocks = mover_blocks(mover_ceil_div(call->m * call->width, THREADS / WARP), MOVER_MOST_BLOCKS);
        MOVER_CUDA_TRY(call->function, MOVER_LAUNCH(copy_rows, blocks, THREADS, 0, mover_stream(exec), *call, others));
        call->others = call->copy;
    }
    if (call->score == MOVER_SCORE_COSINE) return MOVER_OK;
    return SCORE_BY_MEMBERS(call->members, launch_groups, call, exec);
}

mover_status R(mover_cuda_score_norms)(const score_call *call, const mover_exec *exec) {
    if (call->score == MOVER_SCORE_COSINE) return MOVER_OK;
    MOVER_TRY(R(mover_cuda_norms)(call->function, call->n, call->d, call->anchor, call->norm_anchor, exec));
    return R(mover_cuda_norms)(call->function, call->m * call->members, call->d, call->others, call->norm_others, exec);
}

/* ---- alphas to scores ---------------------------------------------------------------------------------------------
 */

namespace {

typedef struct score_cells_call {
    int64_t rows, groups, across; /* of the tile; blocks beside each other */
    const uint8_t *present;       /* of the tile's groups; NULL: all members are */
    const real *group;            /* of the tile's groups, m apart */
    int64_t m;
    real *alphas; /* (rows, groups, members) */
    real *scores;
    int64_t stride; /* of a row of scores */
} score_cells_call;

} // namespace

/* A block owns THREADS groups and ANCHORS anchors, a thread one group, whose numbers stay in registers. Reads each
 * alpha once, writes each score once, and the alphas of missing members. */
template <int members, bool volume>
static __global__ void __launch_bounds__(THREADS, 4) score_cells(score_cells_call c) {
    const int64_t blocks = c.across * ((c.rows + ANCHORS - 1) / ANCHORS);
    for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
        const int64_t j = block % c.across * THREADS + threadIdx.x, first = block / c.across * ANCHORS;
        if (j >= c.groups) continue;
        const int64_t end = first + ANCHORS < c.rows ? first + ANCHORS : c.rows;
        const int present = c.present ? c.present[j] : members;
        score_group<members> group = {};
        if constexpr (members > 1) group = group_load<members>(c.group + j, c.m);
        for (int64_t i = first; i < end; i++) {
            real *from = c.alphas + (i * c.groups + j) * members, alpha[members];
            MOVER_UNROLL
            for (int r = 0; r < members; r++) {
                alpha[r] = r < present ? from[r] : real(1);
                if (r >= present) from[r] = 1;
            }
            const real value = score<members, volume>(group, alpha);
            c.scores[i * c.stride + j] = present == 0 ? (real)NAN : value;
        }
    }
}

template <int members>
static mover_status launch_cells(const score_call *call, const score_cells_call *cells, const mover_exec *exec) {
    const unsigned blocks = mover_blocks(cells->across * mover_ceil_div(cells->rows, ANCHORS), MOVER_MOST_BLOCKS);
    const cudaStream_t stream = mover_stream(exec);
    if (call->score == MOVER_SCORE_VOLUME)
        return mover_cuda_check(call->function,
                                MOVER_LAUNCH((score_cells<members, true>), blocks, THREADS, 0, stream, *cells));
    /* for one member the span is the volume */
    return mover_cuda_check(call->function,
                            MOVER_LAUNCH((score_cells<members, members == 1>), blocks, THREADS, 0, stream, *cells));
}

/* NaN for groups without members, a thread for each group. */
static __global__ void __launch_bounds__(THREADS) cosine_cells(score_cells_call c) {
    for (int64_t j = blockIdx.x * (int64_t)THREADS + threadIdx.x; j < c.groups; j += gridDim.x * (int64_t)THREADS) {
        if (c.present[j] > 0) continue;
        for (int64_t i = 0; i < c.rows; i++) c.scores[i * c.stride + j] = (real)NAN;
    }
}

mover_status R(mover_cuda_score_tile)(const score_call *call, int64_t strip, int64_t across, real *alphas, real *scores,
                                      int64_t stride, const mover_exec *exec) {
    const int64_t rows = score_rows_of(call, strip), groups = score_groups_of(call, across), d = call->d;
    const int64_t first = strip * call->plan.rows, column = across * call->plan.groups * call->width;
    const real *anchor = call->anchor + first * d, *others = call->others + column * d;
    if (rows <= 0 || groups <= 0) return MOVER_OK;
    score_cells_call cells = {};
    cells.rows = rows;
    cells.groups = groups;
    cells.across = mover_ceil_div(groups, THREADS);
    cells.present = call->present ? call->present + across * call->plan.groups : NULL;
    cells.m = call->m;
    cells.alphas = alphas;
    cells.scores = scores;
    cells.stride = stride;
    if (call->score == MOVER_SCORE_COSINE) {
        MOVER_TRY(mover_cuda_product(call->function, exec, REAL_DTYPE, call->precision, 0, 1, rows, groups, d, anchor,
                                     d, others, d, scores, stride));
        if (!call->present) return MOVER_OK;
        return mover_cuda_check(
            call->function, MOVER_LAUNCH(cosine_cells, (unsigned)cells.across, THREADS, 0, mover_stream(exec), cells));
    }
    MOVER_TRY(R(mover_cuda_scaled_costs)(call->function, rows, groups * call->members, d, anchor,
                                         call->norm_anchor + first, others, call->norm_others + column, (real)0.5,
                                         call->precision, alphas, exec));
    if (call->group) cells.group = call->group + across * call->plan.groups;
    return SCORE_BY_MEMBERS(call->members, launch_cells, call, &cells, exec);
}
