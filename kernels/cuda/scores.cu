/*
 * scores.cu: the volume of every anchor with every group of others, or its distance from their span.
 *
 *     forward    tiles of anchors and groups, see score_tile.cu
 *     backward   D_r[i,j] = grad_scores dscore/dalpha_r, then, with g_rs[j] = sum_i grad_scores dscore/dgamma_rs,
 *                grad_anchor_i  = (sum_jr D_r[i,j]) x_i - D y
 *                grad_others_jr = (sum_i D_r[i,j]) y_jr - D^T x + sum_s g_rs (y_jr - y_js)
 *
 * The alphas that the forward hands to the backward stand tile after tile, each (rows, groups, members). D (n, panel,
 * members) is scratch; it is made for a panel of groups at a time, by blocks of a chunk of anchors and COLUMNS groups,
 * each of which leaves its sums over rows and columns. These are added in the order of the blocks, in double. D y and
 * D^T x are one matrix product each.
 */
#include "../src/backend.h"

#include "score_tile.h"

#include "alpha_volume.cuh"
#include "device.h"
#include "product.h"
#include "reduce.cuh"

enum { COLUMNS = 128, THREADS = 128 };

namespace {

typedef struct backward_call {
    score_call groups;
    const real *alphas, *grad_scores; /* tiles, (n, m) */
    int64_t chunk, chunks;            /* anchors of a chunk; how many chunks */
    int64_t entries;                  /* members + pairs: sums of a group */
    int64_t panel;                    /* groups of a panel */
    int64_t first, last;              /* groups of the panel at work */
    int64_t blocks;                   /* of COLUMNS groups, of all panels together */
    int64_t first_block;              /* of the panel at work */
    real *derivative;                 /* (n, last - first, members) */
    real *volume_slope;               /* (pairs, m): dVol/dgamma of the others alone; three and more members */
    real *row_share;                  /* (blocks, n): shares of sum_jr D_r[i,j] */
    real *row_sum;                    /* (n) */
    real *group_share;                /* (chunks, entries, m): shares of sum_i D_r[i,j] and of g_rs[j] */
    real *group_sum;                  /* (entries, m) */
    real *of_anchor;                  /* (n, d): D y of a panel, where there are several; else NULL */
    real *of_others;                  /* (m, members, d): D^T x; grad_others itself where there is no mask */
    real *grad_anchor, *grad_others;
} backward_call;

} // namespace

/* ---- forward ------------------------------------------------------------------------------------------------------
 */

static real *take_tile(const score_call *call, mover_arena *arena) {
    return (real *)mover_take(arena, call->plan.rows, call->plan.groups * call->members, sizeof(real));
}

/* Where the alphas of a tile begin. */
static int64_t tile_at(const score_call *call, int64_t strip, int64_t across) {
    return (strip * call->plan.rows * call->m + score_rows_of(call, strip) * across * call->plan.groups) *
           call->members;
}

void R(mover_cuda_volume_scores_layout)(const mover_volume_scores_desc *desc, mover_arena *arena) {
    const score_call call = R(mover_cuda_score_take)("", desc, arena);
    (void)take_tile(&call, arena);
}

mover_status R(mover_cuda_volume_scores_forward)(const mover_volume_scores_desc *desc, const real *anchor,
                                                 const real *others, const uint8_t *mask, real *scores, real *alphas,
                                                 void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    score_call call = R(mover_cuda_score_take)("mover_volume_scores_forward", desc, &arena);
    real *tile = take_tile(&call, &arena);
    MOVER_TRY(R(mover_cuda_score_groups)(&call, anchor, others, mask, exec));
    MOVER_TRY(R(mover_cuda_score_norms)(&call, exec));
    for (int64_t strip = 0; strip < call.plan.strips; strip++)
        for (int64_t across = 0; across < call.plan.across; across++) {
            real *into = scores + strip * call.plan.rows * call.m + across * call.plan.groups;
            MOVER_TRY(R(mover_cuda_score_tile)(
                &call, strip, across, alphas ? alphas + tile_at(&call, strip, across) : tile, into, call.m, exec));
        }
    return MOVER_OK;
}

/* ---- backward: D and its sums -------------------------------------------------------------------------------------
 */

/* D of the panel, shares of its sums over anchors and over groups. A block owns COLUMNS groups and a chunk of anchors,
 * a thread one group, whose numbers and sums stay in registers. The sum over the groups of a row goes through the warp
 * by shuffles and from warp to warp through CHUNK * COLUMNS / WARP numbers of shared memory. Reads alphas and
 * grad_scores once, writes D once. */
