/*
 * group_volume.cu: the volumes of listed groups of unit rows, from the squared distances of every pair of sets.
 *
 *     forward    volume[t] = Vol(alpha_p[t]),   alpha_p[t] = costs[p, groups[t,a], groups[t,b]] / 2
 *     backward   grad_costs[p, groups[t,a], groups[t,b]] += grad_volume[t] dVol/dalpha_p / 2
 *
 * where p is the pair (a, b) of sets. A group with a row number out of range has the volume NaN and adds nothing.
 *
 * A thread makes the volume of a group in its registers, see alpha_volume.cuh. The backward adds what the groups share
 * in the order of the groups, as the CPU does. In rounds of at most ROUND groups, which bound the scratch:
 *
 *     share     a thread a group: its derivatives and row numbers, pair by pair and set by set
 *     count     the rows of a set are dealt to at most BUCKETS buckets; a block counts those of a section of groups
 *     scan      from counts to the places where a section's part of a bucket begins
 *     place     the groups of a section into their buckets, in their order: a stable counting sort for each set
 *     add       a warp a bucket and pair: the cells of its rows belong to no other warp. It takes 32 groups at a time;
 *               where several have the same cell, the first of them adds them all, in their order.
 *
 * Atomics count integers only: nothing depends on the order in which blocks or warps run.
 */
#include "real.h"

#include "alpha_volume.cuh"

#include "../src/backend.h"
#include "device.h"

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    ROUND = 1 << 16,
    SECTION = 4096, /* groups that a block counts and places: SECTION / WARPS a warp, one after the other */
    BUCKETS = 1024,
    SCAN_THREADS = 1024,
    ADD_WARPS = 4
};

typedef struct group_call {
    int64_t n, count;
    const real *costs, *grad_volume;
    const int64_t *groups;
    real *volume, *grad_costs;
    /* backward */
    int64_t round, begin, end; /* groups of a round; those of the round at work */
    int64_t rows;              /* of a bucket */
    int buckets, sections;
    real *share;   /* (pairs, round) */
    int32_t *row;  /* (k, round): row numbers, -1 where one of the group is out of range */
    int32_t *at;   /* (k - 1, buckets * sections + 1): counts, then places, of sections in buckets; the end of all */
    int32_t *list; /* (k - 1, round): groups of the round, bucket by bucket */
} group_call;

static __host__ __device__ __forceinline__ constexpr int pair_of(int k, int a, int b) {
    return a * (2 * k - a - 1) / 2 + b - a - 1;
}

/* The length of `at` for one set. */
static __host__ __device__ __forceinline__ int64_t places_of(const group_call &call) {
    return (int64_t)call.buckets * call.sections + 1;
}

/* ---- one group ---------------------------------------------------------------------------------------------------
 */

/* Row numbers of group t; false where one is out of range. */
template <int k>
static __device__ __forceinline__ bool load_rows(const group_call &call, int64_t t, int64_t (&row)[k]) {
    bool inside = true;
    MOVER_UNROLL
    for (int m = 0; m < k; m++) {
        row[m] = call.groups[t * k + m];
        inside = inside && row[m] >= 0 && row[m] < call.n;
    }
    return inside;
}

/* alpha[r] is the pair (0, r + 1); matrix[at(r, s)], r > s, the pair (s + 1, r + 1). */
template <int k>
static __device__ __forceinline__ void load_alphas(const group_call &call, const int64_t (&row)[k],
                                                   real (&alpha)[k - 1], real (&matrix)[at(k - 1, 0)]) {
    MOVER_UNROLL
    for (int b = 1; b < k; b++) {
        alpha[b - 1] = half_cost(call.costs[(pair_of(k, 0, b) * call.n + row[0]) * call.n + row[b]]);
        MOVER_UNROLL
        for (int a = 1; a < b; a++)
            matrix[at(b - 1, a - 1)] = half_cost(call.costs[(pair_of(k, a, b) * call.n + row[a]) * call.n + row[b]]);
    }
}

template <int k> static __global__ void __launch_bounds__(THREADS) group_forward(group_call call) {
    const int64_t stride = (int64_t)gridDim.x * THREADS;
    for (int64_t t = (int64_t)blockIdx.x * THREADS + threadIdx.x; t < call.count; t += stride) {
        int64_t row[k];
        real alpha[k - 1], matrix[at(k - 1, 0)];
        if (!load_rows<k>(call, t, row)) {
            call.volume[t] = (real)NAN;
            continue;
        }
        load_alphas<k>(call, row, alpha, matrix);
        call.volume[t] = alpha_volume<k - 1>(alpha, matrix);
    }
}

