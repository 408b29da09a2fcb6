/*
 * logdet.cu: log-determinants of symmetric positive definite matrices.
 *
 *     forward    logdet = log det G
 *     backward   grad_gram = grad_logdet G^-1
 *
 * In double whatever the type, from the lower triangle. In registers: up to order MOVER_MAX_K a thread factorises a
 * matrix, G = L D L^T. By cuSOLVER: copies in the workspace, some at a time, become their Cholesky factors. A matrix
 * with a pivot that is not above the smallest normal number is not positive definite: logdet -inf, gradient 0 and
 * info > 0. One that is not finite has logdet and gradient NaN and info 0; cuSOLVER gets the identity in its place.
 *
 * cuSOLVER is column-major: the lower triangle, row by row, is its upper one, and what it leaves there is L, row by
 * row.
 */
#include "real.h"

#include "../src/backend.h"
#include "device.h"
#include "reduce.cuh"
#include "small_matrix.cuh"

#include <cusolverDn.h>

/* ---- in registers ------------------------------------------------------------------------------------------------ */

enum { THREADS = 64 }; /* matrices of a block */

/* Between memory and one matrix a thread, whose places are an odd number of elements apart. */
template <int k> static __device__ __forceinline__ real *own_matrix(real *shared) {
    return shared + threadIdx.x * (k * k | 1);
}

template <int k> static __device__ __forceinline__ void load_matrices(const real *gram, int count, real *shared) {
    for (int q = (int)threadIdx.x; q < count * k * k; q += THREADS)
        shared[q / (k * k) * (k * k | 1) + q % (k * k)] = gram[q];
}

template <int k> static __device__ __forceinline__ void store_matrices(const real *shared, int count, real *gram) {
    for (int q = (int)threadIdx.x; q < count * k * k; q += THREADS)
        gram[q] = shared[q / (k * k) * (k * k | 1) + q % (k * k)];
}

/* The factors of a matrix. *poison is 0, or NaN where an entry is not finite. */
template <int k>
static __device__ __forceinline__ int factor(const real *matrix, double (&a)[at(k, 0)], double *poison) {
    double least[k];
    *poison = 0;
    MOVER_UNROLL
    for (int i = 0; i < k; i++) {
        least[i] = DBL_MIN;
        MOVER_UNROLL
        for (int j = 0; j <= i; j++) {
            a[at(i, j)] = (double)matrix[i * k + j];
            *poison += 0 * a[at(i, j)];
        }
    }
    return matrix_factor<k>(a, least);
}

/* logdet = sum_j log d_j, as one logarithm of the product of the mantissas. A block owns THREADS matrices, a thread one
 * of them. Shared: THREADS matrices. Each element is read once. */
template <int k>
static __global__ void __launch_bounds__(THREADS)
    forward_kernel(const real *gram, int64_t batch, real *logdet, int32_t *info) {
    MOVER_SHARED(real, shared, [THREADS * (k * k | 1)]);
    for (int64_t first = (int64_t)blockIdx.x * THREADS; first < batch; first += (int64_t)gridDim.x * THREADS) {
        const int count = batch - first < THREADS ? (int)(batch - first) : THREADS;
        load_matrices<k>(gram + first * k * k, count, shared);
        __syncthreads();
        if ((int)threadIdx.x < count) {
            double a[at(k, 0)], poison, mantissa = 1;
            int order = factor<k>(own_matrix<k>(shared), a, &poison), exponent = 0;
            MOVER_UNROLL
            for (int j = 0; j < k; j++) {
                int power;
                mantissa *= frexp(a[at(j, j)], &power);
                exponent += power;
            }
            const double ln2 = 0.693147180559945309417, value = log(mantissa) + exponent * ln2;
            logdet[first + threadIdx.x] = (real)(poison != 0 ? poison : order > 0 ? -INFINITY : value);
            info[first + threadIdx.x] = poison != 0 ? 0 : order;
        }
        __syncthreads();
    }
}

