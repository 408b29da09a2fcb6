/*
 * team.cuh: who works on a transport problem, and how its rows are dealt to threads.
 *
 * A team passes over a problem in phases with a barrier between them: of the block, whose shared memory holds the
 * problem, or of all blocks of a cooperative launch. The work of a phase is a list of items, each done by one block;
 * what an item writes belongs to it alone, and no item reads what another one of its phase writes.
 *
 * A row belongs to a group of threads, a warp or the block. Thread t of a group of G owns the columns
 * (k G + t) V ... (k G + t) V + V - 1 of a tile, V being the numbers in 16 bytes: loads are of 16 bytes where addresses
 * allow, else one by one, and the same thread has the same column either way. Sums over a row run over the columns of
 * a thread, then over the lanes, then over the warps: they depend on m only.
 */
#ifndef MOVER_CUDA_TEAM_CUH
#define MOVER_CUDA_TEAM_CUH

#include "planner.h"
#include "portable.h"
#include "real.h"
#include "reduce.cuh"

enum { THREADS = PLANNER_THREADS, WARPS = THREADS / WARP, VECTOR = REALS_PER_VECTOR };
enum { ROW_NUMBERS = 2, COLUMN_NUMBERS = 5, VECTOR_NUMBERS = 4 }; /* sums of each phase */
enum { MOST_ROWS = 8 };                                            /* that a group has in flight */

/* `rows` rows at a time, `columns` elements of each in a thread; wide: a row is several tiles, read in turn. */
namespace {
template <planner_team team_, planner_row row_> struct team_shape {
    static constexpr planner_team team = team_;
    static constexpr bool wide = row_ == PLANNER_WIDE;
    static constexpr int group = row_ == PLANNER_WARP ? WARP : THREADS;
    static constexpr int groups = THREADS / group;
    static constexpr int vectors = row_ == PLANNER_BLOCK_1                     ? 1
                                   : row_ == PLANNER_BLOCK_2 || wide           ? 2
                                                                               : 4;
    static constexpr int columns = vectors * VECTOR;
    static constexpr int tile = group * columns;
    static constexpr int rows = MOST_ROWS / vectors;
};
} // namespace

/* Shared memory of a block for its reductions. */
typedef struct team_scratch {
    double numbers[WARPS][COLUMN_NUMBERS];
    double slices[THREADS];
    real sums[2][THREADS];
    real reduce[2][WARPS][MOST_ROWS];
} team_scratch;

/* All threads of the team wait for each other. */
template <class S> static __device__ __forceinline__ void team_barrier() {
    if (S::team == PLANNER_GRID)
        mover_grid_sync();
    else
        __syncthreads();
}

/* Items [first, last) of the block. */
template <class S> static __device__ __forceinline__ void team_items(int64_t items, int64_t *first, int64_t *last) {
    const int64_t block = S::team == PLANNER_GRID ? blockIdx.x : 0, blocks = S::team == PLANNER_GRID ? gridDim.x : 1;
    *first = items / blocks * block + items % blocks * block / blocks;
    *last = items / blocks * (block + 1) + items % blocks * (block + 1) / blocks;
}

template <class S> static __device__ __forceinline__ int team_group() { return (int)threadIdx.x / S::group; }
template <class S> static __device__ __forceinline__ int team_place() { return (int)threadIdx.x % S::group; }

/* ---- rows of a matrix ------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ void split(const float4 &from, float *to) {
    to[0] = from.x;
    to[1] = from.y;
    to[2] = from.z;
    to[3] = from.w;
}

static __device__ __forceinline__ void split(const double2 &from, double *to) {
    to[0] = from.x;
    to[1] = from.y;
}

static __device__ __forceinline__ float4 join(const float *from) {
    return make_float4(from[0], from[1], from[2], from[3]);
}

static __device__ __forceinline__ double2 join(const double *from) { return make_double2(from[0], from[1]); }

/* The first column of vector k of a thread. */
template <class S> static __device__ __forceinline__ int64_t column_of(int64_t tile, int k) {
    return tile * S::tile + (int64_t)(k * S::group + team_place<S>()) * VECTOR;
}

