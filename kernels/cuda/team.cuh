/*
 * team.cuh: who works on a transport problem, and how its rows are dealt to threads.
 *
 * A team passes over a problem in phases with a barrier between them: of the block, whose shared memory holds the
 * problem, or of all blocks of a cooperative launch. The work of a phase is a list of items, each done by one block;
 * what an item writes belongs to it alone, and no item reads what another one of its phase writes.
 *
 * A row belongs to a group of threads, a warp or the block. A thread owns vectors of 16 bytes, its neighbours the next
 * ones; they are read as vectors where the row begins at such an address. Sums over a row run over the columns of a
 * thread, then over the lanes, then over the warps: they depend on m only.
 */
#ifndef MOVER_CUDA_TEAM_CUH
#define MOVER_CUDA_TEAM_CUH

#include "planner.h"
#include "portable.h"
#include "real.h"
#include "reduce.cuh"

enum { THREADS = PLANNER_THREADS, WARPS = THREADS / WARP, VECTOR = REALS_PER_VECTOR };
enum { ROW_NUMBERS = 2, COLUMN_NUMBERS = 5, VECTOR_NUMBERS = 4 }; /* sums of each phase */
enum { MOST_ROWS = PLANNER_WARP_BYTES / PLANNER_NARROW_BYTES };   /* that a group has in flight */

/* `rows` rows at a time, `columns` elements of each in a thread; wide: a row is several tiles, read in turn. */
namespace {
template <bool wide> struct index_of { typedef int type; };
template <> struct index_of<true> { typedef int64_t type; };

template <planner_team team_, planner_row row_> struct team_shape {
    static constexpr planner_team team = team_;
    static constexpr bool wide = row_ == PLANNER_WIDE;
    static constexpr bool in_warp = row_ == PLANNER_NARROW || row_ == PLANNER_WARP;
    static constexpr int group = in_warp ? (int)WARP : (int)THREADS;
    static constexpr int groups = THREADS / group;
    static constexpr int bytes = row_ == PLANNER_NARROW ? (int)PLANNER_NARROW_BYTES
                                 : row_ == PLANNER_WARP ? (int)PLANNER_WARP_BYTES
                                 : row_ == PLANNER_LONG ? (int)PLANNER_LONG_BYTES
                                                        : (int)PLANNER_WHOLE_BYTES;
    static constexpr int columns = bytes / (int)sizeof(real);
    static constexpr int tile = group * columns;
    static constexpr int rows = row_ == PLANNER_LONG ? 2 : 64 / bytes;
    /* Reads the next rows while it sums the present. */
    static constexpr bool ahead = row_ == PLANNER_WHOLE || row_ == PLANNER_LONG;
    /* Blocks of a multiprocessor, which bounds the registers of a thread. */
    static constexpr bool light = row_ == PLANNER_WHOLE || row_ == PLANNER_WIDE;
    static constexpr int blocks = team_ == PLANNER_BLOCK || (light && MOVER_REAL_BITS == 32) ? 2 : 1;
    typedef typename index_of<wide>::type index; /* of a column */
};
} // namespace

