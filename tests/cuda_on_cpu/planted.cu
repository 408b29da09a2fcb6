/*
 * planted.cu: see planted.h. Each family of kernels takes a variant; GOOD is the right one.
 */
#include "planted.h"

#include "device_array.h"
#include "portable.h"

#include <cmath>
#include <cstdio>
#include <cublas_v2.h>
#include <cusolverDn.h>

using namespace emulated;

namespace {

constexpr unsigned ALL = 0xffffffffu;

enum variant {
    GOOD,
    NO_BARRIER,
    NO_SECOND_BARRIER,
    BARRIER_IN_BRANCH,
    BARRIER_IN_BOTH_BRANCHES,
    EARLY_RETURN,
    NEVER_WRITTEN,
    PAST_THE_END,
    FAR_PAST_THE_END,
    BEFORE_THE_BEGINNING,
    HALF_MASK,
    FULL_MASK_IN_BRANCH,
    READS_RETURNED_LANE,
    STEP_FORGOTTEN,
    SOURCE_OUTSIDE_MASK,
    WRONG_SOURCE,
    NO_WARP_BARRIER,
    SHUFFLE_FOR_BARRIER,
    NOT_ATOMIC,
    NO_FENCE_BEFORE,
    NO_FENCE_AFTER,
    NO_WAIT,
    WEAK_WAIT,
    BLOCK_BARRIER,
    MIXED_BARRIERS,
    MISALIGNED
};

/* ---- kernels ---- */

/* Each block reverses its 128 numbers. */
template <variant v> __global__ void reverse(const float *x, float *out) {
    MOVER_SHARED(float, tile, [128]);
    const int t = threadIdx.x;
    if (v != NEVER_WRITTEN) tile[t] = x[blockIdx.x * 128 + t];
    if (v == BARRIER_IN_BRANCH) {
        if (t < 64) __syncthreads();
    } else if (v == BARRIER_IN_BOTH_BRANCHES) {
        if (t < 64)
            __syncthreads();
        else
            __syncthreads();
    } else if (v != NO_BARRIER) {
        __syncthreads();
    }
    out[blockIdx.x * 128 + t] = tile[v == PAST_THE_END ? 128 - t : 127 - t];
}

/* Sums four reversed tiles. */
template <variant v> __global__ void add_reversed(const float *x, float *out) {
    MOVER_SHARED(float, tile, [128]);
    const int t = threadIdx.x;
    float sum = 0;
    for (int k = 0; k < 4; k++) {
        tile[t] = x[k * 128 + t];
        __syncthreads();
        sum += tile[127 - t];
        if (v != NO_SECOND_BARRIER) __syncthreads();
    }
    out[t] = sum;
}

/* Doubles n numbers. */
template <variant v> __global__ void twice(const float *x, float *out, int n) {
    const int i = threadIdx.x;
    const bool inside = v == FAR_PAST_THE_END || (v == PAST_THE_END ? i <= n : i < n);
    float value = inside ? x[v == BEFORE_THE_BEGINNING ? i - 1 : i] : 0;
    value += __shfl_xor_sync(ALL, value, 0); /* needs the value, used or not */
    if (i < n) out[i] = value;
}

/* Reverses n < 128 numbers. */
template <variant v> __global__ void reverse_some(const float *x, float *out, int n) {
    MOVER_SHARED(float, tile, [128]);
    const int t = threadIdx.x;
    if (v == EARLY_RETURN && t >= n) return;
    tile[t] = t < n ? x[t] : 0;
    __syncthreads();
    if (t < n) out[t] = tile[n - 1 - t];
}

/* Every lane gets the sum over its warp. */
template <variant v> __global__ void warp_sums(const float *x, float *out) {
    const int lane = threadIdx.x % 32;
    float value = x[threadIdx.x];
    if (v == READS_RETURNED_LANE && lane >= 24) return;
    if (v == FULL_MASK_IN_BRANCH) {
        value += __shfl_xor_sync(ALL, value, 16);
        if (lane < 16)
            for (int offset = 8; offset; offset >>= 1) value += __shfl_xor_sync(ALL, value, offset);
        value = __shfl_sync(ALL, value, 0);
    } else if (v == SOURCE_OUTSIDE_MASK) {
        if (lane < 16)
            for (int offset = 16; offset; offset >>= 1) value += __shfl_xor_sync(0xffffu, value, offset);
        value = __shfl_sync(ALL, value, 0);
    } else {
        const unsigned mask = v == HALF_MASK ? 0xffffu : ALL;
        for (int offset = v == STEP_FORGOTTEN ? 8 : 16; offset; offset >>= 1)
            value += v == WRONG_SOURCE ? __shfl_down_sync(mask, value, offset) : __shfl_xor_sync(mask, value, offset);
    }
    out[threadIdx.x] = value;
}

/* Each warp reverses its 32 numbers. */
template <variant v> __global__ void reverse_warps(const float *x, float *out) {
    MOVER_SHARED(float, tile, [4][32]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    tile[warp][lane] = x[threadIdx.x];
    if (v == GOOD) __syncwarp();
    if (v == SHUFFLE_FOR_BARRIER) __shfl_xor_sync(ALL, 0.0f, 1);
    out[threadIdx.x] = tile[warp][31 - lane];
}

/* Adds 32 numbers of each block to *out. */
template <variant v> __global__ void add_all(const float *x, float *out) {
    const float value = x[blockIdx.x * 32 + threadIdx.x];
    if (v == NOT_ATOMIC)
        *out += value;
    else
        atomicAdd(out, value);
}

/* The last block to come adds what all have left. */
template <variant v> __global__ void last_adds(const float *x, float *partial, unsigned *ticket, float *out) {
    if (threadIdx.x != 0) return;
    float sum = 0;
    for (int i = 0; i < 32; i++) sum += x[blockIdx.x * 32 + i];
    partial[blockIdx.x] = sum;
    if (v != NO_FENCE_BEFORE) __threadfence();
    if (atomicAdd(ticket, 1u) != gridDim.x - 1) return;
    if (v != NO_FENCE_AFTER) __threadfence();
    sum = 0;
    for (unsigned b = 0; b < gridDim.x; b++) sum += partial[b];
    *out = sum;
}

/* Sums four reversed tiles that are copied in the background, the next while one is read. */
template <variant v> __global__ void add_copied(const float *x, float *out) {
    const int last = v == PAST_THE_END ? 4 : 3, shift = v == MISALIGNED ? 1 : 0;
    MOVER_SHARED(float, tiles, [2][128]);
    const int t = threadIdx.x;
    float sum = 0;
    if (t < 32) mover_copy_async(&tiles[0][4 * t], x + 4 * t, 16);
    mover_copy_commit();
    for (int k = 0; k < 4; k++) {
        if (k < last && t < 32) mover_copy_async(&tiles[(k + 1) % 2][4 * t], x + (k + 1) * 128 + 4 * t + shift, 16);
        mover_copy_commit();
        if (v == WEAK_WAIT) mover_copy_wait<2>();
        if (v != WEAK_WAIT && v != NO_WAIT) mover_copy_wait<1>();
        if (v != NO_BARRIER) __syncthreads();
        sum += tiles[k % 2][127 - t];
        if (v != NO_SECOND_BARRIER) __syncthreads();
    }
    out[t] = sum;
}

template <variant v> __global__ void copy_vectors(const float *x, float *out) {
    const int i = 4 * threadIdx.x;
    *reinterpret_cast<float4 *>(out + i) = *reinterpret_cast<const float4 *>(x + i + (v == MISALIGNED ? 1 : 0));
}

/* Four times x, if the first term to be set is term 0. */
__global__ void four_times(const float *x, float *out, int first) {
    float terms[4];
    for (int i = first; i < 4; i++) terms[i] = x[threadIdx.x];
    out[threadIdx.x] = terms[0] + terms[1] + terms[2] + terms[3];
}

__global__ void use_dynamic(float *out, int n) {
    MOVER_SHARED_DYNAMIC(float, memory);
    memory[n - 1 - threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = memory[n - 1 - threadIdx.x];
}

/* out[b] is what the next block has left in partial, 128 threads a block. */
template <variant v> __global__ void pass_on(float *partial, float *out) {
    const unsigned next = (blockIdx.x + 1) % gridDim.x;
    if (threadIdx.x == 0) partial[blockIdx.x] = (float)blockIdx.x;
    if (v == EARLY_RETURN && blockIdx.x == 1) return;
    if (v == BARRIER_IN_BRANCH) {
        if (blockIdx.x > 0) mover_grid_sync();
    } else if (v == BARRIER_IN_BOTH_BRANCHES) {
        if (blockIdx.x > 0)
            mover_grid_sync();
        else
            mover_grid_sync();
    } else if (v == BLOCK_BARRIER) {
        __syncthreads();
    } else if (v == MIXED_BARRIERS) {
        if (threadIdx.x < 64) __syncthreads();
        mover_grid_sync();
    } else if (v != NO_BARRIER) {
        mover_grid_sync();
    }
    if (threadIdx.x == 0) out[blockIdx.x] = partial[next];
}

/* ---- launches and what they should give ---- */

std::vector<float> numbers() {
    std::vector<float> x(1024);
    for (size_t i = 0; i < x.size(); i++) x[i] = static_cast<float>(i % 37) + 0.25f;
    return x;
}

bool equal(const std::vector<float> &got, const std::vector<float> &expected) {
    for (size_t i = 0; i < expected.size(); i++)
        if (!(std::fabs(got[i] - expected[i]) <= 1e-4f * (1 + std::fabs(expected[i])))) {
            fprintf(stderr, "wrong result: element %zu is %g, not %g\n", i, static_cast<double>(got[i]),
                    static_cast<double>(expected[i]));
            return false;
        }
    return true;
}

/* x and out on the device. */
struct arrays {
    std::vector<float> x = numbers();
    device_array<float> on_x{x}, out{1024};

    bool gives(const std::vector<float> &expected) const { return equal(out.values(), expected); }
};

template <variant v> bool run_reverse() {
    const arrays a;
    std::vector<float> expected;
    for (size_t i = 0; i < 512; i++) expected.push_back(a.x[i / 128 * 128 + 127 - i % 128]);
    (void)MOVER_LAUNCH(reverse<v>, 4, 128, 0, nullptr, a.on_x.data(), a.out.data());
    return a.gives(expected);
}

std::vector<float> sum_of_reversed(const std::vector<float> &x) {
    std::vector<float> expected(128, 0);
    for (size_t i = 0; i < 512; i++) expected[127 - i % 128] += x[i];
    return expected;
}

template <variant v> bool run_add_reversed() {
    const arrays a;
    (void)MOVER_LAUNCH(add_reversed<v>, 1, 128, 0, nullptr, a.on_x.data(), a.out.data());
    return a.gives(sum_of_reversed(a.x));
}

template <variant v> bool run_twice() {
    const arrays a;
    const std::vector<float> some(a.x.begin(), a.x.begin() + 100);
    const device_array<float> on_some(some);
    std::vector<float> expected;
    for (const float value : some) expected.push_back(2 * value);
    (void)MOVER_LAUNCH(twice<v>, 1, 128, 0, nullptr, on_some.data(), a.out.data(), 100);
    return a.gives(expected);
}

template <variant v> bool run_reverse_some() {
    const arrays a;
    const std::vector<float> expected(a.x.rbegin() + 924, a.x.rend());
    (void)MOVER_LAUNCH(reverse_some<v>, 1, 128, 0, nullptr, a.on_x.data(), a.out.data(), 100);
    return a.gives(expected);
}

template <variant v> bool run_warp_sums() {
    const arrays a;
    std::vector<float> expected(64, 0);
    for (size_t i = 0; i < 64; i++)
        for (size_t lane = 0; lane < 32; lane++) expected[i] += a.x[i / 32 * 32 + lane];
    (void)MOVER_LAUNCH(warp_sums<v>, 1, 64, 0, nullptr, a.on_x.data(), a.out.data());
    return a.gives(expected);
}

template <variant v> bool run_reverse_warps() {
    const arrays a;
    std::vector<float> expected;
    for (size_t i = 0; i < 128; i++) expected.push_back(a.x[i / 32 * 32 + 31 - i % 32]);
    (void)MOVER_LAUNCH(reverse_warps<v>, 1, 128, 0, nullptr, a.on_x.data(), a.out.data());
    return a.gives(expected);
}

float total(const std::vector<float> &x) {
    float sum = 0;
    for (const float value : x) sum += value;
    return sum;
}

template <variant v> bool run_add_all() {
    const arrays a;
    (void)cudaMemset(a.out.data(), 0, sizeof(float));
    (void)MOVER_LAUNCH(add_all<v>, 32, 32, 0, nullptr, a.on_x.data(), a.out.data());
    return a.gives({total(a.x)});
}

template <variant v> bool run_last_adds() {
    const arrays a;
    const device_array<float> partial(32);
    const device_array<unsigned> ticket(std::vector<unsigned>{0});
    (void)MOVER_LAUNCH(last_adds<v>, 32, 32, 0, nullptr, a.on_x.data(), partial.data(), ticket.data(), a.out.data());
    return a.gives({total(a.x)});
}

template <variant v> bool run_add_copied() {
    const arrays a;
    const device_array<float> four(std::vector<float>(a.x.begin(), a.x.begin() + 512));
    (void)MOVER_LAUNCH(add_copied<v>, 1, 128, 0, nullptr, four.data(), a.out.data());
    return a.gives(sum_of_reversed(a.x));
}

template <variant v> bool run_copy_vectors() {
    const arrays a;
    const std::vector<float> expected(a.x.begin(), a.x.begin() + 128);
    (void)MOVER_LAUNCH(copy_vectors<v>, 1, 32, 0, nullptr, a.on_x.data(), a.out.data());
    return a.gives(expected);
}

template <int first> bool run_four_times() {
    const arrays a;
    std::vector<float> expected;
    for (size_t i = 0; i < 32; i++) expected.push_back(4 * a.x[i]);
    (void)MOVER_LAUNCH(four_times, 1, 32, 0, nullptr, a.on_x.data(), a.out.data(), first);
    return a.gives(expected);
}

template <int bytes> bool run_use_dynamic() {
    const arrays a;
    (void)MOVER_LAUNCH(use_dynamic, 1, 64, bytes, nullptr, a.out.data(), 64);
    return a.gives(std::vector<float>(64, 1));
}

template <variant v, bool cooperative = true, int blocks = 4> bool run_pass_on() {
    const arrays a;
    const device_array<float> partial(1024);
    std::vector<float> expected;
    for (int b = 0; b < blocks; b++) expected.push_back(static_cast<float>((b + 1) % blocks));
    if (cooperative)
        (void)MOVER_LAUNCH_COOPERATIVE(pass_on<v>, blocks, 128, 0, nullptr, partial.data(), a.out.data());
    else
        (void)MOVER_LAUNCH(pass_on<v>, blocks, 128, 0, nullptr, partial.data(), a.out.data());
    return a.gives(expected);
}

/* ---- calls of the host ---- */

bool run_host_pointer() {
    const arrays a;
    (void)MOVER_LAUNCH(reverse<GOOD>, 1, 128, 0, nullptr, a.x.data(), a.out.data());
    (void)cudaDeviceSynchronize();
    return true;
}

bool run_device_pointer_on_host() {
    const arrays a;
    const volatile float value = *a.on_x.data();
    return value > 0;
}

bool run_copy_past_the_end() {
    const arrays a;
    (void)cudaMemcpy(a.out.data(), a.x.data(), 4100, cudaMemcpyHostToDevice);
    return true;
}

bool run_copy_wrong_way() {
    arrays a;
    (void)cudaMemcpy(a.out.data(), a.x.data(), 4, cudaMemcpyDeviceToHost);
    return true;
}

bool run_free_twice() {
    void *memory;
    (void)cudaMalloc(&memory, 16);
    (void)cudaFree(memory);
    (void)cudaFree(memory);
    return true;
}

/* Reads a result of a stream, having waited for it or not. */
template <bool waits> bool run_result_of_stream() {
    const bool lazy = cuemu::config.lazy;
    cuemu::config.lazy = true;
    const arrays a;
    cudaStream_t stream;
    float *result;
    (void)cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    (void)cudaMallocHost(&result, 128 * sizeof(float));
    std::fill_n(result, 128, -1.0f);
    (void)MOVER_LAUNCH(reverse<GOOD>, 1, 128, 0, stream, a.on_x.data(), a.out.data());
    (void)cudaMemcpyAsync(result, a.out.data(), 128 * sizeof(float), cudaMemcpyDeviceToHost, stream);
    if (waits) (void)cudaStreamSynchronize(stream);
    const bool right = equal({result, result + 128}, std::vector<float>(a.x.rbegin() + 896, a.x.rend()));
    (void)cudaStreamDestroy(stream);
    (void)cudaFreeHost(result);
    cuemu::config.lazy = lazy;
    return right;
}

bool run_too_many_threads() {
    const arrays a;
    (void)MOVER_LAUNCH(reverse<GOOD>, 1, 2048, 0, nullptr, a.on_x.data(), a.out.data());
    return true;
}

/* c (5, 3) = a (5, 4) b (4, 3) of ones, column-major. */
template <int lda, int rows_of_c> bool run_product() {
    const device_array<float> a(std::vector<float>(20, 1)), b(std::vector<float>(12, 1)), c(rows_of_c * 3);
    const float one = 1, zero = 0;
    cublasHandle_t handle;
    (void)cublasCreate(&handle);
    (void)cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, 5, 3, 4, &one, a.data(), lda, b.data(), 4, &zero, c.data(), 5);
    (void)cublasDestroy(handle);
    return cuemu::reports() || equal(c.values(), std::vector<float>(15, 4));
}

bool run_product_of_nothing() {
    const device_array<float> a(20), b(std::vector<float>(12, 1)), c(15);
    const float one = 1, zero = 0;
    cublasHandle_t handle;
    (void)cublasCreate(&handle);
    (void)cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, 5, 3, 4, &one, a.data(), 5, b.data(), 4, &zero, c.data(), 5);
    (void)cublasDestroy(handle);
    return equal(c.values(), std::vector<float>(15, 4));
}

/* The factor of one 2 x 2 matrix, of which `elements` are there. */
template <int elements> bool run_cholesky() {
    const std::vector<float> values = {4, 2, NAN, 10}; /* the upper triangle is not read */
    const device_array<float> matrix(std::vector<float>(values.begin(), values.begin() + elements));
    const device_array<float *> list(std::vector<float *>{matrix.data()});
    const device_array<int> info(1);
    cusolverDnHandle_t handle;
    (void)cusolverDnCreate(&handle);
    (void)cusolverDnSpotrfBatched(handle, CUBLAS_FILL_MODE_LOWER, 2, list.data(), 2, info.data(), 1);
    (void)cusolverDnDestroy(handle);
    if (cuemu::reports()) return true;
    const auto factor = matrix.values();
    return info.values()[0] == 0 && equal({factor[0], factor[1], factor[3]}, {2, 1, 3});
}

} // namespace

