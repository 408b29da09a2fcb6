/*
 * planner.h: how a transport problem is divided, for the forward and for the gradient.
 *
 * A whole problem fits the shared memory of a block (team BLOCK: the batch is dealt to the blocks), or its matrix stays
 * in global memory and all blocks of a cooperative launch pass over it together (team GRID). A pass over the rows is
 * divided into chunks of rows, whose column sums are then added in order. A row belongs to a warp or to a block, so
 * that its elements stay in the registers of the threads between its sum and its share of the column sums.
 *
 * All is a function of n, m, the size of a number and, for the team only, of the device's limit of shared memory:
 * results depend neither on the batch nor on the number of multiprocessors.
 */
#ifndef MOVER_CUDA_PLANNER_H
#define MOVER_CUDA_PLANNER_H

#include "../src/internal.h"

enum {
    PLANNER_THREADS = 256,      /* of a block */
    PLANNER_NUMBERS = 32,       /* sums that a block keeps of a pass */
    PLANNER_STATIC = 9 * 1024,  /* static shared memory that kernels may use */
    PLANNER_ALWAYS = 48 * 1024, /* shared memory that every device offers */
    PLANNER_BLOCK_ROWS = 256,   /* of a problem that a block solves */
    PLANNER_NARROW_BYTES = 16,  /* of a row, in the registers of a thread of its group */
    PLANNER_WARP_BYTES = 32,
    PLANNER_WHOLE_BYTES = 32,
    PLANNER_LONG_BYTES = 64
};

typedef enum planner_team { PLANNER_BLOCK, PLANNER_GRID } planner_team;

/* What a row of the matrix is dealt to: a warp, NARROW if few numbers a lane are enough; the whole block, LONG if they
 * are many a thread; or, WIDE, a block that reads the row again instead of keeping it. */
typedef enum planner_row { PLANNER_NARROW, PLANNER_WARP, PLANNER_WHOLE, PLANNER_LONG, PLANNER_WIDE } planner_row;

typedef struct planner {
    planner_team team;
    planner_row row;
    int64_t chunk_rows; /* rows of a chunk */
    int64_t chunks;
    int64_t column_width; /* columns that a block adds up at a time: 32, or 256 where chunks are few */
    int64_t column_items; /* of column_width columns */
    int64_t vector_items; /* of 256 columns */
    size_t shared_bytes;  /* dynamic */
} planner;

/* Bytes of shared memory with which a problem is solved in a block: the matrix, 4 vectors of the rows, 12 of the
 * columns and their sums, those of every warp. 0 where rows are too wide for a warp, or many. */
static inline size_t planner_block_bytes(int64_t n, int64_t m, size_t real_bytes) {
    const int64_t vector = 16 / (int64_t)real_bytes;
    if (m > 32 * PLANNER_WARP_BYTES / (int64_t)real_bytes || n > PLANNER_BLOCK_ROWS) return 0;
    const int64_t width = mover_ceil_div(m, vector) * vector, height = mover_ceil_div(n, vector) * vector;
    return (size_t)(n * width + 4 * height + (12 + PLANNER_THREADS / 32) * width) * real_bytes +
           PLANNER_NUMBERS * sizeof(double) + PLANNER_STATIC;
}

static inline planner planner_of(int64_t n, int64_t m, size_t real_bytes, int64_t shared_limit) {
    const int64_t narrow = 32 * PLANNER_NARROW_BYTES / (int64_t)real_bytes;
    const int64_t in_warp = 32 * PLANNER_WARP_BYTES / (int64_t)real_bytes;
    const int64_t in_block = PLANNER_THREADS * PLANNER_WHOLE_BYTES / (int64_t)real_bytes;
    const int64_t in_long = PLANNER_THREADS * PLANNER_LONG_BYTES / (int64_t)real_bytes;
    const size_t block_bytes = planner_block_bytes(n, m, real_bytes);
    planner plan = {};
    if (block_bytes && (int64_t)block_bytes <= mover_max(shared_limit, PLANNER_ALWAYS)) {
        plan.team = PLANNER_BLOCK;
        plan.row = m <= narrow ? PLANNER_NARROW : PLANNER_WARP;
        plan.chunk_rows = mover_max(n, 1);
        plan.shared_bytes = block_bytes - PLANNER_STATIC;
    } else {
        plan.team = PLANNER_GRID;
        plan.row = m <= in_warp    ? PLANNER_WARP
                   : m <= in_block ? PLANNER_WHOLE
                   : m <= in_long  ? PLANNER_LONG
                                   : PLANNER_WIDE;
        /* Enough chunks for the blocks of a large device; rows enough that column sums are little beside the rows. */
        plan.chunk_rows = m <= in_warp ? 16 : n < 4096 ? 8 : n < 8192 ? 16 : 32;
        plan.shared_bytes = m <= in_warp ? (size_t)(PLANNER_THREADS / 32 * m) * real_bytes : 0;
    }
    plan.chunks = mover_ceil_div(n, plan.chunk_rows);
    plan.column_width = plan.chunks > 8 ? 32 : PLANNER_THREADS;
    plan.column_items = mover_ceil_div(m, plan.column_width);
    plan.vector_items = mover_ceil_div(m, PLANNER_THREADS);
    return plan;
}

#endif
