/*
 * device.h: the device that a call runs on: its stream, its properties, and how errors of CUDA are reported.
 */
#ifndef MOVER_CUDA_DEVICE_H
#define MOVER_CUDA_DEVICE_H

#include "portable.h"

#include "../src/internal.h"

/* Records "<function>: CUDA reported <name>: <text>" and returns MOVER_ERROR_CUDA, or MOVER_OK for cudaSuccess. */
mover_status mover_cuda_check(const char *function, cudaError_t error);

#define MOVER_CUDA_TRY(function, call) MOVER_TRY(mover_cuda_check(function, call))

static inline cudaStream_t mover_stream(const mover_exec *exec) { return (cudaStream_t)exec->stream; }

/* What the present device offers. */
typedef struct mover_device {
    int multiprocessors;
    int shared_bytes; /* that a block may opt in to */
} mover_device;

mover_status mover_device_now(const char *function, mover_device *device);

/* How many blocks of `threads` threads and `shared_bytes` of dynamic shared memory run at the same time: the largest
 * grid of a cooperative launch. Opts the kernel in to that shared memory. */
mover_status mover_cooperative_blocks(const char *function, const void *kernel, int threads, size_t shared_bytes,
                                      int *blocks);

/* Lets a kernel have that much dynamic shared memory. It is allowed all that there is: calls of other threads, which
 * launch the same kernel with less, take nothing away. */
mover_status mover_allow_shared(const char *function, const void *kernel, size_t shared_bytes);

/* Blocks for `items` of work, at most `most`: kernels go over items with a stride of the grid. */
static inline unsigned mover_blocks(int64_t items, int64_t most) {
    return (unsigned)mover_max(1, mover_min(items, most));
}

enum { MOVER_MOST_BLOCKS = 1 << 30 }; /* of a grid along x */

#endif
