/*
 * expected_volume.cu: the sum of the volumes of all triples of three sets of unit rows, from squared distances.
 *
 *     S = sum_{i,j,l} p_ij q_il r_jl Vol(alpha_ij, beta_il, gamma_jl),   alpha, beta, gamma = c12/2, c13/2, c23/2
 *
 *     t = (beta - gamma) + alpha (1 - beta),   Vol^2 = alpha (2 - alpha) beta (2 - beta) - t^2
 *     dVol/dalpha = ((1 - alpha) beta (2 - beta) - t (1 - beta)) / Vol,   dVol/dgamma = t / Vol
 *
 * and dVol/dbeta as dVol/dalpha, alpha and beta exchanged. Three passes have one kernel: each pair of sets in turn owns
 * the triples, and for every cell of its matrix the kernel sums w Vol and w dVol/dcell over the third set, where w is
 * the product of the weights of the other two pairs. The first sum is the gradient of the cell's weight, and times that
 * weight a share of S; the second, times that weight, the gradient of its alpha.
 *
 * Dependent is what triple_square finds so, as on the CPU. Alphas being at most 2, it never does above
 * 128 REAL_EPSILON: a thread assumes independence, remembers the least square, and makes a chunk of its sums again,
 * with the test, where that was not above twice the bound.
 *
 * Sums of CHUNK terms and what they add up to are in `real`; shares of S, and sums of parts, in double.
 */
#include "real.h"

#include "alpha_volume.cuh"
#include "reduce.cuh"

#include "../src/backend.h"
#include "device.h"

enum {
    SIDE = 16, /* threads along a side of a tile */
    THREADS = SIDE * SIDE,
    CELLS = REALS_PER_VECTOR, /* of a thread along a side: what one vector load brings */
    TILE = SIDE * CELLS,
    LEAD = TILE + CELLS,            /* of a row in shared memory: keeps vectors aligned and transposed stores apart */
    CHUNK = 4 * CELLS,              /* of the third set */
    LOADS = TILE * CHUNK / THREADS, /* of a thread for a side of a chunk */
    ENOUGH_BLOCKS = 512,
    MOST_PARTS = 8,
    LEAST_PART = 2 * CHUNK,
    VALUE_THREADS = 1024
};

#define SURELY (256 * REAL_EPSILON)

enum { OWN_12, OWN_13, OWN_23, PASSES };

/* A matrix whose rows belong to the rows of a tile, or to its columns, and whose columns are summed over. */
typedef struct swept {
    const real *cost, *weight; /* weight NULL: ones */
    int64_t row, column;       /* strides */
} swept;

/* One pair of sets as the owner. x shares the first set with it, or, where (2, 3) owns, with y. */
typedef struct pass {
    int own;
    int64_t rows, columns, summed; /* of the pair's matrix; of the third set */
    const real *cost, *weight;     /* (rows, columns) */
    swept x, y;                    /* (rows, summed), (columns, summed) */
    real *grad_c, *grad_p;         /* (rows, columns), or NULL */
    real *part_c, *part_p;         /* (parts, rows, columns); the gradients themselves where there is one part */
    int64_t across, blocks;        /* tiles along a row; blocks of the pass: parts of tiles */
} pass;

typedef struct triples {
    pass passes[PASSES];
    int count;              /* of passes */
    int parts;              /* of the third set, each summed by a block of its own */
    int64_t blocks;         /* of all passes */
    const real *grad_value; /* of S; NULL: 1 */
    double *block_sum;      /* (blocks of the first pass): shares of S, or NULL */
} triples;

static __device__ __forceinline__ void load_vector(const real *from, real (&to)[CELLS]) {
    const real_vector vector = *reinterpret_cast<const real_vector *>(from);
    to[0] = vector.x;
    to[1] = vector.y;
#if MOVER_REAL_BITS == 32
    to[2] = vector.z;
    to[3] = vector.w;
#endif
}