namespace emulated {

const correct_code correct_codes[] = {
    {"Reverse", run_reverse<GOOD>},
    {"AddReversed", run_add_reversed<GOOD>},
    {"Twice", run_twice<GOOD>},
    {"ReverseSome", run_reverse_some<GOOD>},
    {"WarpSums", run_warp_sums<GOOD>},
    {"ReverseWarps", run_reverse_warps<GOOD>},
    {"AtomicSum", run_add_all<GOOD>},
    {"LastBlockAdds", run_last_adds<GOOD>},
    {"BackgroundCopies", run_add_copied<GOOD>},
    {"Vectors", run_copy_vectors<GOOD>},
    {"Locals", run_four_times<0>},
    {"DynamicSharedMemory", run_use_dynamic<256>},
    {"GridBarrier", run_pass_on<GOOD>},
    {"WaitingForAStream", run_result_of_stream<true>},
    {"Product", run_product<5, 5>},
    {"Cholesky", run_cholesky<4>},
};
const int correct_code_count = sizeof(correct_codes) / sizeof(correct_codes[0]);

const planted_bug planted_bugs[] = {
    {"BarrierMissing", run_reverse<NO_BARRIER>, EVERY_BUILD, "race: shared memory|uninitialised"},
    {"SecondBarrierInLoopMissing", run_add_reversed<NO_SECOND_BARRIER>, EVERY_BUILD, "race: shared memory"},
    {"BarrierInABranch", run_reverse<BARRIER_IN_BRANCH>, EVERY_BUILD, "barrier: barrier at .* has returned"},
    {"BarrierInBothBranches", run_reverse<BARRIER_IN_BOTH_BRANCHES>, EVERY_BUILD, "barrier: .* waits at .* at "},
    {"ReturnBeforeABarrier", run_reverse_some<EARLY_RETURN>, EVERY_BUILD, "barrier: barrier at .* has returned"},
    {"SharedMemoryNeverWritten", run_reverse<NEVER_WRITTEN>, EVERY_BUILD, "uninitialised: shared memory"},
    {"SharedIndexPastTheEnd", run_reverse<PAST_THE_END>, EVERY_BUILD, "bounds: access outside every shared variable"},
    {"DynamicMemoryTooSmall", run_use_dynamic<252>, EVERY_BUILD, "bounds: access outside every shared variable"},
    {"DynamicMemoryWithoutOptIn", run_use_dynamic<65536>, EVERY_BUILD, "launch: .*65536 bytes of dynamic"},
    {"ReadFarPastTheEnd", run_twice<FAR_PAST_THE_END>, ASAN_AND_RACE, "bounds: read of 4 bytes outside"},
    {"ReadOnePastTheEnd", run_twice<PAST_THE_END>, ASAN_AND_RACE, "bounds: read of 4 bytes outside"},
    {"ReadBeforeTheBeginning", run_twice<BEFORE_THE_BEGINNING>, EVERY_BUILD, "bounds: read of 4 bytes outside"},
    {"HalfMaskOfAWholeWarp", run_warp_sums<HALF_MASK>, EVERY_BUILD, "warp: .* not part of|warp: .* takes no part"},
    {"FullMaskInABranch", run_warp_sums<FULL_MASK_IN_BRANCH>, EVERY_BUILD, "warp: "},
    {"ShuffleFromAReturnedLane", run_warp_sums<READS_RETURNED_LANE>, EVERY_BUILD, "warp: .* takes no part"},
    {"StepOfAButterflyForgotten", run_warp_sums<STEP_FORGOTTEN>, EVERY_BUILD, "wrong result"},
    {"ShuffleDownForXor", run_warp_sums<WRONG_SOURCE>, EVERY_BUILD, "wrong result"},
    {"ShuffleFromOutsideTheMask", run_warp_sums<SOURCE_OUTSIDE_MASK>, EVERY_BUILD, "warp: "},
    {"WarpBarrierMissing", run_reverse_warps<NO_WARP_BARRIER>, EVERY_BUILD, "race: shared memory|uninitialised"},
    {"ShuffleTakenForABarrier", run_reverse_warps<SHUFFLE_FOR_BARRIER>, RACE_ONLY, "race: shared memory"},
    {"SumWithoutAtomics", run_add_all<NOT_ATOMIC>, RACE_ONLY, "race: device memory"},
    {"NoFenceBeforeTheTicket", run_last_adds<NO_FENCE_BEFORE>, RACE_ONLY, "race: device memory"},
    {"NoFenceAfterTheTicket", run_last_adds<NO_FENCE_AFTER>, RACE_ONLY, "race: device memory"},
    {"CopyWithoutWait", run_add_copied<NO_WAIT>, EVERY_BUILD, "race: .* waits for its background copy"},
    {"CopyWithTooWeakAWait", run_add_copied<WEAK_WAIT>, EVERY_BUILD, "race: .* waits for its background copy"},
    {"CopyFromAMisalignedSource", run_add_copied<MISALIGNED>, EVERY_BUILD, "bounds: misaligned background copy"},
    {"CopyFromPastTheEnd", run_add_copied<PAST_THE_END>, EVERY_BUILD, "bounds: background copy from memory outside"},
    {"CopyWithoutBarrier", run_add_copied<NO_BARRIER>, EVERY_BUILD, "race: shared memory"},
    {"CopyOverWhatIsStillRead", run_add_copied<NO_SECOND_BARRIER>, EVERY_BUILD, "race: shared memory"},
    {"MisalignedVector", run_copy_vectors<MISALIGNED>, EVERY_BUILD, "bounds: .*misaligned"},
    {"LocalNeverSet", run_four_times<1>, EVERY_BUILD, "wrong result"},
    {"GridBarrierMissing", run_pass_on<NO_BARRIER>, EVERY_BUILD, "race: device memory|uninitialised"},
    {"BlockBarrierForTheGrids", run_pass_on<BLOCK_BARRIER>, EVERY_BUILD, "race: device memory|uninitialised"},
    {"GridBarrierInABranch", run_pass_on<BARRIER_IN_BRANCH>, EVERY_BUILD, "barrier: .*grid barrier although"},
    {"GridBarrierInBothBranches", run_pass_on<BARRIER_IN_BOTH_BRANCHES>, EVERY_BUILD, "barrier: .* waits for the grid"},
    {"HalfABlockAtAnotherBarrier", run_pass_on<MIXED_BARRIERS>, EVERY_BUILD, "deadlock: .*barrier of its block"},
    {"ReturnBeforeAGridBarrier", run_pass_on<EARLY_RETURN>, EVERY_BUILD, "barrier: .*grid barrier although"},
    {"GridBarrierInAnOrdinaryLaunch", run_pass_on<GOOD, false>, EVERY_BUILD, "barrier: .* not cooperative"},
    {"TooManyBlocksToMeet", run_pass_on<GOOD, true, 1000>, EVERY_BUILD, "launch: .* 1000 blocks in a cooperative"},
    {"HostPointerInAKernel", run_host_pointer, EVERY_BUILD, "pointer: .* argument 0 points to no device memory"},
    {"DevicePointerOnTheHost", run_device_pointer_on_host, EVERY_BUILD, "host code touches device memory"},
    {"CopyPastTheEnd", run_copy_past_the_end, EVERY_BUILD, "call: cudaMemcpy: leaves its device allocation"},
    {"CopyInTheWrongDirection", run_copy_wrong_way, EVERY_BUILD, "call: cudaMemcpy: the direction"},
    {"FreeTwice", run_free_twice, EVERY_BUILD, "call: cudaFree of what"},
    {"ResultReadWithoutWaiting", run_result_of_stream<false>, EVERY_BUILD, "wrong result"},
    {"TooManyThreads", run_too_many_threads, EVERY_BUILD, "launch: .*a block of 2048"},
    {"LeadingDimensionTooSmall", run_product<4, 5>, EVERY_BUILD, "call: cublasSgemm: lda is smaller"},
    {"LeadingDimensionTooLarge", run_product<6, 5>, EVERY_BUILD, "call: cublasSgemm: A leaves its"},
    {"ResultOfAProductTooSmall", run_product<5, 4>, EVERY_BUILD, "call: cublasSgemm: C leaves its"},
    {"FactorNeverWritten", run_product_of_nothing, EVERY_BUILD, "uninitialised: cublasSgemm"},
    {"MatrixToFactoriseTooSmall", run_cholesky<3>, EVERY_BUILD, "bounds: cusolverDnSpotrfBatched: matrix 0 leaves"},
};
const int planted_bug_count = sizeof(planted_bugs) / sizeof(planted_bugs[0]);

} // namespace emulated
