/*
 * cublas_v2.h: stands in for cuBLAS: products in the order of the stream, column-major, computed plainly. Arguments
 * that cuBLAS would trust are checked: leading dimensions, that every matrix lies within one device allocation, and
 * that the result overlaps no factor.
 */
#ifndef CUEMU_CUBLAS_V2_H
#define CUEMU_CUBLAS_V2_H

#include "cuda_on_cpu.h"

enum cublasStatus_t {
    CUBLAS_STATUS_SUCCESS = 0,
    CUBLAS_STATUS_NOT_INITIALIZED = 1,
    CUBLAS_STATUS_ALLOC_FAILED = 3,
    CUBLAS_STATUS_INVALID_VALUE = 7,
    CUBLAS_STATUS_EXECUTION_FAILED = 13,
    CUBLAS_STATUS_INTERNAL_ERROR = 14,
    CUBLAS_STATUS_NOT_SUPPORTED = 15
};
enum cublasOperation_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1, CUBLAS_OP_C = 2 };
enum cublasFillMode_t { CUBLAS_FILL_MODE_LOWER = 0, CUBLAS_FILL_MODE_UPPER = 1 };
enum cublasPointerMode_t { CUBLAS_POINTER_MODE_HOST = 0, CUBLAS_POINTER_MODE_DEVICE = 1 };
/* TF32 rounds the factors of float products; all others are exact factors, sums in the type of the result. */
enum cublasMath_t { CUBLAS_DEFAULT_MATH = 0, CUBLAS_PEDANTIC_MATH = 2, CUBLAS_TF32_TENSOR_OP_MATH = 3 };

typedef struct cublasContext *cublasHandle_t;

cublasStatus_t cublasCreate(cublasHandle_t *handle);
cublasStatus_t cublasDestroy(cublasHandle_t handle);
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream);
cublasStatus_t cublasGetStream(cublasHandle_t handle, cudaStream_t *stream);
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode);
cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t *mode);
cublasStatus_t cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t mode);
cublasStatus_t cublasGetPointerMode(cublasHandle_t handle, cublasPointerMode_t *mode);
cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void *workspace, size_t bytes);
const char *cublasGetStatusName(cublasStatus_t status);
const char *cublasGetStatusString(cublasStatus_t status);

/* C (m x n) = alpha op(A) (m x k) op(B) (k x n) + beta C; where beta is 0, C is not read. */
#define CUEMU_GEMM(name, type, size)                                                                                   \
    cublasStatus_t name(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, size m, size n, size k, \
                        const type *alpha, const type *a, size lda, const type *b, size ldb, const type *beta,         \
                        type *c, size ldc);
#define CUEMU_GEMM_BATCHED(name, type, size)                                                                           \
    cublasStatus_t name(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, size m, size n, size k, \
                        const type *alpha, const type *a, size lda, long long stride_a, const type *b, size ldb,       \
                        long long stride_b, const type *beta, type *c, size ldc, long long stride_c, size batch);
CUEMU_GEMM(cublasSgemm, float, int)
CUEMU_GEMM(cublasDgemm, double, int)
CUEMU_GEMM(cublasSgemm_64, float, int64_t)
CUEMU_GEMM(cublasDgemm_64, double, int64_t)
CUEMU_GEMM_BATCHED(cublasSgemmStridedBatched, float, int)
CUEMU_GEMM_BATCHED(cublasDgemmStridedBatched, double, int)
CUEMU_GEMM_BATCHED(cublasSgemmStridedBatched_64, float, int64_t)
CUEMU_GEMM_BATCHED(cublasDgemmStridedBatched_64, double, int64_t)
#undef CUEMU_GEMM
#undef CUEMU_GEMM_BATCHED

#endif