/* grad_gram = grad_logdet G^-1. As forward_kernel; each element is read and written once. */
template <int k>
static __global__ void __launch_bounds__(THREADS)
    backward_kernel(const real *gram, const real *grad_logdet, int64_t batch, real *grad_gram) {
    MOVER_SHARED(real, shared, [THREADS * (k * k | 1)]);
    for (int64_t first = (int64_t)blockIdx.x * THREADS; first < batch; first += (int64_t)gridDim.x * THREADS) {
        const int count = batch - first < THREADS ? (int)(batch - first) : THREADS;
        load_matrices<k>(gram + first * k * k, count, shared);
        __syncthreads();
        if ((int)threadIdx.x < count) {
            real *matrix = own_matrix<k>(shared);
            double a[at(k, 0)], poison;
            const int order = factor<k>(matrix, a, &poison);
            const double grad = (double)grad_logdet[first + threadIdx.x];
            matrix_invert_lower<k>(a);
            matrix_inverse<k>(a);
            MOVER_UNROLL
            for (int i = 0; i < k; i++) {
                MOVER_UNROLL
                for (int j = 0; j <= i; j++) {
                    const double entry = poison != 0 ? poison : order > 0 ? 0 : grad * a[at(i, j)];
                    matrix[i * k + j] = matrix[j * k + i] = (real)entry;
                }
            }
        }
        __syncthreads();
        store_matrices<k>(shared, count, grad_gram + first * k * k);
        __syncthreads();
    }
}

template <int k>
static cudaError_t launch(const mover_logdet_desc *desc, const real *gram, const real *grad_logdet, real *logdet,
                          int32_t *info, real *grad_gram, const mover_exec *exec) {
    const unsigned blocks = mover_blocks(mover_ceil_div(desc->batch, THREADS), MOVER_MOST_BLOCKS);
    if (grad_gram)
        return MOVER_LAUNCH(backward_kernel<k>, blocks, THREADS, 0, mover_stream(exec), gram, grad_logdet, desc->batch,
                            grad_gram);
    return MOVER_LAUNCH(forward_kernel<k>, blocks, THREADS, 0, mover_stream(exec), gram, desc->batch, logdet, info);
}

static cudaError_t in_registers(const mover_logdet_desc *desc, const real *gram, const real *grad_logdet, real *logdet,
                                int32_t *info, real *grad_gram, const mover_exec *exec) {
    switch (desc->k) {
    case 1:
        return launch<1>(desc, gram, grad_logdet, logdet, info, grad_gram, exec);
    case 2:
        return launch<2>(desc, gram, grad_logdet, logdet, info, grad_gram, exec);
    case 3:
        return launch<3>(desc, gram, grad_logdet, logdet, info, grad_gram, exec);
    case 4:
        return launch<4>(desc, gram, grad_logdet, logdet, info, grad_gram, exec);
    case 5:
        return launch<5>(desc, gram, grad_logdet, logdet, info, grad_gram, exec);
    case 6:
        return launch<6>(desc, gram, grad_logdet, logdet, info, grad_gram, exec);
    case 7:
        return launch<7>(desc, gram, grad_logdet, logdet, info, grad_gram, exec);
    default:
        return launch<8>(desc, gram, grad_logdet, logdet, info, grad_gram, exec);
    }
}

/* ---- by cuSOLVER ------------------------------------------------------------------------------------------------- */

enum { COLUMN_THREADS = 64, MOST_MATRICES = 65535, MOST_BYTES = 1 << 28 };

namespace {

typedef struct solver_scratch {
    int64_t chunk;     /* matrices at a time */
    double *factors;   /* (chunk, k, k) */
    double *inverses;  /* (chunk, k, k), lower triangles */
    double **pointers; /* (chunk), to the factors */
    int32_t *info;     /* (chunk) */
    int32_t *finite;   /* (chunk), 0: an entry is not finite */
} solver_scratch;

} // namespace

static solver_scratch take_scratch(const mover_logdet_desc *desc, mover_arena *arena) {
    solver_scratch scratch = {};
    if (desc->factorization == MOVER_FACTORIZATION_REGISTERS) return scratch;
    if (desc->factorization == MOVER_FACTORIZATION_AUTO && desc->k <= MOVER_MAX_K) return scratch;
    const int64_t size = desc->k * desc->k, fitting = MOST_BYTES / (2 * (int64_t)sizeof(double)) / size;
    scratch.chunk = mover_min(desc->batch, mover_max(1, mover_min(MOST_MATRICES, fitting)));
    scratch.factors = (double *)mover_take(arena, scratch.chunk, size, sizeof(double));
    scratch.inverses = (double *)mover_take(arena, scratch.chunk, size, sizeof(double));
    scratch.pointers = (double **)mover_take(arena, scratch.chunk, 1, sizeof(double *));
    scratch.info = (int32_t *)mover_take(arena, scratch.chunk, 1, sizeof(int32_t));
    scratch.finite = (int32_t *)mover_take(arena, scratch.chunk, 1, sizeof(int32_t));
    return scratch;
}