static __device__ __forceinline__ void add_vector(const real (&values)[CELLS], real *to) {
    real_vector vector = *reinterpret_cast<const real_vector *>(to);
    vector.x += values[0];
    vector.y += values[1];
#if MOVER_REAL_BITS == 32
    vector.z += values[2];
    vector.w += values[3];
#endif
    *reinterpret_cast<real_vector *>(to) = vector;
}

/* NaN where the cost is not finite. */
static __device__ __forceinline__ real alpha_of(real cost) { return half_cost(cost) + 0 * cost; }

/* ---- shared memory -----------------------------------------------------------------------------------------------
 *
 * A chunk of both sides, [CHUNK][LEAD] each, and of every thread what its cells have added up to. */

enum { X, XX, WX, X1, Y, YY, WY, ARRAYS, ARRAY = CHUNK * LEAD, TOTALS = ARRAYS * ARRAY };

static size_t shared_bytes(bool gradient) {
    return (size_t)(TOTALS + (gradient ? 2 : 1) * CELLS * CELLS * THREADS) * sizeof(real);
}

/* Row and column of the elements of a chunk that this thread brings, and the steps to its next: along the rows if that
 * is how they lie in memory, else along the columns. */
typedef struct share {
    int row, column, row_step, column_step;
} share;

static __device__ __forceinline__ share share_of(const swept &side) {
    const int thread = (int)threadIdx.x;
    if (side.column == 1) return {thread / CHUNK, thread % CHUNK, THREADS / CHUNK, 0};
    return {thread % TILE, thread / TILE, 0, THREADS / TILE};
}

/* to = functions of the alphas and weights of TILE rows and CHUNK columns, arrays ARRAY apart. A weight that is not
 * finite spoils its alpha, so that it shows even where the volume is 0. Behind the end of the rows or columns: anything
 * finite, the weight 0. */
static __device__ __forceinline__ void load_chunk(const swept &side, int64_t first_row, int64_t rows,
                                                  int64_t first_column, int64_t columns, bool is_x, real *to) {
    const share mine = share_of(side);
    const int64_t row = first_row + mine.row, column = first_column + mine.column;
    const int64_t offset = row * side.row + column * side.column;
    const int64_t step = mine.row_step * side.row + mine.column_step * side.column;
    real alpha[LOADS], weight[LOADS];
    MOVER_UNROLL
    for (int q = 0; q < LOADS; q++) {
        const bool exists = row + q * mine.row_step < rows && column + q * mine.column_step < columns;
        alpha[q] = exists ? alpha_of(side.cost[offset + q * step]) : real(1);
        weight[q] = !exists ? real(0) : side.weight ? side.weight[offset + q * step] : real(1);
    }
    to += mine.column * LEAD + mine.row;
    MOVER_UNROLL
    for (int q = 0; q < LOADS; q++, to += mine.column_step * LEAD + mine.row_step) {
        const real value = alpha[q] + 0 * weight[q];
        to[0] = value;
        to[ARRAY] = value * (2 - value);
        to[2 * ARRAY] = weight[q];
        if (is_x) to[3 * ARRAY] = 1 - value;
    }
}

/* ---- a chunk of the sums ------------------------------------------------------------------------------------------
 */

/* Every square is taken for that of independent rows. Returns the least. */
template <bool gradient, bool own_23>
static __device__ __forceinline__ real add_chunk(const real *shared, int count, const real (&own)[CELLS][CELLS],
                                                 const real (&own2)[CELLS][CELLS], real (&sum_c)[CELLS][CELLS],
                                                 real (&sum_p)[CELLS][CELLS]) {
    const real *row = shared + threadIdx.x / SIDE * CELLS, *column = shared + threadIdx.x % SIDE * CELLS;
    real least = 1;
    for (int l = 0; l < count; l++, row += LEAD, column += LEAD) {
        real x[CELLS], x1[CELLS], xx[CELLS], wx[CELLS], y[CELLS], yy[CELLS], wy[CELLS];
        load_vector(row + X * ARRAY, x);
        load_vector(row + X1 * ARRAY, x1);
        load_vector(row + XX * ARRAY, xx);
        load_vector(row + WX * ARRAY, wx);
        load_vector(column + Y * ARRAY, y);
        if (own_23) load_vector(column + YY * ARRAY, yy);
        load_vector(column + WY * ARRAY, wy);
        MOVER_UNROLL
        for (int a = 0; a < CELLS; a++) {
            MOVER_UNROLL
            for (int b = 0; b < CELLS; b++) {
                const real mine = own[a][b], t = own_23 ? (x[a] - mine) + y[b] * x1[a] : (x[a] - y[b]) + mine * x1[a];
                const real square = xx[a] * (own_23 ? yy[b] : own2[a][b]) - t * t;
                const real scale = mover_rsqrt(square) * (wx[a] * wy[b]);
                const real slope = own_23 ? t : (xx[a] - mine * xx[a]) - t * x1[a];
                least = fmin(least, square);
                sum_p[a][b] += scale * square;
                if (gradient) sum_c[a][b] += scale * slope;
            }
        }
    }
    return least;
}

