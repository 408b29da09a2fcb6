/*
 * no_race.cpp: the interface of race.cpp for builds that do not see the accesses of kernels.
 */
#include "emulator.h"

namespace cuemu {

bool detects_races() { return false; }

void race_begin_launch(launch_run &) {}
void race_end_launch() {}
void race_begin_block(block_run &) {}
void race_block_barrier(block_run &) {}
void race_grid_barrier() {}
void race_warp_barrier(block_run &, unsigned, unsigned) {}
void race_fence(thread &) {}
void race_begin_copy(const async_copy &) {}
void race_end_copy(const async_copy &) {}
void race_written(const void *, size_t) {}
void race_fresh(allocation &) {}
bool race_is_written(const void *, size_t) { return true; }
void atomic_access(const volatile void *, size_t, const void *) {}

} // namespace cuemu
