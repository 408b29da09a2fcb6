/*
 * ticks.cuh: what the forward and the gradient share: memory of a problem, the list of those that are not done, and
 * the launch.
 *
 * Team GRID: problems that are not done advance together, a tick is a phase of the rows, of the columns and, where one
 * of them asks for it, of the vectors. Blocks have consecutive items. Block 0 makes the list for the next tick while
 * the columns are summed; lists, states and row numbers have two places, which ticks use in turn, so that nothing is
 * written that another block may still read.
 */
#ifndef MOVER_CUDA_TICKS_CUH
#define MOVER_CUDA_TICKS_CUH

#include "device.h"
#include "schur.cuh"

/* ---- memory of one problem -------------------------------------------------------------------------------------- */

/* Takes arrays one after another from `base`; without one it measures. */
typedef struct slot {
    char *base;
    size_t used;
} slot;

enum { SLOT_ALIGNMENT = 16 };

static __host__ __device__ inline void *slot_take(slot *from, int64_t count, size_t size) {
    char *taken = from->base ? from->base + from->used : nullptr;
    from->used += ((size_t)count * size + SLOT_ALIGNMENT - 1) / SLOT_ALIGNMENT * SLOT_ALIGNMENT;
    return taken;
}

/* The arrays of a system, but its row sums and what is shared. Row numbers have two places. */
static __host__ __device__ inline void system_take(schur_system *y, slot *from) {
    const int64_t m = y->m;
    y->row_part = (double *)slot_take(from, 2 * ROW_NUMBERS * y->chunks, sizeof(double));
    y->column_part = (double *)slot_take(from, COLUMN_NUMBERS * y->column_items, sizeof(double));
    y->vector_part = (double *)slot_take(from, VECTOR_NUMBERS * y->vector_items, sizeof(double));
    y->column_sum = (real *)slot_take(from, m, sizeof(real));
    y->diagonal = (real *)slot_take(from, m, sizeof(real));
    y->residual = (real *)slot_take(from, m, sizeof(real));
    y->solution = (real *)slot_take(from, m, sizeof(real));
    y->direction = (real *)slot_take(from, m, sizeof(real));
    y->product = (real *)slot_take(from, m, sizeof(real));
    y->partial = (real *)slot_take(from, y->chunks * m, sizeof(real));
}

static __host__ __device__ inline void system_divide(schur_system *y, int64_t n, int64_t m, const planner &plan) {
    y->n = n;
    y->m = m;
    y->chunk_rows = plan.chunk_rows;
    y->chunks = plan.chunks;
    y->column_width = plan.column_width;
    y->column_items = plan.column_items;
    y->vector_items = plan.vector_items;
}

/* ---- the list of problems that are not done --------------------------------------------------------------------- */

/* Workspace of team GRID beside the slots of the problems. */
typedef struct tick_lists {
    int64_t *problems; /* (2, batch) */
    int64_t *counts;   /* (2, 2): how many problems, and whether the last tick has vectors */
} tick_lists;

/* The problem at place k of a tick's list. */
static __device__ __forceinline__ int64_t listed(const tick_lists &lists, int64_t batch, int64_t tick, int64_t k) {
    return tick == 0 ? k : lists.problems[(tick & 1) * batch + k];
}

/* A lane's share of the list for the next tick: whether problem p of this tick's list stays. By the first warp of
 * block 0; kept is the length so far. */
static __device__ __forceinline__ void list_keep(const tick_lists &lists, int64_t batch, int64_t tick, int64_t p,
                                                 bool stays, int64_t *kept) {
    const unsigned votes = __ballot_sync(0xffffffffu, stays);
    const int lane = (int)(threadIdx.x % WARP);
    if (stays) lists.problems[((tick + 1) & 1) * batch + *kept + __popc(votes & ((1u << lane) - 1))] = p;
    *kept += __popc(votes);
}

/* ---- launches --------------------------------------------------------------------------------------------------- */

/* Returns from the function after launching kernel<team_shape<team_, row_>>(call) on as many blocks as run at once, and
 * at most `items`. */
#define TICKS_TOGETHER(function, kernel, row_, plan, items, exec, call)                                                \
    do {                                                                                                               \
        int ticks_blocks = 0;                                                                                          \
        auto *const ticks_kernel = kernel<team_shape<PLANNER_GRID, row_>>;                                             \
        MOVER_TRY(mover_cooperative_blocks(function, (const void *)ticks_kernel, THREADS, (plan).shared_bytes,         \
                                           &ticks_blocks));                                                            \
        return mover_cuda_check(function,                                                                              \
                                MOVER_LAUNCH_COOPERATIVE(ticks_kernel, mover_blocks(items, ticks_blocks), THREADS,     \
                                                         (plan).shared_bytes, mover_stream(exec), call));              \
    } while (0)

/* The same for a batch of problems that each fit a block, or for the shape that the plan asks for. */
#define TICKS_LAUNCH(function, kernel, plan, batch, exec, call)                                                        \
    do {                                                                                                               \
        const int64_t ticks_items = (batch)*mover_max((plan).chunks, (plan).column_items);                             \
        if ((plan).team == PLANNER_BLOCK) {                                                                            \
            auto *const ticks_kernel = (plan).row == PLANNER_NARROW                                                    \
                                           ? kernel<team_shape<PLANNER_BLOCK, PLANNER_NARROW>>                         \
                                           : kernel<team_shape<PLANNER_BLOCK, PLANNER_WARP>>;                          \
            MOVER_TRY(mover_allow_shared(function, (const void *)ticks_kernel, (plan).shared_bytes));                  \
            return mover_cuda_check(function, MOVER_LAUNCH(ticks_kernel, mover_blocks(batch, MOVER_MOST_BLOCKS),       \
                                                           THREADS, (plan).shared_bytes, mover_stream(exec), call));   \
        }                                                                                                              \
        switch ((plan).row) {                                                                                          \
        case PLANNER_WARP:                                                                                             \
            TICKS_TOGETHER(function, kernel, PLANNER_WARP, plan, ticks_items, exec, call);                             \
        case PLANNER_WHOLE:                                                                                            \
            TICKS_TOGETHER(function, kernel, PLANNER_WHOLE, plan, ticks_items, exec, call);                            \
        case PLANNER_LONG:                                                                                             \
            TICKS_TOGETHER(function, kernel, PLANNER_LONG, plan, ticks_items, exec, call);                             \
        default:                                                                                                       \
            TICKS_TOGETHER(function, kernel, PLANNER_WIDE, plan, ticks_items, exec, call);                             \
        }                                                                                                              \
    } while (0)

#endif