/* With the test, for the same thread's cells. */
template <bool gradient>
static __device__ __forceinline__ void add_chunk_tested(const real *shared, int count, int kind,
                                                        const real (&own)[CELLS][CELLS], real (&sum_c)[CELLS][CELLS],
                                                        real (&sum_p)[CELLS][CELLS]) {
    const real *row = shared + threadIdx.x / SIDE * CELLS, *column = shared + threadIdx.x % SIDE * CELLS;
    for (int l = 0; l < count; l++, row += LEAD, column += LEAD) {
        MOVER_UNROLL
        for (int a = 0; a < CELLS; a++) {
            const real x = row[X * ARRAY + a], wx = row[WX * ARRAY + a];
            MOVER_UNROLL
            for (int b = 0; b < CELLS; b++) {
                const real y = column[Y * ARRAY + b], w = wx * column[WY * ARRAY + b], mine = own[a][b];
                const real alpha = kind == OWN_12 ? mine : x, gamma = kind == OWN_23 ? mine : y;
                const real beta = kind == OWN_12 ? x : kind == OWN_13 ? mine : y;
                real t;
                const real square = triple_square(alpha, beta, gamma, &t);
                const real scale = w * inverse_volume(square);
                const real slope = kind == OWN_23 ? t : (1 - mine) * (x * (2 - x)) - t * (1 - x);
                sum_p[a][b] += scale * square;
                if (gradient) sum_c[a][b] += scale * slope;
            }
        }
    }
}

/* ---- the kernel ---------------------------------------------------------------------------------------------------
 */

/* A block owns a tile of TILE x TILE cells and a part of the third set; a thread CELLS x CELLS of them, in its
 * registers. Both sides of the tile are read once, chunk by chunk, which another block of the multiprocessor sums while
 * this one waits; a cell of the gradients is written once. Shared memory: shared_bytes(). */