/* The lower triangles in double, or of the identity. A warp owns a matrix, a lane every 32nd element of it. */
static __global__ void __launch_bounds__(WARP)
    copy_kernel(const real *gram, int64_t k, double *factors, double **pointers, int32_t *finite) {
    const real *from = gram + (int64_t)blockIdx.x * k * k;
    double *to = factors + (int64_t)blockIdx.x * k * k;
    double poison = 0;
    for (int64_t q = threadIdx.x; q < k * k; q += WARP)
        if (q % k <= q / k) poison += 0 * (double)from[q];
    const int bad = __any_sync(0xffffffffu, poison != 0);
    for (int64_t q = threadIdx.x; q < k * k; q += WARP) {
        const int64_t i = q / k, j = q % k;
        if (j <= i) to[q] = bad ? (i == j ? 1 : 0) : (double)from[q];
    }
    if (threadIdx.x == 0) {
        pointers[blockIdx.x] = to;
        finite[blockIdx.x] = !bad;
    }
}

/* info = 0, or the order of the first leading minor that is not positive; logdet = 2 sum_j log l_jj, unless it is NULL.
 * A warp owns a matrix, a lane every 32nd element of its diagonal. */
static __global__ void __launch_bounds__(WARP)
    diagonal_kernel(const double *factors, int64_t k, const int32_t *finite, int32_t *info, real *logdet) {
    const double *factor = factors + (int64_t)blockIdx.x * k * k;
    const int end = info[blockIdx.x] > 0 ? info[blockIdx.x] - 1 : (int)k;
    unsigned order = info[blockIdx.x] > 0 ? (unsigned)info[blockIdx.x] : ~0u;
    double sum = 0;
    for (int j = (int)threadIdx.x; j < end; j += WARP) {
        const double root = factor[j * (k + 1)];
        if (root * root <= DBL_MIN && order > (unsigned)j + 1) order = (unsigned)j + 1;
        sum += log(root);
    }
    sum = mover_warp_sum(sum);
    order = __reduce_min_sync(0xffffffffu, order);
    __syncwarp();
    if (threadIdx.x != 0) return;
    info[blockIdx.x] = order == ~0u ? 0 : (int32_t)order;
    if (logdet) logdet[blockIdx.x] = (real)(!finite[blockIdx.x] ? NAN : order != ~0u ? -INFINITY : 2 * sum);
}

/* grad_gram = grad_logdet G^-1. A block owns a matrix, a thread every 64th column j: it solves L z = e_j and L^T x = z
 * from the diagonal down, z and then x in `inverses`; what is above the diagonal is its mirror image. The elements of L
 * that the threads read at a time are the same, those of z are neighbours. No sum is shared. */
static __global__ void __launch_bounds__(COLUMN_THREADS)
    inverse_kernel(const double *factors, int64_t k, const int32_t *finite, const int32_t *info,
                   const real *grad_logdet, double *inverses, real *grad_gram) {
    const double *l = factors + (int64_t)blockIdx.x * k * k;
    double *z = inverses + (int64_t)blockIdx.x * k * k;
    real *to = grad_gram + (int64_t)blockIdx.x * k * k;
    const double grad = (double)grad_logdet[blockIdx.x];
    const bool solvable = finite[blockIdx.x] && info[blockIdx.x] == 0;
    for (int64_t j = threadIdx.x; j < k; j += COLUMN_THREADS) {
        for (int64_t i = j; i < k && solvable; i++) {
            double sum = i == j ? 1 : 0;
            for (int64_t p = j; p < i; p++) sum = fma(-l[i * k + p], z[p * k + j], sum);
            z[i * k + j] = sum / l[i * k + i];
        }
        for (int64_t i = k - 1; i >= j; i--) {
            double sum = 0;
            if (solvable) {
                sum = z[i * k + j];
                for (int64_t p = i + 1; p < k; p++) sum = fma(-l[p * k + i], z[p * k + j], sum);
                sum /= l[i * k + i];
                z[i * k + j] = sum;
            }
            const real entry = (real)(solvable ? grad * sum : finite[blockIdx.x] ? 0 : NAN);
            to[i * k + j] = entry;
            to[j * k + i] = entry;
        }
    }
}

static const char *name_of(cusolverStatus_t status) {
    switch (status) {
    case CUSOLVER_STATUS_NOT_INITIALIZED:
        return "CUSOLVER_STATUS_NOT_INITIALIZED";
    case CUSOLVER_STATUS_ALLOC_FAILED:
        return "CUSOLVER_STATUS_ALLOC_FAILED";
    case CUSOLVER_STATUS_INVALID_VALUE:
        return "CUSOLVER_STATUS_INVALID_VALUE";
    case CUSOLVER_STATUS_EXECUTION_FAILED:
        return "CUSOLVER_STATUS_EXECUTION_FAILED";
    case CUSOLVER_STATUS_INTERNAL_ERROR:
        return "CUSOLVER_STATUS_INTERNAL_ERROR";
    default:
        return "a status without a name";
    }
}

