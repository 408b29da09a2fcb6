/*
 * contrast.cu: cross entropy of a square matrix of scores whose positives lie on the diagonal, both ways.
 *
 *     L = scale * scores,   R_i = log sum_j exp L_ij,   C_j = log sum_i exp L_ij
 *     loss = (mean R + mean C) / 2 - (1 - s) mean L_ii - s mean L_ij                  s = label_smoothing
 *     dloss/dL_ij = (exp(L_ij - R_i) + exp(L_ij - C_j)) / 2n - s / n^2 - [i = j] (1 - s) / n
 *
 * With `negatives` the sums leave the diagonal out. The scores are read once forward and once backward, in tiles of
 * ROWS x COLUMNS that leave shares of the rows' and columns' sums, each about the largest logit of its own; shares are
 * added in the order of the tiles. No sum goes over two problems but that of grad_scale.
 */
#include "real.h"

#include "../src/backend.h"

#include "device.h"
#include "reduce.cuh"

/* A tile: a thread holds a column of it, and lane l of a warp ends with the sums of row l % ROWS. */
enum { ROWS = 128 / (int)sizeof(real), COLUMNS = 256, WARPS = COLUMNS / WARP };

static const unsigned FULL = 0xffffffffu;

namespace {

typedef struct contrast_call {
    int64_t batch, n;
    int64_t row_tiles, column_tiles; /* of one problem */
    int64_t merged_blocks;           /* blocks of the rows, or of the columns, of one problem */
    int negatives;
    double weight, smooth, positive;    /* 1 / 2n, s / n^2, (1 - s) / n */
    const real *scores, *scale;         /* (batch, n, n), (1) or NULL */
    const real *row_sums, *column_sums; /* (batch, n): R and C */
    const real *grad_loss;              /* (batch) */
    real *rows, *columns, *loss;        /* (batch, n) twice, (batch) */
    real *grad_scores, *grad_scale;     /* (batch, n, n), (1) or NULL */
    real *row_most, *row_sum;           /* (batch, column_tiles, n): of a tile's rows the largest logit and the sum of
                                           exp(L - most) */
    real *column_most, *column_sum;     /* (batch, row_tiles, n) */
    double *share;                      /* (batch, row_tiles, column_tiles): sums of L; backward: of dL scores */
} contrast_call;

/* The tile that a block works on. */
typedef struct tile {
    int64_t b, first; /* problem, first row */
    int64_t j;        /* the thread's column */
    int rows;         /* in the matrix */
    int column;       /* column j is in the matrix */
    int diagonal;     /* its row in the tile, if there is one, of the positive of column j */
} tile;

} // namespace

static __device__ __forceinline__ tile tile_of(const contrast_call *call, int64_t number) {
    tile at;
    const int64_t across = number / call->column_tiles;
    at.b = across / call->row_tiles;
    at.first = across % call->row_tiles * ROWS;
    at.j = number % call->column_tiles * COLUMNS + threadIdx.x;
    const int64_t below = call->n - at.first;
    at.rows = below < ROWS ? (int)below : (int)ROWS;
    at.column = at.j < call->n;
    at.diagonal = at.j >= at.first && at.j < at.first + at.rows ? (int)(at.j - at.first) : -1;
    return at;
}

/* e^x for x that is not much above 0. */
static __device__ __forceinline__ real exponential(real x) { return mover_exp2(x * (real)1.4426950408889634074); }

static __device__ __forceinline__ real larger(real a, real b) { return b > a ? b : a; }

template <bool sum> static __device__ __forceinline__ real join(real a, real b) { return sum ? a + b : larger(a, b); }

/* The largest, or the sum, over the warp of each of the ROWS numbers of its lanes: lane l gets that of row l % ROWS. In
 * the step of `half` a lane gives away half of its numbers and keeps those of the rows whose bit `half` is its own. */
template <bool sum, int half = ROWS / 2> static __device__ __forceinline__ real across_warp(real (&value)[ROWS]) {
    const bool upper = threadIdx.x & half;
    MOVER_UNROLL
    for (int r = 0; r < half; r++) {
        const real mine = upper ? value[r + half] : value[r], given = upper ? value[r] : value[r + half];
        value[r] = join<sum>(mine, __shfl_xor_sync(FULL, given, half));
    }
    if constexpr (half > 1) return across_warp<sum, half / 2>(value);
    if constexpr (ROWS == 16) value[0] = join<sum>(value[0], __shfl_xor_sync(FULL, value[0], 16));
    return value[0];
}

/* ---- forward ------------------------------------------------------------------------------------------------------
 */

