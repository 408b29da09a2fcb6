/*
 * cost.cu: squared Euclidean distances, C_ij = |x_i - y_j|^2, and their gradient.
 *
 * C = |x|^2 + |y|^2 - 2 x.y costs one matrix product, but where C is much smaller than the norms its digits cancel.
 * Such "near" entries, C <= near (|x|^2 + |y|^2), are summed again from differences, in an order that is the same
 * whoever does it: four sums, the s-th over the columns t with t / 4 = s modulo 4, then a tree over the four.
 *
 * The product's rounding errors grow like sqrt(d), and the threshold with them.
 */
#include "cost.h"

#include "../src/backend.h"
#include "device.h"
#include "product.h"

#include "cost_product.cuh"
#include "reduce.cuh"

enum { THREADS = 256, WARPS = THREADS / WARP };

/* ---- squared norms ---------------------------------------------------------------------------------------------- */

/* norm[i] = |row_i|^2 of two sets of rows, summed in double; row_minimum[i] = infinity for the first set, where wanted.
 * A warp owns a row, its lanes every 32nd column. Each element is read once. */
static __global__ void __launch_bounds__(THREADS)
    norms_kernel(const real *x, real *norm_x, int64_t count_x, const real *y, real *norm_y, int64_t count_y, int64_t d,
                 real *row_minimum) {
    const int lane = (int)threadIdx.x % WARP;
    for (int64_t i = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP; i < count_x + count_y;
         i += (int64_t)gridDim.x * WARPS) {
        const bool of_x = i < count_x;
        const real *row = of_x ? x + i * d : y + (i - count_x) * d;
        double sum = 0;
        for (int64_t t = lane; t < d; t += WARP) sum = fma((double)row[t], (double)row[t], sum);
        sum = mover_warp_sum(sum);
        if (lane == 0) (of_x ? norm_x + i : norm_y + (i - count_x))[0] = (real)sum;
        if (lane == 0 && of_x && row_minimum) row_minimum[i] = (real)INFINITY;
    }
}

static mover_status make_norms(const char *function, const real *x, real *norm_x, int64_t count_x, const real *y,
                               real *norm_y, int64_t count_y, int64_t d, real *row_minimum, const mover_exec *exec) {
    const unsigned blocks = mover_blocks(mover_ceil_div(count_x + count_y, WARPS), MOVER_MOST_BLOCKS);
    return mover_cuda_check(function, MOVER_LAUNCH(norms_kernel, blocks, THREADS, 0, mover_stream(exec), x, norm_x,
                                                   count_x, y, norm_y, count_y, d, row_minimum));
}

mover_status R(mover_cuda_norms)(const char *function, int64_t count, int64_t d, const real *rows, real *norm,
                                 const mover_exec *exec) {
    return make_norms(function, rows, norm, count, NULL, NULL, 0, d, NULL, exec);
}

/* ---- sums of squared differences ---------------------------------------------------------------------------------
 */

enum { RUN = 4, SUMS = 4 }; /* columns that a sum takes in a row, and sums of an entry */

/* Columns [t, t + RUN) of a row, 0 beyond the last. */
template <bool aligned>
static __device__ __forceinline__ void load_run(const real *row, int64_t t, int64_t d, real (&run)[RUN]) {
    if (aligned) {
        MOVER_UNROLL
        for (int v = 0; v < RUN; v += REALS_PER_VECTOR) {
            real_vector four = {};
            if (t + v < d) four = *reinterpret_cast<const real_vector *>(row + t + v);
            run[v] = four.x;
            run[v + 1] = four.y;
#if MOVER_REAL_BITS == 32
            run[v + 2] = four.z;
            run[v + 3] = four.w;
#endif
        }
    } else {
        MOVER_UNROLL
        for (int e = 0; e < RUN; e++) run[e] = t + e < d ? row[t + e] : 0;
    }
}

/* |x_i - y_j|^2 for some rows of either side, by a group of SUMS lanes that name the same rows; each of them gets all.
 */