/* Shared memory of a block for its reductions. */
typedef struct team_scratch {
    double numbers[WARPS][COLUMN_NUMBERS];
    double totals[ROW_NUMBERS + COLUMN_NUMBERS + VECTOR_NUMBERS];
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

/* Element c of a thread is this column of a tile. */
template <class S> static __device__ __forceinline__ typename S::index column_of(typename S::index tile, int c) {
    return tile * S::tile + c / VECTOR * (S::group * VECTOR) + team_place<S>() * VECTOR + c % VECTOR;
}

static __device__ __forceinline__ bool is_aligned(const real *row) { return (size_t)row % sizeof(real_vector) == 0; }

/* x = the thread's columns of a row of m numbers, `fill` beyond them. */
template <class S>
static __device__ __forceinline__ void load_columns(real (&x)[S::columns], const real *row, typename S::index m,
                                                    typename S::index tile, real fill) {
    const bool aligned = is_aligned(row);
    MOVER_UNROLL
    for (int c = 0; c < S::columns; c += VECTOR) {
        const typename S::index j = column_of<S>(tile, c);
        if (aligned && j + VECTOR <= m) {
            const real_vector vector = *reinterpret_cast<const real_vector *>(row + j);
            x[c] = vector.x;
            x[c + 1] = vector.y;
#if MOVER_REAL_BITS == 32
            x[c + 2] = vector.z;
            x[c + 3] = vector.w;
#endif
            continue;
        }
        MOVER_UNROLL
        for (int e = 0; e < VECTOR; e++) x[c + e] = j + e < m ? row[j + e] : fill;
    }
}

template <class S>
static __device__ __forceinline__ void store_columns(const real (&x)[S::columns], real *row, typename S::index m,
                                                     typename S::index tile) {
    const bool aligned = is_aligned(row);
    MOVER_UNROLL
    for (int c = 0; c < S::columns; c += VECTOR) {
        const typename S::index j = column_of<S>(tile, c);
        if (aligned && j + VECTOR <= m) {
#if MOVER_REAL_BITS == 32
            const real_vector vector = {x[c], x[c + 1], x[c + 2], x[c + 3]};
#else
            const real_vector vector = {x[c], x[c + 1]};
#endif
            *reinterpret_cast<real_vector *>(row + j) = vector;
            continue;
        }
        MOVER_UNROLL
        for (int e = 0; e < VECTOR; e++)
            if (j + e < m) row[j + e] = x[c + e];
    }
}

template <class S> static __device__ __forceinline__ void clear_columns(real (&x)[S::columns]) {
    MOVER_UNROLL
    for (int c = 0; c < S::columns; c++) x[c] = 0;
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
 * (WARPS, m) is shared. All threads of the block. */
template <class S>
static __device__ __forceinline__ void store_sums(const real (&x)[S::columns], real *out, int64_t m, real *rows) {
    if (S::group == THREADS) {
        if (!S::wide) store_columns<S>(x, out, (typename S::index)m, 0);
        return;
    }
    store_columns<S>(x, rows + team_group<S>() * m, (typename S::index)m, 0);
    __syncthreads();
    for (int64_t j = threadIdx.x; j < m; j += THREADS) {
        real sum = 0;
        for (int w = 0; w < WARPS; w++) sum += rows[w * m + j];
        out[j] = sum;
    }
    __syncthreads();
}

/* Column sums of a tile of the wide shape, added to those of earlier rows of the chunk. The thread's own columns. */
template <class S>
static __device__ __forceinline__ void add_sums(const real (&x)[S::columns], real *out, typename S::index m,
                                                typename S::index tile, int earlier) {
    MOVER_UNROLL
    for (int c = 0; c < S::columns; c++) {
        const typename S::index j = column_of<S>(tile, c);
        if (j < m) out[j] = (earlier ? out[j] : 0) + x[c];
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

/* total[which] = the sum, or for the last the largest, of part[which, 0 ... items); 0 where there are `none`. A warp
 * has a number: the first the number `first`, so that several calls share the warps. All threads of the block, which
 * must meet before `total` is read. */
template <int count>
static __device__ __forceinline__ void total_numbers(double *total, const double *part, int64_t items, bool none,
                                                     int first, bool last_is_largest) {
    const int which = ((int)threadIdx.x / WARP + WARPS - first % WARPS) % WARPS;
    static_assert(count <= WARPS, "a warp for every number");
    if (which >= count) return;
    const bool largest = last_is_largest && which == count - 1;
    double value = 0;
    for (int64_t item = threadIdx.x % WARP; !none && item < items; item += WARP) {
        const double other = part[which * items + item];
        value = largest ? fmax(value, other) : value + other;
    }
    value = largest ? mover_warp_max(value) : mover_warp_sum(value);
    if (threadIdx.x % WARP == 0) total[which] = value;
}

static __device__ __forceinline__ double *row_totals(team_scratch &scratch) { return scratch.totals; }
static __device__ __forceinline__ double *column_totals(team_scratch &scratch) { return scratch.totals + ROW_NUMBERS; }
static __device__ __forceinline__ double *vector_totals(team_scratch &scratch) {
    return scratch.totals + ROW_NUMBERS + COLUMN_NUMBERS;
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

enum { AT_ONCE = 4 }; /* loads of a thread on their way */

/* The sum of a column over all chunks, slice by slice, for its owner. partial (chunks, m). All threads of the block;
 * `shared` (THREADS) is free again after a further barrier. */
static __device__ __forceinline__ real sum_chunks(const real *partial, int64_t chunks, int64_t m,
                                                  const column_place &at, real *shared) {
    const int64_t each = (chunks + at.slices - 1) / at.slices;
    const int64_t first = at.slice * each, last = first + each < chunks ? first + each : chunks;
    real sum = 0;
    for (int64_t chunk = first; at.j < m && chunk < last; chunk += AT_ONCE) {
        real value[AT_ONCE];
        MOVER_UNROLL
        for (int q = 0; q < AT_ONCE; q++) value[q] = chunk + q < last ? partial[(chunk + q) * m + at.j] : 0;
        MOVER_UNROLL
        for (int q = 0; q < AT_ONCE; q++) sum += value[q];
    }
    if (at.slices == 1) return sum;
    shared[threadIdx.x] = sum;
    __syncthreads();
    for (int s = 1; at.owner && s < at.slices; s++) sum += shared[s * at.width + threadIdx.x];
    return sum;
}

#endif
