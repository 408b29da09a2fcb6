/*
 * block.h: what the threads of a block, and of a grid, share: barriers, fences, shared memory, background copies.
 */
#ifndef CUEMU_BLOCK_H
#define CUEMU_BLOCK_H

#include "language.h"

namespace cuemu {

enum barrier_kind { BARRIER_PLAIN, BARRIER_COUNT, BARRIER_AND, BARRIER_OR };

/* All threads of the block must come, by the same line. Returns the predicates' count, conjunction or disjunction. */
int block_barrier(barrier_kind kind, int predicate, const char *file, int line);
/* All threads of all blocks of a cooperative launch must come, by the same line. */
void grid_barrier(const char *file, int line);
void fence();
[[noreturn]] void trap(const char *what, const char *file, int line);

/* The variable of the present block that `tag` stands for, filled with NaN when a thread first asks for it. */
void *shared_alloc(const void *tag, size_t bytes, size_t align, const char *name);
void *shared_dyn(size_t align);

/* cp.async: `bytes` of shared memory from `source_bytes` of global memory and zeros. Until the thread that asked for it
 * waits, a copy may have happened or not; the memory belongs to it. */
void cp_async(void *shared, const void *global, int bytes, int source_bytes, const char *file, int line);
void cp_async_commit();
void cp_async_wait(int open);

} // namespace cuemu

static inline void __syncthreads(CUEMU_PLACE) { cuemu::block_barrier(cuemu::BARRIER_PLAIN, 0, file, line); }
static inline int __syncthreads_count(int predicate, CUEMU_PLACE) {
    return cuemu::block_barrier(cuemu::BARRIER_COUNT, predicate, file, line);
}
static inline int __syncthreads_and(int predicate, CUEMU_PLACE) {
    return cuemu::block_barrier(cuemu::BARRIER_AND, predicate, file, line);
}
static inline int __syncthreads_or(int predicate, CUEMU_PLACE) {
    return cuemu::block_barrier(cuemu::BARRIER_OR, predicate, file, line);
}
static inline void __threadfence() { cuemu::fence(); }
static inline void __threadfence_block() { cuemu::fence(); }
static inline void __trap(CUEMU_PLACE) { cuemu::trap("__trap()", file, line); }

#endif