template <bool aligned, int rows, int columns>
static __device__ __forceinline__ void add_differences(const real *const (&x)[rows], const real *const (&y)[columns],
                                                       int64_t d, real (&sum)[rows][columns]) {
    MOVER_UNROLL
    for (int i = 0; i < rows; i++) {
        MOVER_UNROLL
        for (int j = 0; j < columns; j++) sum[i][j] = 0;
    }
    MOVER_NO_UNROLL
    for (int64_t t = (int64_t)(threadIdx.x % SUMS) * RUN; t < d; t += SUMS * RUN) {
        real run_x[rows][RUN], run_y[columns][RUN];
        MOVER_UNROLL
        for (int i = 0; i < rows; i++) load_run<aligned>(x[i], t, d, run_x[i]);
        MOVER_UNROLL
        for (int j = 0; j < columns; j++) load_run<aligned>(y[j], t, d, run_y[j]);
        MOVER_UNROLL
        for (int i = 0; i < rows; i++) {
            MOVER_UNROLL
            for (int j = 0; j < columns; j++) {
                MOVER_UNROLL
                for (int e = 0; e < RUN; e++) {
                    const real difference = run_x[i][e] - run_y[j][e];
                    sum[i][j] = fma(difference, difference, sum[i][j]);
                }
            }
        }
    }
    MOVER_UNROLL
    for (int i = 0; i < rows; i++) {
        MOVER_UNROLL
        for (int j = 0; j < columns; j++) sum[i][j] = mover_lanes_sum<SUMS>(sum[i][j]);
    }
}

/* ---- distances -------------------------------------------------------------------------------------------------- */

namespace {

typedef struct costs_call {
    const real *x, *y, *norm_x, *norm_y;
    real *out, *row_minimum;
    int64_t n, m, d, tiles_n, tiles_m, tiles; /* tiles of all problems */
    real near, scale;
    bool vectors; /* out is written in vectors */
} costs_call;

/* A warp takes regions of 16 x 16 entries of a tile. Lane (a, b) of 4 x 8 owns rows a + 4 r and columns b + 8 c. */
enum { REGION = 16, OWN_ROWS = 4, OWN_COLUMNS = 2, OWN = OWN_ROWS * OWN_COLUMNS };

/* With more near entries than this all of a region are summed, in blocks of BLOCK x BLOCK, which read less for each. */
enum { FEW = 32, BLOCK = MOVER_REAL_BITS == 32 ? 4 : 2 };

/* The part of a problem that a tile covers. */
typedef struct tile_place {
    tile_source rows;
    const real *norm_x, *norm_y;
    real *out, *row_minimum;
    int64_t next; /* the next tile of the block */
} tile_place;

} // namespace

/* The near entries of a region, one for each group of SUMS lanes at a time: these take from each other what waits. */
template <int side, bool aligned>
static __device__ __forceinline__ void repair_few(const tile_source &rows, int64_t d, real *tile, int row, int column,
                                                  unsigned near, real scale) {
    const int lane = (int)threadIdx.x % WARP, leader = lane / SUMS * SUMS;
    MOVER_NO_UNROLL
    for (int e = 0; e < OWN; e++) {
        const unsigned lanes = __ballot_sync(0xffffffffu, near >> e & 1);
        unsigned waiting = lanes >> leader & ((1u << SUMS) - 1);
        while (true) {
            const int more = __any_sync(0xffffffffu, waiting != 0);
            if (!more) break;
            const int owner = waiting ? leader + __ffs((int)waiting) - 1 : lane;
            const int i = row + owner / 8 + 4 * (e / OWN_COLUMNS), j = column + owner % 8 + 8 * (e % OWN_COLUMNS);
            const real *const x[1] = {rows.x + (waiting ? i : 0) * d}, *const y[1] = {rows.y + (waiting ? j : 0) * d};
            real sum[1][1];
            add_differences<aligned>(x, y, d, sum);
            if (waiting && owner == lane) tile[i * (side + TILE_PAD) + j] = scale * sum[0][0];
            waiting &= waiting - 1;
        }
    }
}

