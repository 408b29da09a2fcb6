/*
 * drive.cuh: takes problems through their ticks, each by a block (team BLOCK) or all by all blocks (team GRID).
 *
 * What is driven is a struct W of types and static functions:
 *
 *   call, state, block   the launch: batch, plan, lists, states; how far a problem is; what a block has in shared
 *                        memory: s (a state), scratch, and length and mean of a step of conjugate gradients
 *   place                puts the arrays of a problem into the block's memory; one thread
 *   system               the part of them that all phases know
 *   begin                the state before the first tick
 *   has_row_numbers, has_column_numbers, has_vectors, is_last     of the mode of a state
 *   decide               from the numbers of the last tick to the mode of the next; one thread
 *   look                 what else is known before the rows; all threads
 *   rows, columns, vectors     an item of each phase; all threads
 */
#ifndef MOVER_CUDA_DRIVE_CUH
#define MOVER_CUDA_DRIVE_CUH

#include "ticks.cuh"

/* Problem p at the start of a tick: its arrays, and what is to be done. All threads of the block. */
template <class S, class W>
static __device__ void enter_rows(const typename W::call &call, int64_t p, int64_t tick, unsigned char *shared,
                                  typename W::block &here) {
    __syncthreads();
    if (threadIdx.x == 0) W::template place<S>(call, p, tick, shared, here);
    if (threadIdx.x == WARP) { /* meanwhile */
        if (tick == 0)
            W::begin(call, here.s);
        else if (S::team == PLANNER_GRID)
            here.s = call.states[((tick - 1) & 1) * call.batch.batch + p];
    }
    __syncthreads();
    if (tick > 0) {
        const schur_system &y = W::system(here);
        const double *row_part = y.row_part + ((tick & 1) ? -1 : 1) * ROW_NUMBERS * y.chunks;
        const int32_t mode = here.s.mode;
        team_scratch &scratch = here.scratch;
        total_numbers<ROW_NUMBERS>(row_totals(scratch), row_part, y.chunks, !W::has_row_numbers(mode), 0, false);
        total_numbers<COLUMN_NUMBERS>(column_totals(scratch), y.column_part, y.column_items,
                                      !W::has_column_numbers(mode), ROW_NUMBERS, false);
        total_numbers<VECTOR_NUMBERS>(vector_totals(scratch), y.vector_part, y.vector_items, !W::has_vectors(mode),
                                      ROW_NUMBERS + COLUMN_NUMBERS, true);
        __syncthreads();
        if (threadIdx.x == 0)
            W::decide(call, here.s, row_totals(scratch), column_totals(scratch), vector_totals(scratch));
    }
    __syncthreads();
    W::look(here);
}

/* Problem p in the later phases of a tick: as the phase of the rows has left it. All threads of the block. */
template <class S, class W>
static __device__ void enter_again(const typename W::call &call, int64_t p, int64_t tick, unsigned char *shared,
                                   typename W::block &here) {
    __syncthreads();
    if (threadIdx.x == 0) W::template place<S>(call, p, tick, shared, here);
    if (threadIdx.x == WARP) here.s = call.states[(tick & 1) * call.batch.batch + p];
    __syncthreads();
}

/* How far a step of conjugate gradients goes. All threads of the block. */
template <class W> static __device__ void enter_vectors(typename W::block &here) {
    const schur_system &y = W::system(here);
    double *const column = column_totals(here.scratch);
    total_numbers<COLUMN_NUMBERS>(column, y.column_part, y.column_items, false, 0, false);
    __syncthreads();
    if (threadIdx.x == 0) schur_length(here.s.cg, column, &here.length, &here.mean);
    __syncthreads();
}

