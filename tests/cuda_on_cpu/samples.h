/*
 * samples.h: launches of correct kernels, in the style of the project, that use what the emulator offers.
 */
#ifndef CUDA_ON_CPU_SAMPLES_H
#define CUDA_ON_CPU_SAMPLES_H

#include <cuda_on_cpu.h>

/* sums[block] over the elements of x that the block owns; the sum of all is theirs. */
cudaError_t launch_block_sums(const float *x, int n, float *sums, int blocks, cudaStream_t stream);

/* c (m, n) = a (m, k) b (k, n), row-major, tiles in shared memory. */
cudaError_t launch_product(const float *a, const float *b, float *c, int m, int n, int k, cudaStream_t stream);

/* The same with b (n, k) transposed, on the tensor unit with background copies; k a multiple of 16. */
cudaError_t launch_product_tf32(const float *a, const float *b, float *c, int m, int n, int k, cudaStream_t stream);

/* f[i] = log sum_j exp(z[i,j]), z (n, m): one warp a row. */
cudaError_t launch_log_sum_exp(const float *z, int n, int m, float *f, cudaStream_t stream);

/* x[i] /= sum x, `rounds` times, by a cooperative launch of all blocks that fit; partial (blocks). */
int normalise_blocks();
cudaError_t launch_normalise(float *x, int n, double *partial, int blocks, int rounds, cudaStream_t stream);

/* What each of 32 lanes gets of its number from the operations of a warp and barriers: out (LANE_OPERATIONS, 32). */
enum lane_operation {
    SHUFFLE_7,
    SHUFFLE_3_OF_8,
    XOR_5,
    XOR_8_OF_8,
    DOWN_3,
    DOWN_3_OF_8,
    UP_3,
    UP_3_OF_8,
    BALLOT_ODD,
    ANY_LAST,
    ALL_BUT_LAST,
    REDUCE_ADD,
    REDUCE_MAX,
    BARRIER_COUNT_ODD,
    BARRIER_AND_ODD,
    BARRIER_OR_ODD,
    LANE_OPERATIONS
};
cudaError_t launch_lane_operations(int *out, cudaStream_t stream);

/* A kernel that asks for more of everything: `threads` a block, dynamic shared memory. Writes 1 to out. */
const void *greedy_kernel();
cudaError_t launch_greedy(int *out, int threads, size_t dynamic_bytes, cudaStream_t stream);

#endif