/* All entries of a region, of which those that are negative are kept. A group of SUMS lanes takes blocks. */
template <int side, bool aligned>
static __device__ __forceinline__ void repair_many(const tile_source &rows, int64_t d, real *tile, int row, int column,
                                                   real scale) {
    const int lane = (int)threadIdx.x % WARP, across = REGION / BLOCK;
    MOVER_NO_UNROLL
    for (int block = lane / SUMS; block < across * across; block += WARP / SUMS) {
        const int first_i = row + block / across * BLOCK, first_j = column + block % across * BLOCK;
        const real *x[BLOCK], *y[BLOCK];
        real sum[BLOCK][BLOCK];
        MOVER_UNROLL
        for (int e = 0; e < BLOCK; e++) {
            x[e] = rows.x + (first_i + e < rows.n ? first_i + e : 0) * d;
            y[e] = rows.y + (first_j + e < rows.m ? first_j + e : 0) * d;
        }
        add_differences<aligned>(x, y, d, sum);
        MOVER_UNROLL
        for (int i = 0; i < BLOCK; i++) {
            MOVER_UNROLL
            for (int j = 0; j < BLOCK; j++) {
                real *entry = tile + (first_i + i) * (side + TILE_PAD) + first_j + j;
                if (lane % SUMS == (i * BLOCK + j) % SUMS && *entry < 0) *entry = scale * sum[i][j];
            }
        }
    }
}

/* A tile of products becomes scaled distances, in place: each warp some of its regions. */
template <int side, bool aligned>
static __device__ __forceinline__ void finish_tile(const tile_place &at, int64_t d, real *tile, real threshold,
                                                   real scale) {
    const int across = side / REGION, warps = tile_layout<side>::threads / WARP, lane = (int)threadIdx.x % WARP;
    MOVER_NO_UNROLL
    for (int region = (int)threadIdx.x / WARP; region < across * across; region += warps) {
        const int row = region / across * REGION, column = region % across * REGION;
        unsigned near = 0;
        MOVER_UNROLL
        for (int e = 0; e < OWN; e++) {
            const int i = row + lane / 8 + 4 * (e / OWN_COLUMNS), j = column + lane % 8 + 8 * (e % OWN_COLUMNS);
            if (i >= at.rows.n || j >= at.rows.m) continue;
            real *entry = tile + i * (side + TILE_PAD) + j;
            const real sum = at.norm_x[i] + at.norm_y[j], distance = fma((real)-2, *entry, sum);
            /* A NaN passes and stays. */
            const bool is_near = distance <= threshold * sum;
            near |= (unsigned)is_near << e;
            *entry = is_near ? -1 : scale * distance;
        }
        const unsigned count = __reduce_add_sync(0xffffffffu, (unsigned)__popc(near));
        if (count == 0) continue;
        __syncwarp();
        if (count > FEW)
            repair_many<side, aligned>(at.rows, d, tile, row, column, scale);
        else
            repair_few<side, aligned>(at.rows, d, tile, row, column, near, scale);
    }
}

/* Numbers >= 0 are ordered as the integers with the same bits; NaN is made smaller than all. */
#if MOVER_REAL_BITS == 32
typedef int real_bits;
static __device__ __forceinline__ int order_bits(float x) { return x >= 0 ? __float_as_int(x) : (int)0xffc00000; }
#else
typedef long long real_bits;
static __device__ __forceinline__ long long order_bits(double x) {
    return x >= 0 ? __double_as_longlong(x) : (long long)0xfff8000000000000;
}
#endif

/* The tile to global memory, and the smallest entry of each of its rows into row_minimum: a minimum of integers, which
 * is the same in any order. `side / REALS_PER_VECTOR` neighbouring threads own a row's vectors. */
template <int side>
static __device__ __forceinline__ void write_tile(const tile_place &at, const real *tile, int64_t m, bool vectors) {
    const int threads = tile_layout<side>::threads, width = side / REALS_PER_VECTOR;
    MOVER_NO_UNROLL
    for (int p = 0; p < side * width / threads; p++) {
        const int q = (int)threadIdx.x + p * threads, i = q / width, j = q % width * REALS_PER_VECTOR;
        const real_vector vector = *reinterpret_cast<const real_vector *>(tile + i * (side + TILE_PAD) + j);
#if MOVER_REAL_BITS == 32
        const real entry[4] = {vector.x, vector.y, vector.z, vector.w};
#else
        const real entry[2] = {vector.x, vector.y};
#endif
        real_bits least = order_bits((real)INFINITY);
        MOVER_UNROLL
        for (int e = 0; e < REALS_PER_VECTOR; e++)
            if (i < at.rows.n && j + e < at.rows.m) {
                const real_bits bits = order_bits(entry[e]);
                least = bits < least ? bits : least;
                if (!vectors) at.out[i * m + j + e] = entry[e];
            }
        if (vectors && i < at.rows.n && j < at.rows.m) *reinterpret_cast<real_vector *>(at.out + i * m + j) = vector;
        if (!at.row_minimum) continue;
        MOVER_UNROLL
        for (int offset = width / 2; offset > 0; offset /= 2) {
            const real_bits other = __shfl_xor_sync(0xffffffffu, least, offset);
            least = other < least ? other : least;
        }
        if (q % width == 0 && i < at.rows.n) atomicMin(reinterpret_cast<real_bits *>(at.row_minimum + i), least);
    }
}

