/*
 * cost_product.cuh: a square tile of products x_i.y_j, left in shared memory.
 *
 * Rows of x and of y stream through shared memory, DEPTH columns at a time, in a ring of STAGES stages filled in the
 * background. An entry is summed over the columns in one order whatever the size of the tile and wherever the entry
 * lies in it, so its bits are those of any other tile.
 *
 *   float    tensor cores. A factor v is big + small, both TF32, and x y = big big + (big small + small big), which
 *            leaves out 2^-22 of it. The unit truncates what it adds up: each 8 columns start from 0, the small terms
 *            first, and are added to the sum outside. With tf32, big big alone.
 *   double   fused multiply-adds, 4 x 4 entries a thread.
 *
 * Included after real.h, in cost.cu alone.
 */
#ifndef MOVER_CUDA_COST_PRODUCT_CUH
#define MOVER_CUDA_COST_PRODUCT_CUH

#include "portable.h"

#include <stdint.h>

namespace {

enum { DEPTH = 16, VECTORS = DEPTH / REALS_PER_VECTOR }; /* columns of a stage, and vectors of a row of it */

/* The tile's rows are 8 longer than they need be: a warp that reads or writes 4 x 8 of its entries meets all banks. */
enum { TILE_PAD = 8 };

#if MOVER_REAL_BITS == 32

enum { STAGES = 4 };

/* A block's threads, how many blocks a multiprocessor shall hold, and the part of the tile that a warp owns, `across`
 * of them side by side. */
template <int side> struct tile_layout;
template <> struct tile_layout<128> {
    enum { threads = 256, least_blocks = 2, across = 4, warp_rows = 64, warp_columns = 32 };
};
template <> struct tile_layout<64> {
    enum { threads = 128, least_blocks = 3, across = 2, warp_rows = 32, warp_columns = 32 };
};
template <> struct tile_layout<32> {
    enum { threads = 128, least_blocks = 3, across = 2, warp_rows = 16, warp_columns = 16 };
};

#else

enum { STAGES = 3 };

template <int side> struct tile_layout {
    enum {
        across = side / 4,
        threads = across * across,
        least_blocks = side == 64 ? 2 : 6
    }; /* threads side by side; a thread has every across-th row */
};

#endif

/* Elements of shared memory: for the stages, and for the tile that takes their place. */
template <int side> struct tile_memory {
    enum { stages = STAGES * 2 * side * DEPTH, tile = side * (side + TILE_PAD), reals = stages > tile ? stages : tile };
};

/* The first rows of a tile and how many it has of each, 1 to side. */
typedef struct tile_source {
    const real *x, *y;
    int n, m;
} tile_source;

/* Where column `column` of row `row` of a stage lies. Vectors are exchanged within a row such that the rows that a warp
 * reads at once lie in different banks. */
static __device__ __forceinline__ int stage_place(int row, int column) {
    const int swap = MOVER_REAL_BITS == 32 ? row & 2 : row & 7;
    return row * DEPTH + (((column / REALS_PER_VECTOR) ^ swap) * REALS_PER_VECTOR) + column % REALS_PER_VECTOR;
}

/* What a thread copies into the stages: vectors of a row of x and of the same row of y, from the next stage's first
 * column on. */
typedef struct copy_place {
    const real *x, *y;
} copy_place;

/* Beyond the last row that one is copied again. */
template <int side> static __device__ __forceinline__ copy_place first_copy(const tile_source &source, int64_t d) {
    const int sharers = tile_layout<side>::threads / side, row = (int)threadIdx.x / sharers;
    copy_place place;
    place.x = source.x + (row < source.n ? row : source.n - 1) * d;
    place.y = source.y + (row < source.m ? row : source.m - 1) * d;
    return place;
}

/* The next DEPTH columns of the tile's rows of x, then of y; 0 where there are but `there`. */
template <int side, bool aligned>
static __device__ __forceinline__ void load_stage(copy_place &from, int there, real *stage) {
    const int sharers = tile_layout<side>::threads / side, row = (int)threadIdx.x / sharers;
    const int first = (int)threadIdx.x % sharers * REALS_PER_VECTOR, stride = sharers * REALS_PER_VECTOR;
    if (aligned) {
        MOVER_UNROLL
        for (int t = first; t < first + DEPTH; t += stride) {
            real *to = stage + stage_place(row, t);
            mover_copy_async(to, from.x + (t < there ? t : 0), t < there ? 16 : 0);
            mover_copy_async(to + side * DEPTH, from.y + (t < there ? t : 0), t < there ? 16 : 0);
        }
    } else {
        MOVER_NO_UNROLL
        for (int t = first; t < first + DEPTH; t += stride) {
            real *to = stage + stage_place(row, t);
            MOVER_UNROLL
            for (int e = 0; e < REALS_PER_VECTOR; e++) {
                to[e] = t + e < there ? from.x[t + e] : 0;
                to[side * DEPTH + e] = t + e < there ? from.y[t + e] : 0;
            }
        }
    }
    from.x += DEPTH;
    from.y += DEPTH;
}

#if MOVER_REAL_BITS == 32

static __device__ __forceinline__ float2 load_pair(const float *place) {
    return *reinterpret_cast<const float2 *>(place);
}

static __device__ __forceinline__ void split(float value, float &big, float &small) {
    big = mover_to_tf32(value);
    small = mover_to_tf32(value - big);
}

/* Two neighbouring pieces, whose chains of instructions overlap. */
static __device__ __forceinline__ void add_big(const float (&big_x)[4], const float (*big_y)[2], float (*sums)[4]) {
    mover_mma_tf32(sums[0], big_x, big_y[0]);
    mover_mma_tf32(sums[1], big_x, big_y[1]);
}

static __device__ __forceinline__ void add_products(const float (&big_x)[4], const float (&small_x)[4],
                                                    const float (*big_y)[2], const float (*small_y)[2],
                                                    float (*sums)[4]) {
    float part[2][4] = {};
    mover_mma_tf32(part[0], small_x, big_y[0]);
    mover_mma_tf32(part[1], small_x, big_y[1]);
    mover_mma_tf32(part[0], big_x, small_y[0]);
    mover_mma_tf32(part[1], big_x, small_y[1]);
    mover_mma_tf32(part[0], big_x, big_y[0]);
    mover_mma_tf32(part[1], big_x, big_y[1]);
    MOVER_UNROLL
    for (int e = 0; e < 4; e++) {
        sums[0][e] += part[0][e];
        sums[1][e] += part[1][e];
    }
}

/* A warp owns warp_rows x warp_columns entries in pieces of 16 x 8. Which columns of 8 stand at which place of the
 * unit's factors does not matter as long as it is the same for both: a lane takes two neighbours. */
template <int side> struct tile_sums {
    float entry[tile_layout<side>::warp_rows / 16][tile_layout<side>::warp_columns / 8][4];
};

template <int side, bool tf32>
static __device__ __forceinline__ void add_stage(const float *stage, tile_sums<side> &sums) {
    typedef tile_layout<side> layout;
    const int rows = layout::warp_rows / 16, columns = layout::warp_columns / 8;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int x_place = stage_place(warp / layout::across * layout::warp_rows + g, 2 * t);
    const int y_place = stage_place(side + warp % layout::across * layout::warp_columns + g, 2 * t);
    MOVER_NO_UNROLL
    for (int k = 0; k < DEPTH; k += 8) {
        const float *x = stage + (x_place ^ k), *y = stage + (y_place ^ k);
        float big_y[columns][2], small_y[columns][2];
        MOVER_UNROLL
        for (int j = 0; j < columns; j++) {
            const float2 pair = load_pair(y + 8 * j * DEPTH);
            split(pair.x, big_y[j][0], small_y[j][0]);
            split(pair.y, big_y[j][1], small_y[j][1]);
        }
        MOVER_UNROLL
        for (int i = 0; i < rows; i++) {
            const float2 upper = load_pair(x + 16 * i * DEPTH);
            const float2 lower = load_pair(x + (16 * i + 8) * DEPTH);
            float big_x[4], small_x[4];
            split(upper.x, big_x[0], small_x[0]);
            split(lower.x, big_x[1], small_x[1]);
            split(upper.y, big_x[2], small_x[2]);
            split(lower.y, big_x[3], small_x[3]);
            MOVER_UNROLL
            for (int j = 0; j < columns; j += 2) {
                if (tf32)
                    add_big(big_x, &big_y[j], &sums.entry[i][j]);
                else
                    add_products(big_x, small_x, &big_y[j], &small_y[j], &sums.entry[i][j]);
            }
        }
    }
}

template <int side> static __device__ __forceinline__ void clear_sums(tile_sums<side> &sums) {
    MOVER_UNROLL
    for (int i = 0; i < tile_layout<side>::warp_rows / 16; i++) {
        MOVER_UNROLL
        for (int j = 0; j < tile_layout<side>::warp_columns / 8; j++) {
            MOVER_UNROLL
            for (int e = 0; e < 4; e++) sums.entry[i][j][e] = 0;
        }
    }
}

template <int side> static __device__ __forceinline__ void store_sums(const tile_sums<side> &sums, float *tile) {
    typedef tile_layout<side> layout;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int first_row = warp / layout::across * layout::warp_rows + g;
    const int first_column = warp % layout::across * layout::warp_columns + 2 * t;
    MOVER_UNROLL
    for (int i = 0; i < layout::warp_rows / 16; i++) {
        MOVER_UNROLL
        for (int j = 0; j < layout::warp_columns / 8; j++) {
            const float *entry = sums.entry[i][j];
            float *to = tile + (first_row + 16 * i) * (side + TILE_PAD) + first_column + 8 * j;
            *reinterpret_cast<float2 *>(to) = make_float2(entry[0], entry[1]);
            *reinterpret_cast<float2 *>(to + 8 * (side + TILE_PAD)) = make_float2(entry[2], entry[3]);
        }
    }
}

#else

template <int side> struct tile_sums { double entry[4][4]; };

template <int side, bool tf32>
static __device__ __forceinline__ void add_stage(const double *stage, tile_sums<side> &sums) {
    const int across = tile_layout<side>::across;
    const int row = (int)threadIdx.x / across, column = side + (int)threadIdx.x % across;
    MOVER_UNROLL
    for (int k = 0; k < DEPTH; k += 2) {
        double2 x[4], y[4];
        MOVER_UNROLL
        for (int e = 0; e < 4; e++) {
            x[e] = *reinterpret_cast<const double2 *>(stage + stage_place(row + across * e, k));
            y[e] = *reinterpret_cast<const double2 *>(stage + stage_place(column + across * e, k));
        }
        MOVER_UNROLL
        for (int i = 0; i < 4; i++) {
            MOVER_UNROLL
            for (int j = 0; j < 4; j++) {
                sums.entry[i][j] = fma(x[i].x, y[j].x, sums.entry[i][j]);
                sums.entry[i][j] = fma(x[i].y, y[j].y, sums.entry[i][j]);
            }
        }
    }
}

template <int side> static __device__ __forceinline__ void clear_sums(tile_sums<side> &sums) {
    MOVER_UNROLL
    for (int i = 0; i < 4; i++) {
        MOVER_UNROLL
        for (int j = 0; j < 4; j++) sums.entry[i][j] = 0;
    }
}

template <int side> static __device__ __forceinline__ void store_sums(const tile_sums<side> &sums, double *tile) {
    const int across = tile_layout<side>::across;
    const int row = (int)threadIdx.x / across, column = (int)threadIdx.x % across;
    MOVER_UNROLL
    for (int i = 0; i < 4; i++) {
        MOVER_UNROLL
        for (int j = 0; j < 4; j++)
            tile[(row + across * i) * (side + TILE_PAD) + column + across * j] = sums.entry[i][j];
    }
}

#endif

/* The products of a tile in shared[row * (side + TILE_PAD) + column], after the caller's next barrier; what lies beyond
 * the last row or column means nothing. `shared` has tile_memory<side>::reals elements and
 * is free. */
template <int side, bool aligned, bool tf32>
static __device__ __forceinline__ void product_tile(const tile_source &source, int64_t d, real *shared) {
    const int size = 2 * side * DEPTH;
    const int steps = (int)((d + DEPTH - 1) / DEPTH), last = (int)((d + DEPTH - 1) % DEPTH) + 1;
    copy_place from = first_copy<side>(source, d);
    tile_sums<side> sums;
    clear_sums<side>(sums);
    MOVER_UNROLL
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) load_stage<side, aligned>(from, step == steps - 1 ? last : DEPTH, shared + step * size);
        mover_copy_commit();
    }
    int now = 0;
    MOVER_NO_UNROLL
    for (int left = steps; left > 0; left--) {
        mover_copy_wait<STAGES - 2>();
        __syncthreads();
        /* Into the stage that all threads have left behind. */
        if (left >= STAGES)
            load_stage<side, aligned>(from, left == STAGES ? last : DEPTH,
                                      shared + (now == 0 ? STAGES - 1 : now - 1) * size);
        mover_copy_commit();
        add_stage<side, tf32>(shared + now * size, sums);
        now = now == STAGES - 1 ? 0 : now + 1;
    }
    mover_copy_wait<0>();
    __syncthreads();
    store_sums<side>(sums, shared);
}

} // namespace

#endif
