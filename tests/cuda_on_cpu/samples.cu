/*
 * samples.cu: see samples.h.
 */
#include "samples.h"

#include "portable.h"

enum { THREADS = 128, TILE = 32, WARPS = THREADS / 32 };

static __device__ __forceinline__ float warp_sum(float value) {
    for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}

/* ---- sums: a block owns every grid-th tile of x ---- */

static __global__ void block_sums(const float *__restrict__ x, int n, float *__restrict__ sums) {
    MOVER_SHARED(float, partial, [WARPS]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float sum = 0;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < n; i += THREADS * gridDim.x) sum += x[i];
    sum = warp_sum(sum);
    if (lane == 0) partial[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        sum = lane < WARPS ? partial[lane] : 0;
        sum = warp_sum(sum);
        if (lane == 0) sums[blockIdx.x] = sum;
    }
}

cudaError_t launch_block_sums(const float *x, int n, float *sums, int blocks, cudaStream_t stream) {
    return MOVER_LAUNCH(block_sums, blocks, THREADS, 0, stream, x, n, sums);
}

/* ---- products: a block owns a tile of c, a thread 4 of its entries ---- */

static __global__ void product(const float *__restrict__ a, const float *__restrict__ b, float *__restrict__ c, int m,
                               int n, int k) {
    MOVER_SHARED(float, a_tile, [TILE][TILE + 1]);
    MOVER_SHARED(float, b_tile, [TILE][TILE + 1]);
    const int x = threadIdx.x, y = threadIdx.y, row = blockIdx.y * TILE, column = blockIdx.x * TILE + x;
    float sum[4] = {0, 0, 0, 0};
    for (int first = 0; first < k; first += TILE) {
        for (int r = y; r < TILE; r += 8) {
            a_tile[r][x] = row + r < m && first + x < k ? a[(row + r) * k + first + x] : 0;
            b_tile[r][x] = first + r < k && column < n ? b[(first + r) * n + column] : 0;
        }
        __syncthreads();
        for (int q = 0; q < 4; q++)
            for (int p = 0; p < TILE; p++) sum[q] += a_tile[y + 8 * q][p] * b_tile[p][x];
        __syncthreads();
    }
    for (int q = 0; q < 4; q++)
        if (row + y + 8 * q < m && column < n) c[(row + y + 8 * q) * n + column] = sum[q];
}

cudaError_t launch_product(const float *a, const float *b, float *c, int m, int n, int k, cudaStream_t stream) {
    const dim3 grid((n + TILE - 1) / TILE, (m + TILE - 1) / TILE), block(TILE, 8);
    return MOVER_LAUNCH(product, grid, block, 0, stream, a, b, c, m, n, k);
}

/* A block owns 32 x 16 of c, a warp 16 x 8; two stages of 16 columns, rows of 16 numbers and 4 unused. */
enum { DEPTH = 16, PITCH = 20, ROWS = 32, COLUMNS = 16, STAGE = (ROWS + COLUMNS) * PITCH };

static __device__ void load_stage(float *stage, const float *a, const float *b, int row, int column, int m, int n,
                                  int k, int first) {
    for (int i = threadIdx.x; i < (ROWS + COLUMNS) * DEPTH / 4; i += THREADS) {
        const int r = i / (DEPTH / 4), q = i % (DEPTH / 4) * 4;
        const bool of_a = r < ROWS;
        const int from = of_a ? row + r : column + r - ROWS, limit = of_a ? m : n;
        const float *source = of_a ? a : b;
        mover_copy_async(stage + r * PITCH + q, from < limit ? source + from * k + first + q : source,
                         from < limit ? 16 : 0);
    }
    mover_copy_commit();
}

static __global__ void product_tf32(const float *__restrict__ a, const float *__restrict__ b, float *__restrict__ c,
                                    int m, int n, int k) {
    MOVER_SHARED_DYNAMIC(float, stages);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int row = blockIdx.y * ROWS, column = blockIdx.x * COLUMNS;
    float d[4] = {0, 0, 0, 0};
    load_stage(stages, a, b, row, column, m, n, k, 0);
    for (int first = 0, now = 0; first < k; first += DEPTH, now ^= 1) {
        if (first + DEPTH < k) {
            load_stage(stages + (now ^ 1) * STAGE, a, b, row, column, m, n, k, first + DEPTH);
            mover_copy_wait<1>();
        } else {
            mover_copy_wait<0>();
        }
        __syncthreads();
        const float *rows = stages + now * STAGE + warp % 2 * 16 * PITCH;
        const float *columns = stages + now * STAGE + (ROWS + warp / 2 * 8) * PITCH;
        for (int p = 0; p < DEPTH; p += 8) {
            const float fa[4] = {mover_to_tf32(rows[g * PITCH + p + t]), mover_to_tf32(rows[(g + 8) * PITCH + p + t]),
                                 mover_to_tf32(rows[g * PITCH + p + t + 4]),
                                 mover_to_tf32(rows[(g + 8) * PITCH + p + t + 4])};
            const float fb[2] = {mover_to_tf32(columns[g * PITCH + p + t]),
                                 mover_to_tf32(columns[g * PITCH + p + t + 4])};
            mover_mma_tf32(d, fa, fb);
        }
        __syncthreads();
    }
    for (int q = 0; q < 4; q++) {
        const int i = row + warp % 2 * 16 + g + q / 2 * 8, j = column + warp / 2 * 8 + 2 * t + q % 2;
        if (i < m && j < n) c[i * n + j] = d[q];
    }
}