/* Shares of R, C and the sum of L. A block owns a tile, a thread a column of it, in registers: the column's sums stay
 * in the thread, those of the rows go through the warp by shuffles and through WARPS * ROWS numbers of shared memory.
 * Reads each score once, takes two exponentials of it; writes 2 numbers for ROWS and 2 for COLUMNS scores. */
static __global__ void __launch_bounds__(COLUMNS) forward_tiles(contrast_call call) {
    MOVER_SHARED(real, of_warps, [WARPS][ROWS]);
    MOVER_SHARED(double, shares, [WARPS]);
    const int64_t n = call.n, tiles = call.batch * call.row_tiles * call.column_tiles;
    const int warp = threadIdx.x / WARP, row = threadIdx.x % ROWS;
    const real scale = call.scale ? *call.scale : 1;
    for (int64_t number = blockIdx.x; number < tiles; number += gridDim.x) {
        const tile at = tile_of(&call, number);
        const int left_out = call.negatives ? at.diagonal : -1, rows = at.column ? at.rows : 0;
        const real *scores = call.scores + (at.b * n + at.first) * n + at.j;
        real logit[ROWS], value[ROWS], total = 0, most = -REAL_MAX, sum = 0;
        MOVER_UNROLL
        for (int r = 0; r < ROWS; r++) logit[r] = r < rows ? scale * scores[r * n] : 0;
        MOVER_UNROLL
        for (int r = 0; r < ROWS; r++) {
            total += logit[r];
            value[r] = r < rows && r != left_out ? logit[r] : -REAL_MAX;
            most = larger(most, value[r]);
        }
        MOVER_UNROLL
        for (int r = 0; r < ROWS; r++)
            if (r < rows && r != left_out) sum += exponential(logit[r] - most) + 0 * logit[r];
        if (at.column) {
            const int64_t to = (number / call.column_tiles) * n + at.j;
            call.column_most[to] = most;
            call.column_sum[to] = sum;
        }

        const real most_of_warp = across_warp<false>(value);
        if (threadIdx.x % WARP < ROWS) of_warps[warp][row] = most_of_warp;
        __syncthreads();
        real row_most = of_warps[0][row];
        MOVER_UNROLL
        for (int w = 1; w < WARPS; w++) row_most = larger(row_most, of_warps[w][row]);
        MOVER_UNROLL
        for (int r = 0; r < ROWS; r++) {
            const real about = __shfl_sync(FULL, row_most, r);
            value[r] = r < rows && r != left_out ? exponential(logit[r] - about) + 0 * logit[r] : 0;
        }
        const real sum_of_warp = across_warp<true>(value);
        __syncthreads();
        if (threadIdx.x % WARP < ROWS) of_warps[warp][row] = sum_of_warp;
        __syncthreads();
        if ((int)threadIdx.x < at.rows) {
            real row_sum = 0;
            MOVER_UNROLL
            for (int w = 0; w < WARPS; w++) row_sum += of_warps[w][row];
            const int64_t to = (at.b * call.column_tiles + number % call.column_tiles) * n + at.first + row;
            call.row_most[to] = row_most;
            call.row_sum[to] = row_sum;
        }
        const double share = mover_block_sum<COLUMNS>((double)total, shares);
        if (threadIdx.x == 0) call.share[number] = share;
    }
}

enum { MERGED = 32, PARTS = 8 };

/* R and C: log-sum-exp over the shares of the tiles. A block owns MERGED rows, or columns, of one problem; PARTS
 * threads share one, each every PARTS-th tile. Reads each share twice. */
static __global__ void __launch_bounds__(MERGED *PARTS) merge_tiles(contrast_call call) {
    MOVER_SHARED(real, mosts, [PARTS][MERGED]);
    MOVER_SHARED(double, sums, [PARTS][MERGED]);
    const int64_t n = call.n, across = call.merged_blocks, blocks = 2 * call.batch * across;
    const int column = threadIdx.x % MERGED, part = threadIdx.x / MERGED;
    for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
        const int64_t b = block / across % call.batch, q = block % across * MERGED + column;
        const int of_rows = block < call.batch * across;
        const int64_t tiles = of_rows ? call.column_tiles : call.row_tiles;
        const real *most = (of_rows ? call.row_most : call.column_most) + b * tiles * n + q;
        const real *sum = (of_rows ? call.row_sum : call.column_sum) + b * tiles * n + q;
        real largest = -REAL_MAX;
        if (q < n)
            for (int64_t t = part; t < tiles; t += PARTS) largest = larger(largest, most[t * n]);
        mosts[part][column] = largest;
        __syncthreads();
        for (int p = 0; p < PARTS; p++) largest = larger(largest, mosts[p][column]);
        double total = 0;
        if (q < n)
            for (int64_t t = part; t < tiles; t += PARTS)
                total += (double)(sum[t * n] * exponential(most[t * n] - largest));
        sums[part][column] = total;
        __syncthreads();
        if (part == 0 && q < n) {
            for (int p = 1; p < PARTS; p++) total += sums[p][column];
            (of_rows ? call.rows : call.columns)[b * n + q] = largest + log((real)total);
        }
        __syncthreads();
    }
}