/* Which lanes of the warp have the same value. `values` has room for one a lane, and is read until the next
 * __syncwarp(). */
template <class T> static __device__ __forceinline__ unsigned equal_lanes(T value, T *values) {
    unsigned equal = 0;
    values[threadIdx.x % 32] = value;
    __syncwarp();
    MOVER_UNROLL
    for (int lane = 0; lane < 32; lane++) equal |= (values[lane] == value ? 1u : 0u) << lane;
    return equal;
}

/* ---- backward ----------------------------------------------------------------------------------------------------
 */

template <int k> static __global__ void __launch_bounds__(THREADS) group_share(group_call call) {
    const int64_t stride = (int64_t)gridDim.x * THREADS;
    for (int64_t t = call.begin + (int64_t)blockIdx.x * THREADS + threadIdx.x; t < call.end; t += stride) {
        const int64_t here = t - call.begin;
        int64_t row[k];
        real alpha[k - 1], grad_alpha[k - 1], matrix[at(k - 1, 0)];
        const bool inside = load_rows<k>(call, t, row);
        MOVER_UNROLL
        for (int m = 0; m < k; m++) call.row[m * call.round + here] = inside ? (int32_t)row[m] : -1;
        if (!inside) continue;
        load_alphas<k>(call, row, alpha, matrix);
        const real volume = alpha_volume<k - 1>(alpha, matrix);
        alpha_volume_gradient<k - 1>(alpha, matrix, volume, call.grad_volume[t] / 2, grad_alpha);
        MOVER_UNROLL
        for (int b = 1; b < k; b++) {
            call.share[pair_of(k, 0, b) * call.round + here] = grad_alpha[b - 1];
            MOVER_UNROLL
            for (int a = 1; a < b; a++) call.share[pair_of(k, a, b) * call.round + here] = matrix[at(b - 1, a - 1)];
        }
    }
}

/* The bucket of a row of a set; -1 for -1. */
static __device__ __forceinline__ int bucket_of(const group_call &call, int32_t row) {
    return row < 0 ? -1 : row / (int32_t)call.rows;
}

/* How many of the groups [first, first + most) of the round there are. */
static __device__ __forceinline__ int groups_from(const group_call &call, int64_t first, int most) {
    const int64_t left = call.end - call.begin - first;
    return left < 0 ? 0 : left < most ? (int)left : most;
}

/* at[set, bucket, section] = how many groups of a section lie in each bucket. Block (section, set), 4 KiB shared. */
static __global__ void __launch_bounds__(THREADS) group_count(group_call call) {
    MOVER_SHARED(int, count, [BUCKETS]);
    const int64_t section = (int64_t)blockIdx.x * SECTION;
    const int32_t *row = call.row + blockIdx.y * call.round + section;
    const int groups = groups_from(call, section, SECTION);
    int32_t *to = call.at + blockIdx.y * places_of(call) + blockIdx.x;
    for (int bucket = (int)threadIdx.x; bucket < call.buckets; bucket += THREADS) count[bucket] = 0;
    __syncthreads();
    for (int group = (int)threadIdx.x; group < groups; group += THREADS) {
        const int bucket = bucket_of(call, row[group]);
        if (bucket >= 0) atomicAdd(&count[bucket], 1);
    }
    __syncthreads();
    for (int bucket = (int)threadIdx.x; bucket < call.buckets; bucket += THREADS)
        to[(int64_t)bucket * call.sections] = count[bucket];
}

/* at becomes the sum of all counts before it, those of its set; the last place is their end. A block a set. */
static __global__ void __launch_bounds__(SCAN_THREADS) group_scan(group_call call) {
    MOVER_SHARED(int, warp_sum, [SCAN_THREADS / 32]);
    const int thread = (int)threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int places = call.buckets * call.sections, piece = (places + SCAN_THREADS - 1) / SCAN_THREADS;
    const int first = min(places, thread * piece), last = min(places, first + piece);
    int32_t *to = call.at + blockIdx.x * places_of(call);
    int mine = 0, before, all = 0;
    for (int place = first; place < last; place++) mine += to[place];
    before = mine;
    for (int offset = 1; offset < 32; offset *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, before, offset);
        if (lane >= offset) before += other;
    }
    if (lane == 31) warp_sum[warp] = before;
    __syncthreads();
    before -= mine;
    for (int other = 0; other < SCAN_THREADS / 32; other++) {
        if (other == warp) before += all;
        all += warp_sum[other];
    }
    for (int place = first; place < last; place++) {
        const int count = to[place];
        to[place] = before;
        before += count;
    }
    if (thread == 0) to[places] = all;
}