/* One problem by a block. */
template <class S, class W>
static __device__ void drive_alone(const typename W::call &call, int64_t p, unsigned char *shared,
                                   typename W::block &here, int &turn) {
    for (int64_t tick = 0;; tick++) {
        enter_rows<S, W>(call, p, tick, shared, here);
        W::template rows<S>(call, p, 0, here, turn);
        team_barrier<S>();
        if (W::is_last(here.s.mode)) break;
        for (int64_t item = 0; item < call.plan.column_items; item++) W::columns(item, here);
        team_barrier<S>();
        if (!W::has_vectors(here.s.mode)) continue;
        enter_vectors<W>(here);
        for (int64_t item = 0; item < call.plan.vector_items; item++) W::vectors(item, here);
        team_barrier<S>();
    }
}

/* The list for the next tick. By the first warp of block 0. */
template <class W> static __device__ void next_list(const typename W::call &call, int64_t tick, int64_t count) {
    const int64_t batch = call.batch.batch;
    int64_t kept = 0;
    int vectors = 0;
    for (int64_t first = 0; first < count; first += WARP) {
        const int64_t k = first + threadIdx.x, p = k < count ? listed(call.lists, batch, tick, k) : -1;
        const int32_t mode = p >= 0 ? call.states[(tick & 1) * batch + p].mode : 0;
        vectors |= __any_sync(0xffffffffu, p >= 0 && W::has_vectors(mode));
        list_keep(call.lists, batch, tick, p, p >= 0 && !W::is_last(mode), &kept);
    }
    if (threadIdx.x > 0) return;
    call.lists.counts[((tick + 1) & 1) * 2] = kept;
    call.lists.counts[((tick + 1) & 1) * 2 + 1] = vectors;
}

/* The whole batch by all blocks. */
template <class S, class W>
static __device__ void drive_together(const typename W::call &call, unsigned char *shared, typename W::block &here,
                                      int &turn) {
    const int64_t batch = call.batch.batch, chunks = call.plan.chunks;
    int64_t count = batch, first, last;
    for (int64_t tick = 0; count > 0; tick++) {
        int64_t present = -1;
        team_items<S>(count * chunks, &first, &last);
        for (int64_t item = first; item < last; item++) {
            const int64_t p = listed(call.lists, batch, tick, item / chunks), chunk = item % chunks;
            if (p != present) enter_rows<S, W>(call, p, tick, shared, here);
            present = p;
            W::template rows<S>(call, p, chunk, here, turn);
            if (chunk == 0 && threadIdx.x == 0) call.states[(tick & 1) * batch + p] = here.s;
        }
        team_barrier<S>();
        team_items<S>(count * call.plan.column_items, &first, &last);
        for (int64_t item = first; item < last; item++) {
            const int64_t p = listed(call.lists, batch, tick, item / call.plan.column_items);
            if (p != present) enter_again<S, W>(call, p, tick, shared, here);
            present = p;
            W::columns(item % call.plan.column_items, here);
        }
        if (blockIdx.x == 0 && threadIdx.x < WARP) next_list<W>(call, tick, count);
        team_barrier<S>();
        if (call.lists.counts[((tick + 1) & 1) * 2 + 1]) {
            team_items<S>(count * call.plan.vector_items, &first, &last);
            int64_t ready = -1;
            for (int64_t item = first; item < last; item++) {
                const int64_t p = listed(call.lists, batch, tick, item / call.plan.vector_items);
                if (p != present) enter_again<S, W>(call, p, tick, shared, here);
                present = p;
                if (!W::has_vectors(here.s.mode)) continue;
                if (p != ready) enter_vectors<W>(here);
                ready = p;
                W::vectors(item % call.plan.vector_items, here);
            }
            team_barrier<S>();
        }
        count = call.lists.counts[((tick + 1) & 1) * 2];
    }
}

/* The batch of a launch. */
template <class S, class W>
static __device__ void drive(const typename W::call &call, unsigned char *shared, typename W::block &here) {
    int turn = 0;
    if constexpr (S::team == PLANNER_GRID) {
        drive_together<S, W>(call, shared, here, turn);
    } else {
        for (int64_t p = blockIdx.x; p < call.batch.batch; p += gridDim.x)
            drive_alone<S, W>(call, p, shared, here, turn);
    }
}

#endif