/* Neighbouring tiles share the rows of the longer side. */
template <int side> static __device__ __forceinline__ tile_place place_tile(const costs_call &call, int64_t tile) {
    const int64_t each = call.tiles_n * call.tiles_m, b = tile / each, in = tile % each;
    const bool short_n = call.tiles_n <= call.tiles_m;
    const int64_t i = (short_n ? in % call.tiles_n : in / call.tiles_m) * side;
    const int64_t j = (short_n ? in / call.tiles_n : in % call.tiles_m) * side;
    tile_place at;
    at.rows.x = call.x + (b * call.n + i) * call.d;
    at.rows.y = call.y + (b * call.m + j) * call.d;
    at.rows.n = call.n - i < side ? (int)(call.n - i) : side;
    at.rows.m = call.m - j < side ? (int)(call.m - j) : side;
    at.norm_x = call.norm_x + b * call.n + i;
    at.norm_y = call.norm_y + b * call.m + j;
    at.out = call.out + (b * call.n + i) * call.m + j;
    at.row_minimum = call.row_minimum ? call.row_minimum + b * call.n + i : NULL;
    at.next = tile + gridDim.x;
    return at;
}

/* out = scale |x_i - y_j|^2 for a batch of problems. A block owns tiles of side x side entries, one after the other, a
 * thread what tile_layout and REGION give it. Shared memory: tile_memory<side>::reals elements and a tile_place. Each
 * tile reads its 2 side rows and writes each entry once. Deterministic: no sum crosses a tile, the minimum of a row is
 * exact. */
template <int side, bool aligned, bool tf32>
static __global__ void __launch_bounds__(tile_layout<side>::threads, tile_layout<side>::least_blocks)
    costs_kernel(costs_call call) {
    MOVER_SHARED_DYNAMIC(real, tile);
    /* Not in registers, which the products need. */
    tile_place *const at = reinterpret_cast<tile_place *>(tile + tile_memory<side>::reals);
    int64_t q = blockIdx.x;
    MOVER_NO_UNROLL
    while (q < call.tiles) {
        if (threadIdx.x == 0) at[0] = place_tile<side>(call, q);
        __syncthreads();
        product_tile<side, aligned, tf32>(at[0].rows, call.d, tile);
        __syncthreads();
        finish_tile<side, aligned>(at[0], call.d, tile, call.near, call.scale);
        __syncthreads();
        write_tile<side>(at[0], tile, call.m, call.vectors);
        q = at[0].next;
        __syncthreads();
    }
}

template <int side, bool aligned, bool tf32>
static mover_status launch_costs(const char *function, costs_call call, int64_t batch, const mover_exec *exec) {
    const void *kernel = (const void *)costs_kernel<side, aligned, tf32>;
    const size_t shared_bytes = tile_memory<side>::reals * sizeof(real) + sizeof(tile_place);
    call.tiles_n = mover_ceil_div(call.n, side);
    call.tiles_m = mover_ceil_div(call.m, side);
    call.tiles = batch * call.tiles_n * call.tiles_m;
    MOVER_TRY(mover_allow_shared(function, kernel, shared_bytes));
    return mover_cuda_check(
        function, MOVER_LAUNCH((costs_kernel<side, aligned, tf32>), mover_blocks(call.tiles, MOVER_MOST_BLOCKS),
                               (unsigned)tile_layout<side>::threads, shared_bytes, mover_stream(exec), call));
}

template <int side, bool aligned>
static mover_status choose_costs(const char *function, const costs_call &call, int64_t batch, bool tf32,
                                 const mover_exec *exec) {
#if MOVER_REAL_BITS == 32
    if (tf32) return launch_costs<side, aligned, true>(function, call, batch, exec);
#else
    (void)tf32;
#endif
    return launch_costs<side, aligned, false>(function, call, batch, exec);
}

