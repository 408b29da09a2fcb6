/*
 * gram.cu: Gram matrices.
 *
 *     forward    gram[b,r,s]  = sum_t v[b,r,t] v[b,s,t]
 *     backward   grad_v[b,r,:] = sum_s (grad_gram[b,r,s] + grad_gram[b,s,r]) v[b,s,:]
 *
 * Products and sums are in double. Up to k = MOVER_MAX_K a warp takes a whole group, its matrix in registers; larger
 * groups are products of matrices, cut into tiles.
 */
#include "real.h"

#include "../src/backend.h"
#include "device.h"
#include "reduce.cuh"
#include "small_matrix.cuh"

enum { THREADS = 256, WARPS = THREADS / WARP };

/* ---- small groups ------------------------------------------------------------------------------------------------ */

/* Two lanes, `offset` apart, add up the `count` sums that both have: one the first half of them, the other the rest.
 * `first` is the number of the first that a lane has then, `own` how many it has. */
template <int count, int size>
static __device__ __forceinline__ void share_sums(double (&sum)[size], int offset, int &first, int &own) {
    const int half = (count + 1) / 2;
    const bool upper = (threadIdx.x & (unsigned)offset) != 0;
    MOVER_UNROLL
    for (int e = 0; e < half; e++) {
        const double low = sum[e], high = e + half < count ? sum[e + half] : 0;
        const double other = __shfl_xor_sync(0xffffffffu, upper ? low : high, offset);
        sum[e] = (upper ? high : low) + other;
    }
    first += upper ? half : 0;
    own = upper ? own - half : (own < half ? own : half);
}

/* The lower triangle added up over a warp's lanes and written, with its mirror image. */
template <int k> static __device__ __forceinline__ void write_sums(double (&sum)[at(k, 0)], real *gram) {
    const int count = at(k, 0);
    int first = 0, own = count;
    share_sums<count>(sum, 16, first, own);
    share_sums<(count + 1) / 2>(sum, 8, first, own);
    share_sums<(count + 3) / 4>(sum, 4, first, own);
    share_sums<(count + 7) / 8>(sum, 2, first, own);
    share_sums<(count + 15) / 16>(sum, 1, first, own);
    MOVER_UNROLL
    for (int e = 0; e < (count + 31) / 32; e++) {
        if (e >= own) continue;
        int r = 0;
        while (at(r + 1, 0) <= first + e) r++;
        const int s = first + e - at(r, 0);
        gram[r * k + s] = (real)sum[e];
        gram[s * k + r] = (real)sum[e];
    }
}

/* A warp owns a group, its lanes every 32nd column; a lane has its part of every entry of the lower triangle. Each
 * element of v is read once. Deterministic: the parts are added up in a tree. */
template <int k>
static __global__ void __launch_bounds__(THREADS, 2)
    forward_kernel(const real *v, int64_t batch, int64_t d, real *gram) {
    MOVER_NO_UNROLL
    for (int64_t b = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP; b < batch; b += (int64_t)gridDim.x * WARPS) {
        double sum[at(k, 0)];
        MOVER_UNROLL
        for (int e = 0; e < at(k, 0); e++) sum[e] = 0;
        MOVER_NO_UNROLL
        for (int64_t t = threadIdx.x % WARP; t < d; t += WARP) {
            double row[k];
            MOVER_UNROLL
            for (int r = 0; r < k; r++) row[r] = (double)v[(b * k + r) * d + t];
            MOVER_UNROLL
            for (int r = 0; r < k; r++) {
                MOVER_UNROLL
                for (int s = 0; s <= r; s++) sum[at(r, s)] = fma(row[r], row[s], sum[at(r, s)]);
            }
        }
        write_sums<k>(sum, gram + b * k * k);
    }
}

/* A warp owns a group and has its weights in registers, a lane every 32nd column. Each element of v is read once. */
template <int k>
static __global__ void __launch_bounds__(THREADS, 2)
    backward_kernel(const real *v, const real *grad_gram, int64_t batch, int64_t d, real *grad_v) {
    MOVER_NO_UNROLL
    for (int64_t b = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP; b < batch; b += (int64_t)gridDim.x * WARPS) {
        const real *grad = grad_gram + b * k * k;
        double weight[at(k, 0)];
        MOVER_UNROLL
        for (int r = 0; r < k; r++) {
            MOVER_UNROLL
            for (int s = 0; s <= r; s++) weight[at(r, s)] = (double)grad[r * k + s] + (double)grad[s * k + r];
        }
        MOVER_NO_UNROLL
        for (int64_t t = threadIdx.x % WARP; t < d; t += WARP) {
            double row[k];
            MOVER_UNROLL
            for (int s = 0; s < k; s++) row[s] = (double)v[(b * k + s) * d + t];
            MOVER_UNROLL
            for (int r = 0; r < k; r++) {
                double sum = 0;
                MOVER_UNROLL
                for (int s = 0; s < k; s++) sum = fma(weight[r < s ? at(s, r) : at(r, s)], row[s], sum);
                grad_v[(b * k + r) * d + t] = (real)sum;
            }
        }
    }
}