/* The groups of a section into list, each behind those before it in its bucket. Block (section, set); a warp takes
 * SECTION / WARPS of them, one after the other, 32 at a time. 33 KiB of shared memory. */
static __global__ void __launch_bounds__(THREADS) group_place(group_call call) {
    MOVER_SHARED(int, next, [WARPS][BUCKETS]);
    MOVER_SHARED(int, buckets, [WARPS][32]);
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int64_t first = (int64_t)blockIdx.x * SECTION + warp * (SECTION / WARPS);
    const int32_t *row = call.row + blockIdx.y * call.round + first, *from = call.at + blockIdx.y * places_of(call);
    const int groups = groups_from(call, first, SECTION / WARPS);
    int32_t *list = call.list + blockIdx.y * call.round;
    for (int bucket = lane; bucket < call.buckets; bucket += 32) next[warp][bucket] = 0;
    __syncwarp();
    for (int group = lane; group < groups; group += 32) {
        const int bucket = bucket_of(call, row[group]);
        if (bucket >= 0) atomicAdd(&next[warp][bucket], 1);
    }
    __syncthreads();
    for (int bucket = (int)threadIdx.x; bucket < call.buckets; bucket += THREADS) {
        int place = from[(int64_t)bucket * call.sections + blockIdx.x];
        for (int other = 0; other < WARPS; other++) {
            const int count = next[other][bucket];
            next[other][bucket] = place;
            place += count;
        }
    }
    __syncthreads();
    for (int start = 0; start < groups; start += 32) {
        const int bucket = start + lane < groups ? bucket_of(call, row[start + lane]) : -1;
        const unsigned equal = equal_lanes(bucket, buckets[warp]);
        const int place = bucket >= 0 ? next[warp][bucket] : 0;
        __syncwarp();
        if (bucket >= 0) {
            list[place + __popc(equal & ((1u << lane) - 1))] = (int32_t)first + start + lane;
            if (lane == __ffs((int)equal) - 1) next[warp][bucket] = place + __popc(equal);
        }
        __syncwarp();
    }
}

/* The cells of a bucket's rows in the matrix of a pair, from the shares of its groups in their order. A warp a bucket,
 * grid.y the pair. A share is read once, a cell read and written once for every 32 groups in which it is listed. */
static __global__ void __launch_bounds__(ADD_WARPS * 32) group_add(group_call call, int k) {
    MOVER_SHARED(int64_t, cells, [ADD_WARPS][32]);
    MOVER_SHARED(real, shares, [ADD_WARPS][32]);
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, pair = (int)blockIdx.y;
    const int bucket = (int)blockIdx.x * ADD_WARPS + warp;
    int a = 0;
    while (pair >= pair_of(k, a, k - 1) + 1) a++;
    const int b = pair - pair_of(k, a, a + 1) + a + 1;
    const int32_t *from = call.at + a * places_of(call), *list = call.list + a * call.round;
    const int32_t *row = call.row + a * call.round, *column = call.row + b * call.round;
    const real *share = call.share + pair * call.round;
    real *grad = call.grad_costs + pair * call.n * call.n;
    const bool exists = bucket < call.buckets;
    const int first = exists ? from[(int64_t)bucket * call.sections] : 0;
    const int last = exists ? from[(int64_t)(bucket + 1) * call.sections] : 0;
    for (int start = first; start < last; start += 32) {
        const bool listed = start + lane < last;
        const int32_t here = listed ? list[start + lane] : 0;
        const int64_t cell = listed ? row[here] * call.n + column[here] : -1;
        shares[warp][lane] = listed ? share[here] : real(0);
        const unsigned equal = equal_lanes(cell, cells[warp]);
        if (listed && lane == __ffs((int)equal) - 1) {
            real sum = grad[cell];
            for (unsigned rest = equal; rest; rest &= rest - 1) sum += shares[warp][__ffs((int)rest) - 1];
            grad[cell] = sum;
        }
        __syncwarp();
    }
}

/* ---- launches ----------------------------------------------------------------------------------------------------
 */

typedef cudaError_t (*group_launch)(const group_call *call, cudaStream_t stream);