/* x = the thread's columns of a row of `width` numbers, `fill` beyond them. vectors: the row starts on 16 bytes. */
template <class S>
static __device__ __forceinline__ void load_columns(real (&x)[S::columns], const real *row, int64_t width, int vectors,
                                                    int64_t tile, real fill) {
    MOVER_UNROLL
    for (int k = 0; k < S::vectors; k++) {
        const int64_t j = column_of<S>(tile, k);
        if (vectors && j + VECTOR <= width) {
            split(*reinterpret_cast<const real_vector *>(row + j), x + k * VECTOR);
        } else {
            MOVER_UNROLL
            for (int q = 0; q < VECTOR; q++) x[k * VECTOR + q] = j + q < width ? row[j + q] : fill;
        }
    }
}

template <class S>
static __device__ __forceinline__ void store_columns(const real (&x)[S::columns], real *row, int64_t width, int vectors,
                                                     int64_t tile) {
    MOVER_UNROLL
    for (int k = 0; k < S::vectors; k++) {
        const int64_t j = column_of<S>(tile, k);
        if (vectors && j + VECTOR <= width) {
            *reinterpret_cast<real_vector *>(row + j) = join(x + k * VECTOR);
        } else {
            MOVER_UNROLL
            for (int q = 0; q < VECTOR; q++)
                if (j + q < width) row[j + q] = x[k * VECTOR + q];
        }
    }
}

template <class S> static __device__ __forceinline__ void clear_columns(real (&x)[S::columns]) {
    MOVER_UNROLL
    for (int c = 0; c < S::columns; c++) x[c] = 0;
}

/* 1 where rows of `width` numbers from `matrix` on all start on 16 bytes. */
static __device__ __forceinline__ int whole_vectors(const void *matrix, int64_t width) {
    return reinterpret_cast<uintptr_t>(matrix) % 16 == 0 && width % VECTOR == 0;
}

/* ---- sums ------------------------------------------------------------------------------------------------------- */

/* x[r] summed over the group, or its largest, for every thread of it. What a thread of the group read before, another
 * may write after. `turn` changes between two halves of the scratch: one barrier a call. */
template <class S, bool largest>
static __device__ __forceinline__ void reduce_rows(real (&x)[S::rows], team_scratch &scratch, int &turn) {
    MOVER_UNROLL
    for (int r = 0; r < S::rows; r++) x[r] = largest ? mover_warp_max(x[r]) : mover_warp_sum(x[r]);
    if (S::group == WARP) {
        __syncwarp();
        return;
    }
    const int warp = (int)threadIdx.x / WARP;
    if (threadIdx.x % WARP == 0) {
        MOVER_UNROLL
        for (int r = 0; r < S::rows; r++) scratch.reduce[turn][warp][r] = x[r];
    }
    __syncthreads();
    MOVER_UNROLL
    for (int r = 0; r < S::rows; r++) {
        x[r] = scratch.reduce[turn][0][r];
        MOVER_UNROLL
        for (int w = 1; w < WARPS; w++) {
            const real other = scratch.reduce[turn][w][r];
            x[r] = largest ? fmax(x[r], other) : x[r] + other;
        }
    }
    turn ^= 1;
}

/* Column sums of a chunk: of all warps in order, each having summed its own rows, or as they are in the threads. `rows`
 * (WARPS, m up to 16 bytes) is shared. All threads of the block. */
template <class S>
static __device__ __forceinline__ void store_sums(const real (&x)[S::columns], real *out, int64_t m, int vectors,
                                                  real *rows) {
    if (S::group == THREADS) {
        if (!S::wide) store_columns<S>(x, out, m, vectors, 0);
        return;
    }
    const int64_t width = (m + VECTOR - 1) / VECTOR * VECTOR;
    store_columns<S>(x, rows + team_group<S>() * width, width, 1, 0);
    __syncthreads();
    for (int64_t j = threadIdx.x; j < m; j += THREADS) {
        real sum = 0;
        for (int w = 0; w < WARPS; w++) sum += rows[w * width + j];
        out[j] = sum;
    }
    __syncthreads();
}