cudaError_t launch_product_tf32(const float *a, const float *b, float *c, int m, int n, int k, cudaStream_t stream) {
    const dim3 grid((n + COLUMNS - 1) / COLUMNS, (m + ROWS - 1) / ROWS);
    return MOVER_LAUNCH(product_tf32, grid, THREADS, 2 * STAGE * sizeof(float), stream, a, b, c, m, n, k);
}

/* ---- log-sum-exp: a warp owns a row; maximum, then sum, by base 2 ---- */

static __global__ void log_sum_exp(const float *__restrict__ z, int n, int m, float *__restrict__ f) {
    const float log2_e = 1.44269504f, log_2 = 0.69314718f;
    const int lane = threadIdx.x % 32, row = blockIdx.x * WARPS + threadIdx.x / 32;
    if (row < n) {
        float most = -INFINITY, sum = 0;
        for (int j = lane; j < m; j += 32) most = fmaxf(most, z[row * m + j]);
        for (int offset = 16; offset > 0; offset >>= 1) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, offset));
        for (int j = lane; j < m; j += 32) sum += mover_exp2(log2_e * (z[row * m + j] - most));
        sum = warp_sum(sum);
        if (lane == 0) f[row] = most + log_2 * __log2f(sum);
    }
}

cudaError_t launch_log_sum_exp(const float *z, int n, int m, float *f, cudaStream_t stream) {
    return MOVER_LAUNCH(log_sum_exp, (n + WARPS - 1) / WARPS, THREADS, 0, stream, z, n, m, f);
}

/* ---- blocks that meet: each sums its share, all add the partial sums in the same order ---- */

static __global__ void normalise(float *x, int n, double *partial, int rounds) {
    MOVER_SHARED(double, sums, [WARPS]);
    for (int round = 0; round < rounds; round++) {
        double sum = 0;
        for (int i = blockIdx.x * THREADS + threadIdx.x; i < n; i += THREADS * gridDim.x) sum += x[i];
        for (int offset = 16; offset > 0; offset >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
        if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
        __syncthreads();
        if (threadIdx.x == 0) partial[blockIdx.x] = sums[0] + sums[1] + sums[2] + sums[3];
        mover_grid_sync();
        sum = 0;
        for (unsigned b = 0; b < gridDim.x; b++) sum += partial[b];
        for (int i = blockIdx.x * THREADS + threadIdx.x; i < n; i += THREADS * gridDim.x) x[i] /= (float)sum;
        mover_grid_sync();
    }
}

int normalise_blocks() {
    int each = 0, multiprocessors = 0;
    (void)cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, normalise, THREADS, 0);
    (void)cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0);
    return each * multiprocessors;
}

cudaError_t launch_normalise(float *x, int n, double *partial, int blocks, int rounds, cudaStream_t stream) {
    return MOVER_LAUNCH_COOPERATIVE(normalise, blocks, THREADS, 0, stream, x, n, partial, rounds);
}

/* ---- operations of a warp ---- */

static __global__ void lane_operations(int *out) {
    const unsigned all = 0xffffffffu;
    const int lane = threadIdx.x, odd = lane % 2;
    out[SHUFFLE_7 * 32 + lane] = __shfl_sync(all, lane, 7);
    out[SHUFFLE_3_OF_8 * 32 + lane] = __shfl_sync(all, lane, 3, 8);
    out[XOR_5 * 32 + lane] = __shfl_xor_sync(all, lane, 5);
    out[XOR_8_OF_8 * 32 + lane] = __shfl_xor_sync(all, lane, 8, 8);
    out[DOWN_3 * 32 + lane] = __shfl_down_sync(all, lane, 3);
    out[DOWN_3_OF_8 * 32 + lane] = __shfl_down_sync(all, lane, 3, 8);
    out[UP_3 * 32 + lane] = __shfl_up_sync(all, lane, 3);
    out[UP_3_OF_8 * 32 + lane] = __shfl_up_sync(all, lane, 3, 8);
    out[BALLOT_ODD * 32 + lane] = (int)__ballot_sync(all, odd);
    out[ANY_LAST * 32 + lane] = __any_sync(all, lane == 31);
    out[ALL_BUT_LAST * 32 + lane] = __all_sync(all, lane < 31);
    out[REDUCE_ADD * 32 + lane] = __reduce_add_sync(all, lane);
    out[REDUCE_MAX * 32 + lane] = __reduce_max_sync(all, lane ^ 9);
    out[BARRIER_COUNT_ODD * 32 + lane] = __syncthreads_count(odd);
    out[BARRIER_AND_ODD * 32 + lane] = __syncthreads_and(odd);
    out[BARRIER_OR_ODD * 32 + lane] = __syncthreads_or(odd);
}

cudaError_t launch_lane_operations(int *out, cudaStream_t stream) {
    return MOVER_LAUNCH(lane_operations, 1, 32, 0, stream, out);
}

static __global__ void greedy(int *out) {
    MOVER_SHARED_DYNAMIC(int, memory);
    memory[threadIdx.x] = 1;
    __syncthreads();
    if (threadIdx.x == 0) *out = memory[blockDim.x - 1];
}

const void *greedy_kernel() { return (const void *)greedy; }

cudaError_t launch_greedy(int *out, int threads, size_t dynamic_bytes, cudaStream_t stream) {
    return MOVER_LAUNCH(greedy, 1, threads, dynamic_bytes, stream, out);
}