static bool in_vectors(const void *data, int64_t width) {
    return (uintptr_t)data % sizeof(real_vector) == 0 && width % REALS_PER_VECTOR == 0;
}

static mover_status make_costs(const char *function, int side, int64_t batch, costs_call call,
                               mover_precision precision, const mover_exec *exec) {
    const double least = MOVER_REAL_BITS == 32 ? 0.1 : 1e-4, growth = sqrt((double)call.d / 1024);
    const bool aligned = in_vectors(call.x, call.d) && in_vectors(call.y, call.d);
    const bool tf32 = precision == MOVER_PRECISION_TF32;
    if (batch == 0 || call.n == 0 || call.m == 0) return MOVER_OK;
    call.near = (real)(least * (growth > 1 ? growth : 1));
    call.vectors = in_vectors(call.out, call.m);
#if MOVER_REAL_BITS == 32
    if (aligned && side == 128) return choose_costs<128, true>(function, call, batch, tf32, exec);
#endif
    if (side >= 64)
        return aligned ? choose_costs<64, true>(function, call, batch, tf32, exec)
                       : choose_costs<64, false>(function, call, batch, tf32, exec);
    return aligned ? choose_costs<32, true>(function, call, batch, tf32, exec)
                   : choose_costs<32, false>(function, call, batch, tf32, exec);
}

enum { ENOUGH_TILES = 96 }; /* to keep a large device busy */

int R(mover_cuda_tile_side)(int64_t batch, int64_t n, int64_t m) {
    for (int side = 128; side > 32; side /= 2)
        if (mover_min(n, m) > side / 2 && batch * mover_ceil_div(n, side) * mover_ceil_div(m, side) >= ENOUGH_TILES)
            return side;
    return 32;
}

mover_status R(mover_cuda_tiled_costs)(const char *function, int side, int64_t n, int64_t m, int64_t d, const real *x,
                                       const real *norm_x, const real *y, const real *norm_y, real scale,
                                       mover_precision precision, real *out, const mover_exec *exec) {
    costs_call call = {};
    call.x = x, call.y = y, call.norm_x = norm_x, call.norm_y = norm_y;
    call.n = n, call.m = m, call.d = d;
    call.scale = scale, call.out = out;
    return make_costs(function, side, 1, call, precision, exec);
}

mover_status R(mover_cuda_scaled_costs)(const char *function, int64_t n, int64_t m, int64_t d, const real *x,
                                        const real *norm_x, const real *y, const real *norm_y, real scale,
                                        mover_precision precision, real *out, const mover_exec *exec) {
    return R(mover_cuda_tiled_costs)(function, R(mover_cuda_tile_side)(1, n, m), n, m, d, x, norm_x, y, norm_y, scale,
                                     precision, out, exec);
}

R(mover_cuda_cost_scratch) R(mover_cuda_cost_take)(mover_arena *arena, int64_t batch, int64_t n, int64_t m) {
    R(mover_cuda_cost_scratch) scratch;
    scratch.norm_x = (real *)mover_take(arena, batch, n, sizeof(real));
    scratch.norm_y = (real *)mover_take(arena, batch, m, sizeof(real));
    return scratch;
}

mover_status R(mover_cuda_costs)(const char *function, int64_t batch, int64_t n, int64_t m, int64_t d, const real *x,
                                 const real *y, mover_precision precision, real *cost, real *row_minimum,
                                 const R(mover_cuda_cost_scratch) * scratch, const mover_exec *exec) {
    costs_call call = {};
    if (batch == 0 || n == 0 || m == 0) return MOVER_OK;
    call.x = x, call.y = y, call.norm_x = scratch->norm_x, call.norm_y = scratch->norm_y;
    call.n = n, call.m = m, call.d = d;
    call.scale = 1, call.out = cost, call.row_minimum = row_minimum;
    MOVER_TRY(make_norms(function, x, scratch->norm_x, batch * n, y, scratch->norm_y, batch * m, d, row_minimum, exec));
    return make_costs(function, R(mover_cuda_tile_side)(batch, n, m), batch, call, precision, exec);
}

void R(mover_cuda_cost_layout)(const mover_cost_desc *desc, mover_arena *arena) {
    (void)R(mover_cuda_cost_take)(arena, desc->batch, desc->n, desc->m);
}