template <bool gradient> static __global__ void __launch_bounds__(THREADS, 2) sum_triples(triples call) {
    MOVER_SHARED_DYNAMIC(real, shared);
    MOVER_SHARED(double, warp_sum, [THREADS / 32]);
    MOVER_SHARED(pass, mine, );
    const int thread = (int)threadIdx.x;
    real *totals = shared + TOTALS + thread * CELLS;
    for (int64_t block = blockIdx.x; block < call.blocks; block += gridDim.x) {
        int64_t here = block;
        int number = 0;
        while (here >= call.passes[number].blocks) here -= call.passes[number++].blocks;
        __syncthreads();
        if (thread == 0) mine = call.passes[number];
        __syncthreads();
        const int64_t tile = here / call.parts, part = here % call.parts;
        const int64_t tile_row = tile / mine.across * TILE, tile_column = tile % mine.across * TILE;
        const int64_t first_row = tile_row + thread / SIDE * CELLS, first_column = tile_column + thread % SIDE * CELLS;
        const int64_t length = (mine.summed + call.parts * CHUNK - 1) / (call.parts * CHUNK) * CHUNK;
        const int64_t begin = part * length, end = mine.summed < begin + length ? mine.summed : begin + length;
        const bool inside = first_row < mine.rows && first_column < mine.columns;
        real own[CELLS][CELLS], own2[CELLS][CELLS];
        MOVER_UNROLL
        for (int a = 0; a < CELLS; a++) {
            MOVER_UNROLL
            for (int b = 0; b < CELLS; b++) {
                const bool exists = first_row + a < mine.rows && first_column + b < mine.columns;
                own[a][b] = exists ? alpha_of(mine.cost[(first_row + a) * mine.columns + first_column + b]) : real(1);
                own2[a][b] = own[a][b] * (2 - own[a][b]);
            }
        }
        MOVER_UNROLL
        for (int q = 0; q < (gradient ? 2 : 1) * CELLS; q++) {
            MOVER_UNROLL
            for (int b = 0; b < CELLS; b++) totals[q * CELLS * THREADS + b] = 0;
        }
        for (int64_t chunk = begin; chunk < end; chunk += CHUNK) {
            real sum_c[CELLS][CELLS] = {}, sum_p[CELLS][CELLS] = {};
            const int count = end - chunk < CHUNK ? (int)(end - chunk) : CHUNK;
            load_chunk(mine.x, tile_row, mine.rows, chunk, end, true, shared + X * ARRAY);
            load_chunk(mine.y, tile_column, mine.columns, chunk, end, false, shared + Y * ARRAY);
            __syncthreads();
            if (inside) {
                const real least = mine.own == OWN_23
                                       ? add_chunk<gradient, true>(shared, count, own, own2, sum_c, sum_p)
                                       : add_chunk<gradient, false>(shared, count, own, own2, sum_c, sum_p);
                if (!(least > SURELY)) {
                    MOVER_UNROLL
                    for (int a = 0; a < CELLS; a++) {
                        MOVER_UNROLL
                        for (int b = 0; b < CELLS; b++) sum_c[a][b] = sum_p[a][b] = 0;
                    }
                    add_chunk_tested<gradient>(shared, count, mine.own, own, sum_c, sum_p);
                }
                MOVER_UNROLL
                for (int a = 0; a < CELLS; a++) {
                    add_vector(sum_p[a], totals + a * CELLS * THREADS);
                    if (gradient) add_vector(sum_c[a], totals + (CELLS + a) * CELLS * THREADS);
                }
            }
            __syncthreads();
        }
        const real upstream = gradient && call.grad_value ? *call.grad_value : real(1);
        double value = 0;
        MOVER_UNROLL
        for (int a = 0; a < CELLS; a++) {
            MOVER_UNROLL
            for (int b = 0; b < CELLS; b++) {
                if (first_row + a >= mine.rows || first_column + b >= mine.columns) continue;
                const int64_t cell = (first_row + a) * mine.columns + first_column + b;
                const int64_t place = part * mine.rows * mine.columns + cell;
                const real weight = mine.weight ? mine.weight[cell] : real(1);
                const real total_p = totals[a * CELLS * THREADS + b];
                value += (double)weight * (double)total_p;
                if (gradient && mine.part_c)
                    mine.part_c[place] = upstream * weight / 2 * totals[(CELLS + a) * CELLS * THREADS + b];
                if (gradient && mine.part_p) mine.part_p[place] = upstream * total_p;
            }
        }
        if (number > 0 || !call.block_sum) continue;
        value = mover_block_sum<THREADS>(value, warp_sum);
        if (thread == 0) call.block_sum[here] = value;
    }
}

/* A gradient from its parts. grid.y: two for every pass. */
static __global__ void __launch_bounds__(THREADS) add_parts(triples call) {
    const pass &mine = call.passes[blockIdx.y / 2];
    const real *parts = blockIdx.y % 2 ? mine.part_p : mine.part_c;
    real *grad = blockIdx.y % 2 ? mine.grad_p : mine.grad_c;
    const int64_t cells = grad ? mine.rows * mine.columns : 0, stride = (int64_t)gridDim.x * THREADS;
    for (int64_t cell = (int64_t)blockIdx.x * THREADS + threadIdx.x; cell < cells; cell += stride) {
        double sum = 0;
        for (int part = 0; part < call.parts; part++) sum += (double)parts[part * cells + cell];
        grad[cell] = (real)sum;
    }
}

