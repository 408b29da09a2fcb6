/*
 * portable.h: all that a kernel uses beyond plain CUDA C++, and the only file of the backend with inline PTX.
 *
 * nvcc sees CUDA itself. A plain C++ compiler sees the stand-in that the tests put on the include path
 * (tests/cuda_on_cpu), which runs the same kernels on a CPU and checks what they do.
 *
 * Rules for kernels, which make that possible and keep them right:
 *   launches and shared memory only through the macros below; full warp masks only; one barrier or warp intrinsic a
 *   line, never in divergent code and no return before one; what lanes exchange through shared memory is behind a
 *   __syncwarp or __syncthreads; nothing spins; blocks meet only at mover_grid_sync() of a cooperative launch; offsets
 *   are 64 bits wide; sums run in a fixed order.
 */
#ifndef MOVER_CUDA_PORTABLE_H
#define MOVER_CUDA_PORTABLE_H

#if defined(__CUDACC__)

#include <cooperative_groups.h>
#include <cuda_runtime.h>

/* Both launches return a cudaError_t and leave no error behind. The kernel of a cooperative one may call
 * mover_grid_sync(): all its blocks must fit the device at once (mover_cooperative_blocks in device.h). */
/* clang-format off */
#define MOVER_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                   \
    ((kernel)<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__), cudaGetLastError())
/* clang-format on */
#define MOVER_LAUNCH_COOPERATIVE(kernel, grid, block, shared_bytes, stream, ...)                                       \
    mover_launch_cooperative(kernel, grid, block, shared_bytes, stream, __VA_ARGS__)

/* Static shared memory: MOVER_SHARED(double, sums, [32]). */
#define MOVER_SHARED(type, name, ...) __shared__ __align__(16) type name __VA_ARGS__
/* The dynamic shared memory of the launch, aligned to 16 bytes. One in a kernel. */
#define MOVER_SHARED_DYNAMIC(type, name)                                                                               \
    extern __shared__ __align__(16) unsigned char mover_dynamic_[];                                                    \
    type *const name = reinterpret_cast<type *>(mover_dynamic_)

#define MOVER_UNROLL _Pragma("unroll")
#define MOVER_NO_UNROLL _Pragma("unroll 1")

template <class T> struct mover_same { typedef T type; };
template <class... P>
static inline cudaError_t mover_launch_cooperative(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                                                   cudaStream_t stream, typename mover_same<P>::type... arguments) {
    void *list[] = {(void *)&arguments...};
    const cudaError_t error =
        cudaLaunchCooperativeKernel((const void *)kernel, grid, block, list, shared_bytes, stream);
    if (error != cudaSuccess) (void)cudaGetLastError();
    return error;
}

/* Every thread of every block waits for all others; what they wrote before is seen after. */
static __device__ __forceinline__ void mover_grid_sync() { cooperative_groups::this_grid().sync(); }

/* 16 bytes from global to shared memory, in the background; the last 16 - source_bytes of them are set to 0. Copies are
 * committed in groups; wait until at most `open` of the latest groups are on their way, then __syncthreads(). */
static __device__ __forceinline__ void mover_copy_async(void *shared, const void *global, int source_bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((unsigned)__cvta_generic_to_shared(shared)),
                 "l"(global), "r"(source_bytes)
                 : "memory");
}
static __device__ __forceinline__ void mover_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int open> static __device__ __forceinline__ void mover_copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(open) : "memory");
}

/* Rounded to the 10 bits of mantissa of TF32, to nearest, ties away. */
static __device__ __forceinline__ float mover_to_tf32(float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __uint_as_float(bits);
}

/* D (16 x 8) += A (16 x 8) B (8 x 8) by the whole warp, factors in TF32, sums in float. Lane l, with g = l / 4 and
 * t = l % 4, holds a = A[g][t], A[g+8][t], A[g][t+4], A[g+8][t+4]; b = B[t][g], B[t+4][g];
 * d = D[g][2t], D[g][2t+1], D[g+8][2t], D[g+8][2t+1]. */
static __device__ __forceinline__ void mover_mma_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
                   "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

/* 2^x in about 2 units of the last digit; results that would be denormal are 0. */
static __device__ __forceinline__ float mover_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
static __device__ __forceinline__ double mover_exp2(double x) { return exp2(x); }

/* 1 / sqrt(x) in about 2 units of the last digit, for normal numbers x > 0. */
static __device__ __forceinline__ float mover_rsqrt(float x) {
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
static __device__ __forceinline__ double mover_rsqrt(double x) { return rsqrt(x); }

#else

#include <type_traits>

#include <cuda_on_cpu.h>

#define MOVER_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                   \
    ::cuemu::launch(#kernel, kernel, grid, block, shared_bytes, stream, __VA_ARGS__)
#define MOVER_LAUNCH_COOPERATIVE(kernel, grid, block, shared_bytes, stream, ...)                                       \
    ::cuemu::launch_cooperative(#kernel, kernel, grid, block, shared_bytes, stream, __VA_ARGS__)

#define MOVER_SHARED(type, name, ...)                                                                                  \
    typedef type name##_shared_type __VA_ARGS__;                                                                       \
    static char name##_shared_tag;                                                                                     \
    name##_shared_type &name = *static_cast<name##_shared_type *>(                                                     \
        ::cuemu::shared_alloc(&name##_shared_tag, sizeof(name##_shared_type), 16, #name))
#define MOVER_SHARED_DYNAMIC(type, name) type *const name = static_cast<type *>(::cuemu::shared_dyn(16))

#define MOVER_UNROLL
#define MOVER_NO_UNROLL

static inline void mover_grid_sync(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    ::cuemu::grid_barrier(file, line);
}

static inline void mover_copy_async(void *shared, const void *global, int source_bytes,
                                    const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    ::cuemu::cp_async(shared, global, 16, source_bytes, file, line);
}
static inline void mover_copy_commit() { ::cuemu::cp_async_commit(); }
template <int open> static inline void mover_copy_wait() { ::cuemu::cp_async_wait(open); }

static inline float mover_to_tf32(float x) { return ::cuemu::round_to_tf32(x); }
static inline void mover_mma_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2],
                                  const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    ::cuemu::mma_m16n8k8_tf32(d, a, b, file, line);
}

static inline float mover_exp2(float x) { return ::cuemu::exp2_approximate(x); }
static inline double mover_exp2(double x) { return exp2(x); }

static inline float mover_rsqrt(float x) { return ::cuemu::approximate(1 / sqrtf(x)); }
static inline double mover_rsqrt(double x) { return 1 / sqrt(x); }

#endif

#endif