/* ---- large groups ------------------------------------------------------------------------------------------------ */

enum { SIDE = 32, PITCH = SIDE + 1, HALF = SIDE / 2 };

/* Forward: gram = v v^T. A block owns a tile of SIDE x SIDE entries below or on the diagonal, and its mirror image; a
 * thread 2 x 2 entries, HALF apart. Shared: 17 KB. Each row is read k / SIDE times. */
static __global__ void __launch_bounds__(THREADS)
    forward_tiles_kernel(const real *v, int64_t batch, int64_t k, int64_t d, real *gram) {
    MOVER_SHARED(double, left, [SIDE][PITCH]);
    MOVER_SHARED(double, right, [SIDE][PITCH]);
    const int64_t tiles = (k + SIDE - 1) / SIDE;
    const int x = (int)threadIdx.x % HALF, y = (int)threadIdx.x / HALF;
    MOVER_NO_UNROLL
    for (int64_t q = blockIdx.x; q < batch * tiles * tiles; q += gridDim.x) {
        const int64_t b = q / (tiles * tiles), r = q / tiles % tiles * SIDE, s = q % tiles * SIDE;
        if (s > r) continue;
        double sum[2][2] = {};
        MOVER_NO_UNROLL
        for (int64_t first = 0; first < d; first += SIDE) {
            MOVER_UNROLL
            for (int e = (int)threadIdx.x; e < SIDE * SIDE; e += THREADS) {
                const int i = e / SIDE, t = e % SIDE;
                left[i][t] = r + i < k && first + t < d ? (double)v[(b * k + r + i) * d + first + t] : 0;
                right[i][t] = s + i < k && first + t < d ? (double)v[(b * k + s + i) * d + first + t] : 0;
            }
            __syncthreads();
            for (int t = 0; t < SIDE; t++) {
                MOVER_UNROLL
                for (int i = 0; i < 2; i++) {
                    MOVER_UNROLL
                    for (int j = 0; j < 2; j++)
                        sum[i][j] = fma(left[y + HALF * i][t], right[x + HALF * j][t], sum[i][j]);
                }
            }
            __syncthreads();
        }
        MOVER_UNROLL
        for (int i = 0; i < 2; i++) {
            MOVER_UNROLL
            for (int j = 0; j < 2; j++) {
                const int64_t row = r + y + HALF * i, column = s + x + HALF * j;
                if (row >= k || column > row) continue;
                gram[(b * k + row) * k + column] = (real)sum[i][j];
                gram[(b * k + column) * k + row] = (real)sum[i][j];
            }
        }
    }
}

/* Backward: grad_v = (grad_gram + grad_gram^T) v. A block owns a tile of SIDE x SIDE elements, a thread 2 x 2 of them,
 * HALF apart. Shared: 17 KB. Each element of v is read k / SIDE times. */
static __global__ void __launch_bounds__(THREADS)
    backward_tiles_kernel(const real *v, const real *grad_gram, int64_t batch, int64_t k, int64_t d, real *grad_v) {
    MOVER_SHARED(double, weight, [SIDE][PITCH]);
    MOVER_SHARED(double, rows, [SIDE][PITCH]);
    const int64_t tiles_k = (k + SIDE - 1) / SIDE, tiles_d = (d + SIDE - 1) / SIDE;
    const int x = (int)threadIdx.x % HALF, y = (int)threadIdx.x / HALF;
    MOVER_NO_UNROLL
    for (int64_t q = blockIdx.x; q < batch * tiles_k * tiles_d; q += gridDim.x) {
        const int64_t b = q / (tiles_k * tiles_d), r = q / tiles_d % tiles_k * SIDE, t = q % tiles_d * SIDE;
        const real *grad = grad_gram + b * k * k;
        double sum[2][2] = {};
        MOVER_NO_UNROLL
        for (int64_t first = 0; first < k; first += SIDE) {
            MOVER_UNROLL
            for (int e = (int)threadIdx.x; e < SIDE * SIDE; e += THREADS) {
                const int i = e / SIDE, j = e % SIDE;
                const int64_t row = r + i, s = first + j;
                weight[i][j] = row < k && s < k ? (double)grad[row * k + s] + (double)grad[s * k + row] : 0;
                rows[i][j] = first + i < k && t + j < d ? (double)v[(b * k + first + i) * d + t + j] : 0;
            }
            __syncthreads();
            for (int s = 0; s < SIDE; s++) {
                MOVER_UNROLL
                for (int i = 0; i < 2; i++) {
                    MOVER_UNROLL
                    for (int j = 0; j < 2; j++)
                        sum[i][j] = fma(weight[y + HALF * i][s], rows[s][x + HALF * j], sum[i][j]);
                }
            }
            __syncthreads();
        }
        MOVER_UNROLL
        for (int i = 0; i < 2; i++) {
            MOVER_UNROLL
            for (int j = 0; j < 2; j++) {
                const int64_t row = r + y + HALF * i, column = t + x + HALF * j;
                if (row < k && column < d) grad_v[(b * k + row) * d + column] = (real)sum[i][j];
            }
        }
    }
}