/* S from the shares of `count` blocks. One block. */
static __global__ void __launch_bounds__(VALUE_THREADS)
    add_values(int64_t count, const double *__restrict__ block_sum, real *__restrict__ value) {
    MOVER_SHARED(double, warp_sum, [VALUE_THREADS / 32]);
    double sum = 0;
    for (int64_t block = threadIdx.x; block < count; block += VALUE_THREADS) sum += block_sum[block];
    sum = mover_block_sum<VALUE_THREADS>(sum, warp_sum);
    if (threadIdx.x == 0) *value = (real)sum;
}

/* ---- calls -------------------------------------------------------------------------------------------------------
 */

static pass pass_of(const mover_expected_volume_desc *desc, int own) {
    const int64_t n1 = desc->n1, n2 = desc->n2, n3 = desc->n3;
    pass out = {};
    out.own = own;
    out.rows = own == OWN_23 ? n2 : n1;
    out.columns = own == OWN_12 ? n2 : n3;
    out.summed = own == OWN_12 ? n3 : own == OWN_13 ? n2 : n1;
    out.x.row = own == OWN_12 ? n3 : own == OWN_13 ? n2 : 1;
    out.x.column = own == OWN_23 ? n2 : 1;
    out.y.row = own == OWN_12 ? n3 : 1;
    out.y.column = own == OWN_12 ? 1 : n3;
    out.across = mover_ceil_div(out.columns, TILE);
    out.blocks = mover_ceil_div(out.rows, TILE) * out.across;
    return out;
}

/* Parts fill a device where tiles alone do not, unless they become short. */
static int parts_for(const mover_expected_volume_desc *desc, int64_t tiles) {
    const int64_t longest = mover_max(desc->n1, mover_max(desc->n2, desc->n3));
    const int64_t most = mover_min(MOST_PARTS, longest / LEAST_PART);
    return (int)mover_max(1, mover_min(most, ENOUGH_BLOCKS / mover_max(1, tiles)));
}

/* The sums of the pass that needs the fewest operations, without gradients. */
static triples take_forward(const mover_expected_volume_desc *desc, mover_arena *arena) {
    triples call = {};
    pass *only = &call.passes[0];
    *only = pass_of(desc, OWN_23);
    call.count = 1;
    call.parts = parts_for(desc, only->blocks);
    only->blocks *= call.parts;
    call.blocks = only->blocks;
    call.block_sum = (double *)mover_take(arena, only->blocks, 1, sizeof(double));
    return call;
}

/* All three passes, whatever is wanted. */
static triples take_backward(const mover_expected_volume_desc *desc, mover_arena *arena) {
    triples call = {};
    int64_t tiles = 0, most = 0;
    call.count = PASSES;
    for (int own = 0; own < PASSES; own++) {
        call.passes[own] = pass_of(desc, own);
        tiles += call.passes[own].blocks;
    }
    call.parts = parts_for(desc, tiles);
    for (int own = 0; own < PASSES; own++) {
        pass *one = &call.passes[own];
        one->blocks *= call.parts;
        most = mover_max(most, one->blocks);
        if (call.parts == 1) continue;
        one->part_c = (real *)mover_take(arena, call.parts * one->rows, one->columns, sizeof(real));
        one->part_p = (real *)mover_take(arena, call.parts * one->rows, one->columns, sizeof(real));
    }
    call.block_sum = (double *)mover_take(arena, most, 1, sizeof(double));
    return call;
}

static void set_inputs(triples *call, const real *c12, const real *c13, const real *c23, const real *p12,
                       const real *p13, const real *p23) {
    for (int number = 0; number < call->count; number++) {
        pass *one = &call->passes[number];
        const int own = one->own;
        one->cost = own == OWN_12 ? c12 : own == OWN_13 ? c13 : c23;
        one->weight = own == OWN_12 ? p12 : own == OWN_13 ? p13 : p23;
        one->x.cost = own == OWN_12 ? c13 : c12;
        one->x.weight = own == OWN_12 ? p13 : p12;
        one->y.cost = own == OWN_23 ? c13 : c23;
        one->y.weight = own == OWN_23 ? p13 : p23;
    }
}