mover_status R(mover_cuda_cost_forward)(const mover_cost_desc *desc, const real *x, const real *y, real *cost,
                                        void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    const R(mover_cuda_cost_scratch) scratch = R(mover_cuda_cost_take)(&arena, desc->batch, desc->n, desc->m);
    return R(mover_cuda_costs)("mover_cost_forward", desc->batch, desc->n, desc->m, desc->d, x, y, desc->precision,
                               cost, NULL, &scratch, exec);
}

/* ---- gradient --------------------------------------------------------------------------------------------------- */

enum { CHUNK = 256 }; /* rows that a block adds up for the sums of columns */

/* sum[i] = sum_j matrix[i, j]: a warp owns a row, its lanes every 32nd column. Each element is read once. */
static __global__ void __launch_bounds__(THREADS)
    row_sums_kernel(const real *matrix, int64_t rows, int64_t m, real *sums) {
    const int lane = (int)threadIdx.x % WARP;
    for (int64_t i = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP; i < rows; i += (int64_t)gridDim.x * WARPS) {
        real sum = 0;
        for (int64_t j = lane; j < m; j += WARP) sum += matrix[i * m + j];
        sum = mover_warp_sum(sum);
        if (lane == 0) sums[i] = sum;
    }
}

/* partial[b, chunk, j] = sum of matrix[b, i, j] over a chunk of rows. A block owns 32 columns of a chunk, a warp every
 * 8th row of it, a lane one column; the warps are added up in order. Shared: 1 KB (float), 2 KB (double). Each element
 * is read once. */
static __global__ void __launch_bounds__(THREADS)
    column_sums_kernel(const real *matrix, int64_t batch, int64_t n, int64_t m, int64_t chunks, real *partial) {
    MOVER_SHARED(real, sums, [WARPS][WARP]);
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int64_t strips = (m + WARP - 1) / WARP;
    for (int64_t q = blockIdx.x; q < batch * chunks * strips; q += gridDim.x) {
        const int64_t strip = q % strips, chunk = q / strips % chunks, b = q / strips / chunks;
        const int64_t j = strip * WARP + lane, last = (chunk + 1) * CHUNK < n ? (chunk + 1) * CHUNK : n;
        real sum = 0;
        if (j < m)
            for (int64_t i = chunk * CHUNK + warp; i < last; i += WARPS) sum += matrix[(b * n + i) * m + j];
        sums[warp][lane] = sum;
        __syncthreads();
        if (warp == 0 && j < m) {
            real all = sums[0][lane];
            MOVER_UNROLL
            for (int w = 1; w < WARPS; w++) all += sums[w][lane];
            partial[(b * chunks + chunk) * m + j] = all;
        }
        __syncthreads();
    }
}

/* sums[b, j] = sum of partial[b, chunk, j] over the chunks, in order; a thread owns a column. */
static __global__ void __launch_bounds__(THREADS)
    add_chunks_kernel(const real *partial, int64_t batch, int64_t chunks, int64_t m, real *sums) {
    for (int64_t q = (int64_t)blockIdx.x * THREADS + threadIdx.x; q < batch * m; q += (int64_t)gridDim.x * THREADS) {
        const int64_t b = q / m, j = q % m;
        real sum = 0;
        for (int64_t chunk = 0; chunk < chunks; chunk++) sum += partial[(b * chunks + chunk) * m + j];
        sums[q] = sum;
    }
}

/* out = 2 (sums_i rows_i - out); sums NULL: 0. A warp owns a row. Reads two elements and writes one. */
static __global__ void __launch_bounds__(THREADS)
    combine_kernel(const real *rows, const real *sums, int64_t count, int64_t d, real *out) {
    for (int64_t i = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP; i < count; i += (int64_t)gridDim.x * WARPS) {
        const real sum = sums ? sums[i] : 0;
        for (int64_t t = i * d + threadIdx.x % WARP; t < (i + 1) * d; t += WARP) out[t] = 2 * (sum * rows[t] - out[t]);
    }
}

static int64_t chunks_of(int64_t n) { return mover_max(1, mover_ceil_div(n, CHUNK)); }