template <int members, bool volume>
static __global__ void __launch_bounds__(COLUMNS, 2) derivative_cells(backward_call call) {
    MOVER_SHARED(real, row_sums, [CHUNK][COLUMNS / WARP]);
    constexpr int pairs = pair_at(members, 0);
    const score_call &groups = call.groups;
    const int64_t n = groups.n, m = groups.m, width = call.last - call.first;
    const int64_t across = (width + COLUMNS - 1) / COLUMNS;
    for (int64_t block = blockIdx.x; block < across * call.chunks; block += gridDim.x) {
        const int64_t column = block % across * COLUMNS + threadIdx.x, chunk = block / across;
        const int64_t j = call.first + column, first = chunk * call.chunk;
        const int rows = (int)(n - first < call.chunk ? n - first : call.chunk);
        const bool inside = column < width;
        /* the tile of the alphas */
        const int64_t strip = first / groups.plan.rows * groups.plan.rows, tile = j / groups.plan.groups;
        const int64_t below = n - strip < groups.plan.rows ? n - strip : groups.plan.rows;
        const int64_t beside = m - tile * groups.plan.groups,
                      stride = beside < groups.plan.groups ? beside : groups.plan.groups;
        const real *from = call.alphas + (strip * m + below * tile * groups.plan.groups + (first - strip) * stride +
                                          (j - tile * groups.plan.groups)) *
                                             members;
        const real *grads = call.grad_scores + first * m + j;
        real *to = call.derivative + (first * width + column) * members;
        /* groups without members have a score of NaN and no gradient, whatever arrives */
        const bool scored = inside && !(groups.present && groups.present[j] == 0);

        score_group<members> group = {};
        if constexpr (members > 1)
            if (inside) group = group_load<members>(groups.group + j, m);
        real column_sum[members], gamma_sum[pairs + 1], slope_sum = 0;
        MOVER_UNROLL
        for (int r = 0; r < members; r++) column_sum[r] = 0;
        MOVER_UNROLL
        for (int pair = 0; pair < pairs; pair++) gamma_sum[pair] = 0;
        /* the next row is on its way while one is worked on */
        real next[members], next_grad = 0;
        MOVER_UNROLL
        for (int r = 0; r < members; r++) next[r] = inside ? from[r] : real(0);
        if (scored) next_grad = grads[0];
        for (int i = 0; i < rows; i++) {
            real alpha[members], derivative[members], sum = 0;
            const real grad = next_grad;
            const bool more = i + 1 < rows;
            MOVER_UNROLL
            for (int r = 0; r < members; r++) {
                alpha[r] = next[r];
                if (inside && more) next[r] = from[(i + 1) * stride * members + r];
            }
            if (scored && more) next_grad = grads[(i + 1) * m];
            if (inside) {
                score_gradient<members, volume>(group, alpha, grad, derivative, gamma_sum, &slope_sum);
                MOVER_UNROLL
                for (int r = 0; r < members; r++) {
                    to[i * width * members + r] = derivative[r];
                    column_sum[r] += derivative[r];
                    sum += derivative[r];
                }
            }
            sum = mover_warp_sum(sum);
            if (threadIdx.x % WARP == 0) row_sums[i][threadIdx.x / WARP] = sum;
        }
        __syncthreads();
        if ((int)threadIdx.x < rows) {
            real sum = 0;
            MOVER_UNROLL
            for (int warp = 0; warp < COLUMNS / WARP; warp++) sum += row_sums[threadIdx.x][warp];
            call.row_share[(call.first_block + block % across) * n + first + threadIdx.x] = sum;
        }
        if (inside) {
            real *share = call.group_share + chunk * call.entries * m + j;
            MOVER_UNROLL
            for (int r = 0; r < members; r++) share[r * m] = column_sum[r];
            MOVER_UNROLL
            for (int pair = 0; pair < pairs; pair++) {
                const real slope = members > 2 && volume ? call.volume_slope[pair * m + j] : real(0);
                share[(members + pair) * m] = gamma_sum[pair] + (slope != 0 ? slope_sum * slope : real(0));
            }
        }
        __syncthreads();
    }
}

/* dVol(others)/dgamma, by a thread for each group. */
template <int members> static __global__ void __launch_bounds__(THREADS) slope_groups(backward_call call) {
    const int64_t m = call.groups.m;
    for (int64_t j = blockIdx.x * (int64_t)THREADS + threadIdx.x; j < m; j += gridDim.x * (int64_t)THREADS) {
        real gamma[pair_at(members, 0) + 1], slope[pair_at(members, 0) + 1];
        MOVER_UNROLL
        for (int pair = 0; pair < pair_at(members, 0); pair++) gamma[pair] = call.groups.gamma[pair * m + j];
        group_slope<members>(gamma, slope);
        MOVER_UNROLL
        for (int pair = 0; pair < pair_at(members, 0); pair++) call.volume_slope[pair * m + j] = slope[pair];
    }
}