template <bool gradient>
static mover_status launch(const char *function, const triples *call, real *value, cudaStream_t stream) {
    const size_t bytes = shared_bytes(gradient);
    MOVER_TRY(mover_allow_shared(function, (const void *)sum_triples<gradient>, bytes));
    if (call->blocks > 0)
        MOVER_CUDA_TRY(function, MOVER_LAUNCH(sum_triples<gradient>, mover_blocks(call->blocks, MOVER_MOST_BLOCKS),
                                              THREADS, bytes, stream, *call));
    if (!value) return MOVER_OK;
    return mover_cuda_check(function, MOVER_LAUNCH(add_values, 1, VALUE_THREADS, 0, stream, call->passes[0].blocks,
                                                   call->block_sum, value));
}

void R(mover_cuda_expected_volume_layout)(const mover_expected_volume_desc *desc, mover_arena *arena) {
    (void)take_forward(desc, arena);
}

mover_status R(mover_cuda_expected_volume_forward)(const mover_expected_volume_desc *desc, const real *c12,
                                                   const real *c13, const real *c23, const real *p12, const real *p13,
                                                   const real *p23, real *value, void *workspace,
                                                   const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    triples call = take_forward(desc, &arena);
    set_inputs(&call, c12, c13, c23, p12, p13, p23);
    return launch<false>("mover_expected_volume_forward", &call, value, mover_stream(exec));
}

void R(mover_cuda_expected_volume_backward_layout)(const mover_expected_volume_desc *desc, mover_arena *arena) {
    (void)take_backward(desc, arena);
}

/* Leaves out passes without a wanted gradient, but not all where the value is wanted. */
static void keep_wanted(triples *call, int value) {
    int kept = 0;
    call->blocks = 0;
    for (int number = 0; number < call->count; number++) {
        const pass one = call->passes[number];
        if (!one.grad_c && !one.grad_p && !(value && kept == 0 && number == call->count - 1)) continue;
        call->passes[kept++] = one;
        call->blocks += one.blocks;
    }
    call->count = kept;
}

mover_status R(mover_cuda_expected_volume_backward)(const mover_expected_volume_desc *desc, const real *c12,
                                                    const real *c13, const real *c23, const real *p12, const real *p13,
                                                    const real *p23, const real *grad_value, real *value,
                                                    real *grad_c12, real *grad_c13, real *grad_c23, real *grad_p12,
                                                    real *grad_p13, real *grad_p23, void *workspace,
                                                    const mover_exec *exec) {
    static const char function[] = "mover_expected_volume_backward";
    const cudaStream_t stream = mover_stream(exec);
    real *const grad_c[] = {grad_c12, grad_c13, grad_c23}, *const grad_p[] = {grad_p12, grad_p13, grad_p23};
    mover_arena arena = mover_arena_over(workspace);
    triples call = take_backward(desc, &arena);
    int64_t most = 0;
    set_inputs(&call, c12, c13, c23, p12, p13, p23);
    for (int own = 0; own < PASSES; own++) {
        pass *one = &call.passes[own];
        one->grad_c = grad_c[own];
        one->grad_p = grad_p[own];
        if (call.parts == 1 || !grad_c[own]) one->part_c = grad_c[own];
        if (call.parts == 1 || !grad_p[own]) one->part_p = grad_p[own];
        most = mover_max(most, one->rows * one->columns);
    }
    keep_wanted(&call, value != NULL);
    if (call.count == 0) return MOVER_OK;
    call.grad_value = grad_value;
    if (!value) call.block_sum = NULL;
    MOVER_TRY(launch<true>(function, &call, value, stream));
    if (call.parts == 1 || most == 0) return MOVER_OK;
    const dim3 grid(mover_blocks(mover_ceil_div(most, THREADS), ENOUGH_BLOCKS), (unsigned)(2 * call.count));
    return mover_cuda_check(function, MOVER_LAUNCH(add_parts, grid, THREADS, 0, stream, call));
}