R(mover_cuda_cost_gradient_scratch)
R(mover_cuda_cost_gradient_take)(mover_arena *arena, int64_t batch, int64_t n, int64_t m) {
    R(mover_cuda_cost_gradient_scratch) scratch;
    scratch.sum_x = (real *)mover_take(arena, batch, n, sizeof(real));
    scratch.sum_y = (real *)mover_take(arena, batch, m, sizeof(real));
    scratch.partial = (real *)mover_take(arena, batch * chunks_of(n), m, sizeof(real));
    return scratch;
}

/* The products D y or D^T x of each problem, then `out` from them. */
static mover_status combine(const char *function, int transpose, int64_t batch, int64_t n, int64_t m, int64_t d,
                            const real *grad, const real *others, const real *rows, const real *sums,
                            mover_precision precision, real *out, const mover_exec *exec) {
    const int64_t count = transpose ? m : n, depth = transpose ? n : m;
    for (int64_t b = 0; b < batch; b++)
        MOVER_TRY(mover_cuda_product(function, exec, REAL_DTYPE, precision, transpose, 0, count, d, depth,
                                     grad + b * n * m, m, others + b * depth * d, d, out + b * count * d, d));
    return mover_cuda_check(
        function, MOVER_LAUNCH(combine_kernel, mover_blocks(mover_ceil_div(batch * count, WARPS), MOVER_MOST_BLOCKS),
                               THREADS, 0, mover_stream(exec), rows, sums, batch * count, d, out));
}

static mover_status sum_columns(const char *function, int64_t batch, int64_t n, int64_t m, const real *matrix,
                                const R(mover_cuda_cost_gradient_scratch) * scratch, const mover_exec *exec) {
    const int64_t chunks = chunks_of(n), strips = mover_ceil_div(m, WARP);
    MOVER_CUDA_TRY(function,
                   MOVER_LAUNCH(column_sums_kernel, mover_blocks(batch * chunks * strips, MOVER_MOST_BLOCKS), THREADS,
                                0, mover_stream(exec), matrix, batch, n, m, chunks, scratch->partial));
    return mover_cuda_check(
        function, MOVER_LAUNCH(add_chunks_kernel, mover_blocks(mover_ceil_div(batch * m, THREADS), MOVER_MOST_BLOCKS),
                               THREADS, 0, mover_stream(exec), scratch->partial, batch, chunks, m, scratch->sum_y));
}

mover_status R(mover_cuda_cost_gradient)(const char *function, int64_t batch, int64_t n, int64_t m, int64_t d,
                                         const real *x, const real *y, mover_precision precision, const real *grad,
                                         const real *summed, real *grad_x, real *grad_y,
                                         const R(mover_cuda_cost_gradient_scratch) * scratch, const mover_exec *exec) {
    if (grad_x && batch * n * d > 0) {
        const unsigned blocks = mover_blocks(mover_ceil_div(batch * n, WARPS), MOVER_MOST_BLOCKS);
        if (summed)
            MOVER_CUDA_TRY(function, MOVER_LAUNCH(row_sums_kernel, blocks, THREADS, 0, mover_stream(exec), summed,
                                                  batch * n, m, scratch->sum_x));
        MOVER_TRY(
            combine(function, 0, batch, n, m, d, grad, y, x, summed ? scratch->sum_x : NULL, precision, grad_x, exec));
    }
    if (grad_y && batch * m * d > 0) {
        if (summed) MOVER_TRY(sum_columns(function, batch, n, m, summed, scratch, exec));
        MOVER_TRY(
            combine(function, 1, batch, n, m, d, grad, x, y, summed ? scratch->sum_y : NULL, precision, grad_y, exec));
    }
    return MOVER_OK;
}

void R(mover_cuda_cost_backward_layout)(const mover_cost_desc *desc, mover_arena *arena) {
    (void)R(mover_cuda_cost_gradient_take)(arena, desc->batch, desc->n, desc->m);
}

mover_status R(mover_cuda_cost_backward)(const mover_cost_desc *desc, const real *x, const real *y,
                                         const real *grad_cost, real *grad_x, real *grad_y, void *workspace,
                                         const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    const R(mover_cuda_cost_gradient_scratch) scratch =
        R(mover_cuda_cost_gradient_take)(&arena, desc->batch, desc->n, desc->m);
    return R(mover_cuda_cost_gradient)("mover_cost_backward", desc->batch, desc->n, desc->m, desc->d, x, y,
                                       desc->precision, grad_cost, grad_cost, grad_x, grad_y, &scratch, exec);
}
