/*
 * product.cu: see product.h. cuBLAS is column-major: row-major C = op(A) op(B) is its C^T = op(B)^T op(A)^T on the same
 * memory.
 */
#include "product.h"

#include "device.h"

#include <cublas_v2.h>

static mover_status check(const char *function, cublasStatus_t status) {
    if (status == CUBLAS_STATUS_SUCCESS) return MOVER_OK;
    return mover_fail(MOVER_ERROR_CUDA, "%s: cuBLAS reported %s", function, cublasGetStatusString(status));
}

/* What a call changes in the host's handle. */
typedef struct settings {
    cudaStream_t stream;
    cublasMath_t math;
    cublasPointerMode_t pointer;
} settings;

static mover_status save(const char *function, cublasHandle_t handle, settings *saved) {
    MOVER_TRY(check(function, cublasGetStream(handle, &saved->stream)));
    MOVER_TRY(check(function, cublasGetMathMode(handle, &saved->math)));
    return check(function, cublasGetPointerMode(handle, &saved->pointer));
}

/* Setting a stream takes the handle's workspace away: only where it is another one. */
static mover_status apply(const char *function, cublasHandle_t handle, const settings *from, const settings *to) {
    if (from->stream != to->stream) MOVER_TRY(check(function, cublasSetStream(handle, to->stream)));
    MOVER_TRY(check(function, cublasSetMathMode(handle, to->math)));
    return check(function, cublasSetPointerMode(handle, to->pointer));
}

static mover_status multiply(const char *function, cublasHandle_t handle, mover_dtype dtype, int transpose_a,
                             int transpose_b, int64_t n, int64_t m, int64_t d, const void *a, int64_t lda,
                             const void *b, int64_t ldb, void *c, int64_t ldc) {
    const cublasOperation_t op_a = transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t op_b = transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    if (dtype == MOVER_FLOAT32) {
        const float one = 1, zero = 0;
        return check(function, cublasSgemm_64(handle, op_b, op_a, m, n, d, &one, (const float *)b, ldb,
                                              (const float *)a, lda, &zero, (float *)c, ldc));
    }
    const double one = 1, zero = 0;
    return check(function, cublasDgemm_64(handle, op_b, op_a, m, n, d, &one, (const double *)b, ldb, (const double *)a,
                                          lda, &zero, (double *)c, ldc));
}

mover_status mover_cuda_product(const char *function, const mover_exec *exec, mover_dtype dtype,
                                mover_precision precision, int transpose_a, int transpose_b, int64_t n, int64_t m,
                                int64_t d, const void *a, int64_t lda, const void *b, int64_t ldb, void *c,
                                int64_t ldc) {
    const cublasHandle_t handle = (cublasHandle_t)exec->blas;
    const size_t size = dtype == MOVER_FLOAT32 ? sizeof(float) : sizeof(double);
    if (n == 0 || m == 0) return MOVER_OK;
    if (d == 0)
        return mover_cuda_check(
            function, cudaMemset2DAsync(c, (size_t)ldc * size, 0, (size_t)m * size, (size_t)n, mover_stream(exec)));
    if (!handle) return mover_fail(MOVER_ERROR_ARGUMENT, "%s: exec.blas must be a cublasHandle_t, got NULL", function);
    const cublasMath_t math = precision == MOVER_PRECISION_TF32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH;
    settings saved, wanted = {mover_stream(exec), math, CUBLAS_POINTER_MODE_HOST};
    MOVER_TRY(save(function, handle, &saved));
    mover_status status = apply(function, handle, &saved, &wanted);
    if (status == MOVER_OK)
        status = multiply(function, handle, dtype, transpose_a, transpose_b, n, m, d, a, lda, b, ldb, c, ldc);
    const mover_status restored = apply(function, handle, &wanted, &saved);
    return status == MOVER_OK ? restored : status;
}