static mover_status check(const char *function, cusolverStatus_t status) {
    if (status == CUSOLVER_STATUS_SUCCESS) return MOVER_OK;
    return mover_fail(MOVER_ERROR_CUDA, "%s: cuSOLVER reported %s (%d)", function, name_of(status), (int)status);
}

/* On the stream of the call; the handle's own is put back. */
static mover_status factorize(const char *function, int64_t k, int64_t count, const solver_scratch *scratch,
                              int32_t *info, const mover_exec *exec) {
    const cusolverDnHandle_t handle = (cusolverDnHandle_t)exec->solver;
    cudaStream_t stream;
    MOVER_TRY(check(function, cusolverDnGetStream(handle, &stream)));
    MOVER_TRY(check(function, cusolverDnSetStream(handle, mover_stream(exec))));
    const mover_status status = check(function, cusolverDnDpotrfBatched(handle, CUBLAS_FILL_MODE_UPPER, (int)k,
                                                                        scratch->pointers, (int)k, info, (int)count));
    const mover_status restored = check(function, cusolverDnSetStream(handle, stream));
    return status == MOVER_OK ? restored : status;
}

static mover_status by_solver(const char *function, const mover_logdet_desc *desc, const solver_scratch *scratch,
                              const real *gram, const real *grad_logdet, real *logdet, int32_t *info, real *grad_gram,
                              const mover_exec *exec) {
    const int64_t k = desc->k, size = k * k;
    if (!exec->solver)
        return mover_fail(MOVER_ERROR_ARGUMENT, "%s: exec.solver must be a cusolverDnHandle_t, got NULL", function);
    for (int64_t first = 0; first < desc->batch; first += scratch->chunk) {
        const int64_t count = mover_min(scratch->chunk, desc->batch - first);
        int32_t *order = info ? info + first : scratch->info;
        real *value = logdet ? logdet + first : NULL;
        MOVER_CUDA_TRY(function,
                       MOVER_LAUNCH(copy_kernel, (unsigned)count, WARP, 0, mover_stream(exec), gram + first * size, k,
                                    scratch->factors, scratch->pointers, scratch->finite));
        MOVER_TRY(factorize(function, k, count, scratch, order, exec));
        MOVER_CUDA_TRY(function, MOVER_LAUNCH(diagonal_kernel, (unsigned)count, WARP, 0, mover_stream(exec),
                                              scratch->factors, k, scratch->finite, order, value));
        if (grad_gram)
            MOVER_CUDA_TRY(function, MOVER_LAUNCH(inverse_kernel, (unsigned)count, COLUMN_THREADS, 0,
                                                  mover_stream(exec), scratch->factors, k, scratch->finite, order,
                                                  grad_logdet + first, scratch->inverses, grad_gram + first * size));
    }
    return MOVER_OK;
}

/* ---- entry points ------------------------------------------------------------------------------------------------ */

void R(mover_cuda_logdet_layout)(const mover_logdet_desc *desc, mover_arena *arena) { (void)take_scratch(desc, arena); }

static mover_status run(const char *function, const mover_logdet_desc *desc, const real *gram, const real *grad_logdet,
                        real *logdet, int32_t *info, real *grad_gram, void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    const solver_scratch scratch = take_scratch(desc, &arena);
    if (scratch.chunk > 0) return by_solver(function, desc, &scratch, gram, grad_logdet, logdet, info, grad_gram, exec);
    return mover_cuda_check(function, in_registers(desc, gram, grad_logdet, logdet, info, grad_gram, exec));
}

mover_status R(mover_cuda_logdet_forward)(const mover_logdet_desc *desc, const real *gram, real *logdet, int32_t *info,
                                          void *workspace, const mover_exec *exec) {
    return run("mover_logdet_forward", desc, gram, NULL, logdet, info, NULL, workspace, exec);
}

mover_status R(mover_cuda_logdet_backward)(const mover_logdet_desc *desc, const real *gram, const real *grad_logdet,
                                           real *grad_gram, void *workspace, const mover_exec *exec) {
    return run("mover_logdet_backward", desc, gram, grad_logdet, NULL, NULL, grad_gram, workspace, exec);
}