/* sum[q] = the shares share[s * count + q] in their order, in double, by a thread for each q. */
static __global__ void __launch_bounds__(THREADS)
    add_shares(const real *share, int64_t shares, int64_t count, real *sum) {
    for (int64_t q = blockIdx.x * (int64_t)THREADS + threadIdx.x; q < count; q += gridDim.x * (int64_t)THREADS) {
        double total = 0;
        for (int64_t s = 0; s < shares; s++) total += (double)share[s * count + q];
        sum[q] = (real)total;
    }
}

/* ---- backward: from sums and products to gradients ----------------------------------------------------------------
 */

/* grad_anchor less D y of a panel; after the last panel plus the sums times x. A warp owns a row. */
static __global__ void __launch_bounds__(THREADS) anchor_gradient(backward_call call) {
    const int64_t n = call.groups.n, d = call.groups.d, warps = gridDim.x * (int64_t)(THREADS / WARP);
    const bool start = call.first == 0, done = call.last == call.groups.m;
    const real *products = call.of_anchor ? call.of_anchor : call.grad_anchor;
    for (int64_t i = blockIdx.x * (int64_t)(THREADS / WARP) + threadIdx.x / WARP; i < n; i += warps) {
        const real *x = call.groups.anchor + i * d, *product = products + i * d;
        const real sum = done ? call.row_sum[i] : real(0);
        real *grad = call.grad_anchor + i * d;
        for (int64_t t = threadIdx.x % WARP; t < d; t += WARP) {
            const real less = start ? -product[t] : grad[t] - product[t];
            grad[t] = done ? less + sum * x[t] : less;
        }
    }
}

/* grad_others_r = sum_s weight_rs y_s - (D^T x)_r over the members present, 0 for the others. A warp owns a group, a
 * lane every WARP-th entry of its rows. Reads rows and products once, writes the gradients once. */
template <int members> static __global__ void __launch_bounds__(THREADS) others_gradient(backward_call call) {
    constexpr int pairs = pair_at(members, 0);
    const score_call &groups = call.groups;
    const int64_t m = groups.m, d = groups.d, warps = gridDim.x * (int64_t)(THREADS / WARP);
    for (int64_t j = blockIdx.x * (int64_t)(THREADS / WARP) + threadIdx.x / WARP; j < m; j += warps) {
        const int present = groups.present ? groups.present[j] : members;
        real own[members], between[pairs + 1];
        MOVER_UNROLL
        for (int r = 0; r < members; r++) own[r] = call.group_sum[r * m + j];
        MOVER_UNROLL
        for (int pair = 0; pair < pairs; pair++) between[pair] = call.group_sum[(members + pair) * m + j];
        MOVER_UNROLL
        for (int r = 1; r < members; r++) {
            MOVER_UNROLL
            for (int s = 0; s < r; s++) {
                own[r] += between[pair_at(r, s)];
                own[s] += between[pair_at(r, s)];
            }
        }
        const real *rows = groups.others + j * members * d, *products = call.of_others + j * members * d;
        for (int64_t t = threadIdx.x % WARP; t < d; t += WARP) {
            real row[members];
            MOVER_UNROLL
            for (int s = 0; s < members; s++) row[s] = rows[s * d + t];
            MOVER_UNROLL
            for (int r = 0; r < members; r++) {
                const int member = groups.place ? groups.place[j * members + r] : r;
                real grad = own[r] * row[r] - products[r * d + t];
                MOVER_UNROLL
                for (int s = 0; s < members; s++)
                    if (s != r && s < present) grad -= between[r > s ? pair_at(r, s) : pair_at(s, r)] * row[s];
                call.grad_others[(j * members + member) * d + t] = r < present ? grad : real(0);
            }
        }
    }
}

/* ---------------------------------------------------------------------------------------------------------------------
 */

static backward_call take_backward(const mover_volume_scores_desc *desc, mover_arena *arena) {
    const int64_t n = desc->n, m = desc->m, members = desc->k - 1, pairs = members * (members - 1) / 2;
    backward_call call = {};
    call.groups = R(mover_cuda_score_take)("mover_volume_scores_backward", desc, arena);
    call.entries = members + pairs;
    call.chunk = score_chunk_of(n);
    call.chunks = mover_ceil_div(n, call.chunk);
    call.panel = score_panel_of(n, m, members);
    call.blocks = mover_ceil_div(m, call.panel) * mover_ceil_div(call.panel, COLUMNS);
    call.derivative = (real *)mover_take(arena, n, call.panel * members, sizeof(real));
    if (members > 2) call.volume_slope = (real *)mover_take(arena, pairs, m, sizeof(real));
    call.row_share = (real *)mover_take(arena, call.blocks, n, sizeof(real));
    call.row_sum = (real *)mover_take(arena, n, 1, sizeof(real));
    call.group_share = (real *)mover_take(arena, call.chunks, call.entries * m, sizeof(real));
    call.group_sum = (real *)mover_take(arena, call.entries, m, sizeof(real));
    if (call.panel < m) call.of_anchor = (real *)mover_take(arena, n, desc->d, sizeof(real));
    if (desc->masked) call.of_others = (real *)mover_take(arena, m * members, desc->d, sizeof(real));
    return call;
}