/* ---- entry points ------------------------------------------------------------------------------------------------ */

template <int k>
static cudaError_t launch_forward(const mover_gram_desc *desc, const real *v, real *gram, const mover_exec *exec) {
    const unsigned blocks = mover_blocks(mover_ceil_div(desc->batch, WARPS), MOVER_MOST_BLOCKS);
    return MOVER_LAUNCH(forward_kernel<k>, blocks, THREADS, 0, mover_stream(exec), v, desc->batch, desc->d, gram);
}

template <int k>
static cudaError_t launch_backward(const mover_gram_desc *desc, const real *v, const real *grad_gram, real *grad_v,
                                   const mover_exec *exec) {
    const unsigned blocks = mover_blocks(mover_ceil_div(desc->batch, WARPS), MOVER_MOST_BLOCKS);
    return MOVER_LAUNCH(backward_kernel<k>, blocks, THREADS, 0, mover_stream(exec), v, grad_gram, desc->batch, desc->d,
                        grad_v);
}

static cudaError_t forward(const mover_gram_desc *desc, const real *v, real *gram, const mover_exec *exec) {
    switch (desc->k) {
    case 1:
        return launch_forward<1>(desc, v, gram, exec);
    case 2:
        return launch_forward<2>(desc, v, gram, exec);
    case 3:
        return launch_forward<3>(desc, v, gram, exec);
    case 4:
        return launch_forward<4>(desc, v, gram, exec);
    case 5:
        return launch_forward<5>(desc, v, gram, exec);
    case 6:
        return launch_forward<6>(desc, v, gram, exec);
    case 7:
        return launch_forward<7>(desc, v, gram, exec);
    case 8:
        return launch_forward<8>(desc, v, gram, exec);
    }
    const int64_t tiles = mover_ceil_div(desc->k, SIDE);
    return MOVER_LAUNCH(forward_tiles_kernel, mover_blocks(desc->batch * tiles * tiles, MOVER_MOST_BLOCKS), THREADS, 0,
                        mover_stream(exec), v, desc->batch, desc->k, desc->d, gram);
}

static cudaError_t backward(const mover_gram_desc *desc, const real *v, const real *grad_gram, real *grad_v,
                            const mover_exec *exec) {
    switch (desc->k) {
    case 1:
        return launch_backward<1>(desc, v, grad_gram, grad_v, exec);
    case 2:
        return launch_backward<2>(desc, v, grad_gram, grad_v, exec);
    case 3:
        return launch_backward<3>(desc, v, grad_gram, grad_v, exec);
    case 4:
        return launch_backward<4>(desc, v, grad_gram, grad_v, exec);
    case 5:
        return launch_backward<5>(desc, v, grad_gram, grad_v, exec);
    case 6:
        return launch_backward<6>(desc, v, grad_gram, grad_v, exec);
    case 7:
        return launch_backward<7>(desc, v, grad_gram, grad_v, exec);
    case 8:
        return launch_backward<8>(desc, v, grad_gram, grad_v, exec);
    }
    const int64_t tiles = mover_ceil_div(desc->k, SIDE) * mover_ceil_div(desc->d, SIDE);
    return MOVER_LAUNCH(backward_tiles_kernel, mover_blocks(desc->batch * tiles, MOVER_MOST_BLOCKS), THREADS, 0,
                        mover_stream(exec), v, grad_gram, desc->batch, desc->k, desc->d, grad_v);
}

mover_status R(mover_cuda_gram_forward)(const mover_gram_desc *desc, const real *v, real *gram,
                                        const mover_exec *exec) {
    return mover_cuda_check("mover_gram_forward", forward(desc, v, gram, exec));
}

mover_status R(mover_cuda_gram_backward)(const mover_gram_desc *desc, const real *v, const real *grad_gram,
                                         real *grad_v, const mover_exec *exec) {
    return mover_cuda_check("mover_gram_backward", backward(desc, v, grad_gram, grad_v, exec));
}
