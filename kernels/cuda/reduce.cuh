/*
 * reduce.cuh: sums and extremes over the lanes of a warp and over a block, in a fixed order.
 *
 * Every thread calls them, in code that does not diverge, and every thread gets the result. Sums are trees over lanes
 * and then over warps: the same values in the same threads give the same bits.
 */
#ifndef MOVER_CUDA_REDUCE_CUH
#define MOVER_CUDA_REDUCE_CUH

#include "portable.h"

enum { WARP = 32 };

/* Over groups of `lanes` neighbouring lanes, a power of two. */
template <int lanes, class T> static __device__ __forceinline__ T mover_lanes_sum(T value) {
    MOVER_UNROLL
    for (int offset = lanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}

template <class T> static __device__ __forceinline__ T mover_warp_sum(T value) { return mover_lanes_sum<WARP>(value); }

/* A NaN is passed over where the other value is a number. */
template <class T> static __device__ __forceinline__ T mover_warp_max(T value) {
    MOVER_UNROLL
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        const T other = __shfl_xor_sync(0xffffffffu, value, offset);
        value = fmax(value, other);
    }
    return value;
}

template <class T> static __device__ __forceinline__ T mover_warp_min(T value) {
    MOVER_UNROLL
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        const T other = __shfl_xor_sync(0xffffffffu, value, offset);
        value = fmin(value, other);
    }
    return value;
}

/* Over a block of threads / 32 warps. `shared` has room for one value a warp; it may be used again at once. */
template <int threads, class T> static __device__ __forceinline__ T mover_block_sum(T value, T *shared) {
    value = mover_warp_sum(value);
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = value;
    __syncthreads();
    T sum = shared[0];
    MOVER_UNROLL
    for (int warp = 1; warp < threads / WARP; warp++) sum += shared[warp];
    __syncthreads();
    return sum;
}

#endif