/* The loss of a problem, by one block. Reads R, C, the diagonal and the tiles' sums. */
static __global__ void __launch_bounds__(COLUMNS) losses(contrast_call call) {
    MOVER_SHARED(double, shares, [WARPS]);
    const int64_t n = call.n, tiles = call.row_tiles * call.column_tiles;
    const double scale = call.scale ? (double)*call.scale : 1;
    for (int64_t b = blockIdx.x; b < call.batch; b += gridDim.x) {
        double sums = 0, positives = 0, total = 0;
        for (int64_t i = threadIdx.x; i < n; i += COLUMNS) {
            sums += (double)call.rows[b * n + i] + (double)call.columns[b * n + i];
            positives += scale * (double)call.scores[(b * n + i) * n + i];
        }
        for (int64_t t = threadIdx.x; t < tiles; t += COLUMNS) total += call.share[b * tiles + t];
        sums = mover_block_sum<COLUMNS>(sums, shares);
        positives = mover_block_sum<COLUMNS>(positives, shares);
        total = mover_block_sum<COLUMNS>(total, shares);
        if (threadIdx.x == 0)
            call.loss[b] = (real)(sums * call.weight - positives * call.positive - total * call.smooth + 0 * total);
    }
}

/* ---- backward -----------------------------------------------------------------------------------------------------
 */

enum { IN_FLIGHT = 16 / (int)sizeof(real) };

/* grad_scores and shares of grad_scale. A block owns a tile, a thread a column of it, IN_FLIGHT rows at a time. Reads
 * and writes each score once, takes two exponentials of it. */
static __global__ void __launch_bounds__(COLUMNS, 3) backward_tiles(contrast_call call) {
    MOVER_SHARED(double, shares, [WARPS]);
    const int64_t n = call.n, tiles = call.batch * call.row_tiles * call.column_tiles;
    const real scale = call.scale ? *call.scale : 1;
    for (int64_t number = blockIdx.x; number < tiles; number += gridDim.x) {
        const tile at = tile_of(&call, number);
        const int64_t from = (at.b * n + at.first) * n + at.j;
        const double upstream = (double)call.grad_loss[at.b];
        const real weight = (real)(upstream * call.weight), smooth = (real)(upstream * call.smooth);
        const real positive = (real)(upstream * call.positive);
        const real *scores = call.scores + from, *of_rows = call.row_sums + at.b * n + at.first;
        const real of_column = at.column ? call.column_sums[at.b * n + at.j] : 0;
        const int rows = at.column ? at.rows : 0;
        real *grad = call.grad_scores + from, sum = 0;
        MOVER_NO_UNROLL
        for (int first = 0; first < rows; first += IN_FLIGHT) {
            real score[IN_FLIGHT];
            MOVER_UNROLL
            for (int r = 0; r < IN_FLIGHT; r++) score[r] = first + r < rows ? scores[(first + r) * n] : 0;
            MOVER_UNROLL
            for (int r = 0; r < IN_FLIGHT; r++) {
                if (first + r >= rows) continue;
                const real logit = scale * score[r], by_row = logit - of_rows[first + r], by_column = logit - of_column;
                real value = weight * (exponential(by_row) + exponential(by_column)) + 0 * (by_row + by_column);
                if (first + r == at.diagonal) value = (call.negatives ? 0 : value) - positive;
                value -= smooth;
                grad[(first + r) * n] = scale * value;
                sum += value * score[r];
            }
        }
        if (call.grad_scale) {
            const double share = mover_block_sum<COLUMNS>((double)sum, shares);
            if (threadIdx.x == 0) call.share[number] = share;
        }
    }
}

/* One block. */
static __global__ void __launch_bounds__(COLUMNS) sum_shares(contrast_call call) {
    MOVER_SHARED(double, shares, [WARPS]);
    const int64_t tiles = call.batch * call.row_tiles * call.column_tiles;
    double sum = 0;
    for (int64_t t = threadIdx.x; t < tiles; t += COLUMNS) sum += call.share[t];
    sum = mover_block_sum<COLUMNS>(sum, shares);
    if (threadIdx.x == 0) *call.grad_scale = (real)sum;
}