/* Column sums of a tile of the wide shape, added to those of earlier rows of the chunk. The thread's own columns. */
template <class S>
static __device__ __forceinline__ void add_sums(const real (&x)[S::columns], real *out, int64_t m, int64_t tile,
                                                int earlier) {
    MOVER_UNROLL
    for (int k = 0; k < S::vectors; k++) {
        const int64_t j = column_of<S>(tile, k);
        MOVER_UNROLL
        for (int q = 0; q < VECTOR; q++)
            if (j + q < m) out[j + q] = (earlier ? out[j + q] : 0) + x[k * VECTOR + q];
    }
}

/* part[which, item] = number[which] summed over the block; with `last_is_largest` the last is its largest instead. All
 * threads of the block. */
template <int count>
static __device__ __forceinline__ void store_numbers(const double (&number)[count], double *part, int64_t items,
                                                     int64_t item, team_scratch &scratch, bool last_is_largest) {
    const int warp = (int)threadIdx.x / WARP;
    MOVER_UNROLL
    for (int which = 0; which < count; which++) {
        const bool largest = last_is_largest && which == count - 1;
        const double value = largest ? mover_warp_max(number[which]) : mover_warp_sum(number[which]);
        if (threadIdx.x % WARP == 0) scratch.numbers[warp][which] = value;
    }
    __syncthreads();
    if (threadIdx.x < count) {
        const bool largest = last_is_largest && (int)threadIdx.x == count - 1;
        double value = scratch.numbers[0][threadIdx.x];
        for (int w = 1; w < WARPS; w++) {
            const double other = scratch.numbers[w][threadIdx.x];
            value = largest ? fmax(value, other) : value + other;
        }
        part[(int64_t)threadIdx.x * items + item] = value;
    }
    __syncthreads();
}

/* number[which] = the sum, or for the last the largest, of part[which, 0 ... items). For every lane of the one warp
 * that calls it. */
template <int count>
static __device__ __forceinline__ void load_numbers(double (&number)[count], const double *part, int64_t items,
                                                    bool last_is_largest) {
    MOVER_UNROLL
    for (int which = 0; which < count; which++) {
        const bool largest = last_is_largest && which == count - 1;
        double value = 0;
        for (int64_t item = threadIdx.x % WARP; item < items; item += WARP) {
            const double other = part[which * items + item];
            value = largest ? fmax(value, other) : value + other;
        }
        number[which] = largest ? mover_warp_max(value) : mover_warp_sum(value);
    }
}

/* ---- columns ---------------------------------------------------------------------------------------------------- */

/* The block's columns of an item: thread t has column `j` and the chunks of slice `slice` of `slices`. */
typedef struct column_place {
    int64_t j;
    int slice, slices, width;
    int owner; /* 1 in the one thread that goes on with the column */
} column_place;

static __device__ __forceinline__ column_place place_of(int64_t item, int64_t width, int64_t m) {
    column_place at;
    at.width = (int)width;
    at.slices = THREADS / at.width;
    at.slice = (int)threadIdx.x / at.width;
    at.j = item * width + threadIdx.x % at.width;
    at.owner = at.slice == 0 && at.j < m;
    return at;
}

/* The sum of a column over all chunks, slice by slice, for its owner. partial (chunks, m). All threads of the block;
 * `shared` (THREADS) is free again after a further barrier. */
static __device__ __forceinline__ real sum_chunks(const real *partial, int64_t chunks, int64_t m, const column_place &at,
                                                  real *shared) {
    const int64_t each = (chunks + at.slices - 1) / at.slices;
    const int64_t first = at.slice * each, last = first + each < chunks ? first + each : chunks;
    real sum = 0;
    for (int64_t chunk = first; at.j < m && chunk < last; chunk++) sum += partial[chunk * m + at.j];
    if (at.slices == 1) return sum;
    shared[threadIdx.x] = sum;
    __syncthreads();
    for (int s = 1; at.owner && s < at.slices; s++) sum += shared[s * at.width + threadIdx.x];
    return sum;
}

#endif