template <int k> static cudaError_t launch_forward(const group_call *call, cudaStream_t stream) {
    const unsigned blocks = mover_blocks(mover_ceil_div(call->count, THREADS), MOVER_MOST_BLOCKS);
    return MOVER_LAUNCH(group_forward<k>, blocks, THREADS, 0, stream, *call);
}

template <int k> static cudaError_t launch_share(const group_call *call, cudaStream_t stream) {
    const unsigned blocks = mover_blocks(mover_ceil_div(call->end - call->begin, THREADS), MOVER_MOST_BLOCKS);
    return MOVER_LAUNCH(group_share<k>, blocks, THREADS, 0, stream, *call);
}

mover_status R(mover_cuda_group_volume_forward)(const mover_group_volume_desc *desc, const real *costs,
                                                const int64_t *groups, real *volume, const mover_exec *exec) {
    static const group_launch launches[] = {launch_forward<2>, launch_forward<3>, launch_forward<4>, launch_forward<5>,
                                            launch_forward<6>, launch_forward<7>, launch_forward<8>};
    group_call call = {};
    call.n = desc->n;
    call.count = desc->count;
    call.costs = costs;
    call.groups = groups;
    call.volume = volume;
    return mover_cuda_check("mover_group_volume_forward", launches[desc->k - 2](&call, mover_stream(exec)));
}

static group_call take_backward(const mover_group_volume_desc *desc, mover_arena *arena) {
    const int64_t k = desc->k;
    group_call call = {};
    call.n = desc->n;
    call.count = desc->count;
    call.round = mover_min(desc->count, ROUND);
    call.rows = mover_max(1, mover_ceil_div(desc->n, BUCKETS));
    call.buckets = (int)mover_ceil_div(desc->n, call.rows);
    call.sections = (int)mover_ceil_div(call.round, SECTION);
    call.share = (real *)mover_take(arena, k * (k - 1) / 2, call.round, sizeof(real));
    call.row = (int32_t *)mover_take(arena, k, call.round, sizeof(int32_t));
    call.at = (int32_t *)mover_take(arena, k - 1, places_of(call), sizeof(int32_t));
    call.list = (int32_t *)mover_take(arena, k - 1, call.round, sizeof(int32_t));
    return call;
}

void R(mover_cuda_group_volume_backward_layout)(const mover_group_volume_desc *desc, mover_arena *arena) {
    (void)take_backward(desc, arena);
}

mover_status R(mover_cuda_group_volume_backward)(const mover_group_volume_desc *desc, const real *costs,
                                                 const int64_t *groups, const real *grad_volume, real *grad_costs,
                                                 void *workspace, const mover_exec *exec) {
    static const char function[] = "mover_group_volume_backward";
    static const group_launch launches[] = {launch_share<2>, launch_share<3>, launch_share<4>, launch_share<5>,
                                            launch_share<6>, launch_share<7>, launch_share<8>};
    const cudaStream_t stream = mover_stream(exec);
    mover_arena arena = mover_arena_over(workspace);
    group_call call = take_backward(desc, &arena);
    const int k = (int)desc->k, pairs = k * (k - 1) / 2;
    call.costs = costs;
    call.groups = groups;
    call.grad_volume = grad_volume;
    call.grad_costs = grad_costs;
    MOVER_CUDA_TRY(function, cudaMemsetAsync(grad_costs, 0, (size_t)(pairs * call.n * call.n) * sizeof(real), stream));
    const dim3 sections((unsigned)call.sections, (unsigned)(k - 1));
    const dim3 buckets((unsigned)mover_ceil_div(call.buckets, ADD_WARPS), (unsigned)pairs);
    for (; call.begin < call.count; call.begin = call.end) {
        call.end = mover_min(call.count, call.begin + call.round);
        MOVER_CUDA_TRY(function, launches[k - 2](&call, stream));
        MOVER_CUDA_TRY(function, MOVER_LAUNCH(group_count, sections, THREADS, 0, stream, call));
        MOVER_CUDA_TRY(function, MOVER_LAUNCH(group_scan, k - 1, SCAN_THREADS, 0, stream, call));
        MOVER_CUDA_TRY(function, MOVER_LAUNCH(group_place, sections, THREADS, 0, stream, call));
        MOVER_CUDA_TRY(function, MOVER_LAUNCH(group_add, buckets, ADD_WARPS * 32, 0, stream, call, k));
    }
    return MOVER_OK;
}