void R(mover_cuda_volume_scores_backward_layout)(const mover_volume_scores_desc *desc, mover_arena *arena) {
    (void)take_backward(desc, arena);
}

static mover_status check(const backward_call *call, cudaError_t error) {
    return mover_cuda_check(call->groups.function, error);
}

template <int members> static mover_status launch_slopes(const backward_call *call, const mover_exec *exec) {
    if constexpr (members < 3) return MOVER_OK;
    const unsigned blocks = mover_blocks(mover_ceil_div(call->groups.m, THREADS), MOVER_MOST_BLOCKS);
    return check(call, MOVER_LAUNCH(slope_groups<members>, blocks, THREADS, 0, mover_stream(exec), *call));
}

template <int members> static mover_status launch_derivatives(const backward_call *call, const mover_exec *exec) {
    const unsigned blocks =
        mover_blocks(mover_ceil_div(call->last - call->first, COLUMNS) * call->chunks, MOVER_MOST_BLOCKS);
    const cudaStream_t stream = mover_stream(exec);
    if (call->groups.score == MOVER_SCORE_VOLUME)
        return check(call, MOVER_LAUNCH((derivative_cells<members, true>), blocks, COLUMNS, 0, stream, *call));
    return check(call, MOVER_LAUNCH((derivative_cells<members, members == 1>), blocks, COLUMNS, 0, stream, *call));
}

template <int members> static mover_status launch_others(const backward_call *call, const mover_exec *exec) {
    const unsigned blocks = mover_blocks(mover_ceil_div(call->groups.m, THREADS / WARP), MOVER_MOST_BLOCKS);
    return check(call, MOVER_LAUNCH(others_gradient<members>, blocks, THREADS, 0, mover_stream(exec), *call));
}

static mover_status sum_shares(const backward_call *call, const real *share, int64_t shares, int64_t count, real *sum,
                               const mover_exec *exec) {
    const unsigned blocks = mover_blocks(mover_ceil_div(count, THREADS), MOVER_MOST_BLOCKS);
    return check(call, MOVER_LAUNCH(add_shares, blocks, THREADS, 0, mover_stream(exec), share, shares, count, sum));
}

/* D of groups [first, last), then its two products. */
static mover_status backward_panel(backward_call *call, const mover_exec *exec) {
    const score_call *groups = &call->groups;
    const int64_t n = groups->n, d = groups->d, members = groups->members;
    const int64_t width = call->last - call->first, columns = width * members, offset = call->first * members * d;
    MOVER_TRY(SCORE_BY_MEMBERS(members, launch_derivatives, call, exec));
    call->first_block += mover_ceil_div(width, COLUMNS);
    if (call->grad_anchor) {
        real *product = call->of_anchor ? call->of_anchor : call->grad_anchor;
        const unsigned blocks = mover_blocks(mover_ceil_div(n, THREADS / WARP), MOVER_MOST_BLOCKS);
        if (call->last == groups->m)
            MOVER_TRY(sum_shares(call, call->row_share, call->first_block, n, call->row_sum, exec));
        MOVER_TRY(mover_cuda_product(groups->function, exec, REAL_DTYPE, groups->precision, 0, 0, n, d, columns,
                                     call->derivative, columns, groups->others + offset, d, product, d));
        MOVER_TRY(check(call, MOVER_LAUNCH(anchor_gradient, blocks, THREADS, 0, mover_stream(exec), *call)));
    }
    if (!call->grad_others) return MOVER_OK;
    return mover_cuda_product(groups->function, exec, REAL_DTYPE, groups->precision, 1, 0, columns, d, n,
                              call->derivative, columns, groups->anchor, d, call->of_others + offset, d);
}

mover_status R(mover_cuda_volume_scores_backward)(const mover_volume_scores_desc *desc, const real *anchor,
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
    MOVER_TRY(R(mover_cuda_score_groups)(&call.groups, anchor, others, mask, exec));
    if (desc->score == MOVER_SCORE_VOLUME) MOVER_TRY(SCORE_BY_MEMBERS(members, launch_slopes, &call, exec));
    for (; call.first < m; call.first += call.panel) {
        call.last = mover_min(m, call.first + call.panel);
        MOVER_TRY(backward_panel(&call, exec));
    }
    if (!grad_others) return MOVER_OK;
    MOVER_TRY(sum_shares(&call, call.group_share, call.chunks, call.entries * m, call.group_sum, exec));
    return SCORE_BY_MEMBERS(members, launch_others, &call, exec);
}