/* ---------------------------------------------------------------------------------------------------------------------
 */

static contrast_call describe(const mover_contrast_desc *desc, const real *scores, const real *scale) {
    contrast_call call = {};
    call.batch = desc->batch;
    call.n = desc->n;
    call.row_tiles = mover_ceil_div(desc->n, ROWS);
    call.column_tiles = mover_ceil_div(desc->n, COLUMNS);
    call.merged_blocks = mover_ceil_div(desc->n, MERGED);
    call.negatives = desc->denominator == MOVER_DENOMINATOR_NEGATIVES;
    const double count = (double)mover_max(1, desc->n), smoothing = desc->label_smoothing;
    call.weight = 1 / (2 * count);
    call.smooth = smoothing / (count * count);
    call.positive = (1 - smoothing) / count;
    call.scores = scores;
    call.scale = scale;
    return call;
}

static void take_share(contrast_call *call, mover_arena *arena) {
    call->share = (double *)mover_take(arena, call->batch * call->row_tiles, call->column_tiles, sizeof(double));
}

static void take(contrast_call *call, mover_arena *arena) {
    call->row_most = (real *)mover_take(arena, call->batch * call->column_tiles, call->n, sizeof(real));
    call->row_sum = (real *)mover_take(arena, call->batch * call->column_tiles, call->n, sizeof(real));
    call->column_most = (real *)mover_take(arena, call->batch * call->row_tiles, call->n, sizeof(real));
    call->column_sum = (real *)mover_take(arena, call->batch * call->row_tiles, call->n, sizeof(real));
    take_share(call, arena);
}

void R(mover_cuda_contrast_layout)(const mover_contrast_desc *desc, mover_arena *arena) {
    contrast_call call = describe(desc, NULL, NULL);
    take(&call, arena);
}

void R(mover_cuda_contrast_backward_layout)(const mover_contrast_desc *desc, mover_arena *arena) {
    contrast_call call = describe(desc, NULL, NULL);
    take_share(&call, arena);
}

static unsigned tile_blocks(const contrast_call *call) {
    return mover_blocks(call->batch * call->row_tiles * call->column_tiles, MOVER_MOST_BLOCKS);
}

mover_status R(mover_cuda_contrast_forward)(const mover_contrast_desc *desc, const real *scores, const real *scale,
                                            real *loss, real *rows, real *columns, void *workspace,
                                            const mover_exec *exec) {
    static const char function[] = "mover_contrast_forward";
    mover_arena arena = mover_arena_over(workspace);
    contrast_call call = describe(desc, scores, scale);
    take(&call, &arena);
    call.loss = loss;
    call.rows = rows;
    call.columns = columns;
    const unsigned merged = mover_blocks(2 * call.batch * call.merged_blocks, MOVER_MOST_BLOCKS);
    MOVER_CUDA_TRY(function, MOVER_LAUNCH(forward_tiles, tile_blocks(&call), COLUMNS, 0, mover_stream(exec), call));
    MOVER_CUDA_TRY(function, MOVER_LAUNCH(merge_tiles, merged, MERGED * PARTS, 0, mover_stream(exec), call));
    MOVER_CUDA_TRY(function, MOVER_LAUNCH(losses, mover_blocks(call.batch, MOVER_MOST_BLOCKS), COLUMNS, 0,
                                          mover_stream(exec), call));
    return MOVER_OK;
}

mover_status R(mover_cuda_contrast_backward)(const mover_contrast_desc *desc, const real *scores, const real *scale,
                                             const real *rows, const real *columns, const real *grad_loss,
                                             real *grad_scores, real *grad_scale, void *workspace,
                                             const mover_exec *exec) {
    static const char function[] = "mover_contrast_backward";
    mover_arena arena = mover_arena_over(workspace);
    contrast_call call = describe(desc, scores, scale);
    take_share(&call, &arena);
    call.row_sums = rows;
    call.column_sums = columns;
    call.grad_loss = grad_loss;
    call.grad_scores = grad_scores;
    call.grad_scale = grad_scale;
    MOVER_CUDA_TRY(function, MOVER_LAUNCH(backward_tiles, tile_blocks(&call), COLUMNS, 0, mover_stream(exec), call));
    if (grad_scale) MOVER_CUDA_TRY(function, MOVER_LAUNCH(sum_shares, 1, COLUMNS, 0, mover_stream(exec), call));
    return MOVER_OK;
}
