/*
 * cublas.cpp: see cublas_v2.h.
 */
#include "emulator.h"

#include <cublas_v2.h>

#include <algorithm>

using namespace cuemu;

struct cublasContext {
    cudaStream_t stream = nullptr;
    cublasMath_t math = CUBLAS_DEFAULT_MATH;
    cublasPointerMode_t pointer = CUBLAS_POINTER_MODE_HOST;
};

/* ---- the handle ---- */

#define NEEDS(handle)                                                                                                  \
    if (!(handle)) return CUBLAS_STATUS_NOT_INITIALIZED

cublasStatus_t cublasCreate(cublasHandle_t *handle) {
    *handle = new cublasContext;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
    NEEDS(handle);
    wait_for_all();
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
    NEEDS(handle);
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetStream(cublasHandle_t handle, cudaStream_t *stream) {
    NEEDS(handle);
    *stream = handle->stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
    NEEDS(handle);
    handle->math = mode;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t *mode) {
    NEEDS(handle);
    *mode = handle->math;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t mode) {
    NEEDS(handle);
    handle->pointer = mode;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetPointerMode(cublasHandle_t handle, cublasPointerMode_t *mode) {
    NEEDS(handle);
    *mode = handle->pointer;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void *workspace, size_t bytes) {
    NEEDS(handle);
    return is_device_range(workspace, bytes) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

const char *cublasGetStatusName(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR:
        return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
    return "CUBLAS_STATUS_UNKNOWN";
}
const char *cublasGetStatusString(cublasStatus_t status) {
    return status == CUBLAS_STATUS_INVALID_VALUE ? "an unsupported value or parameter was passed to the function"
                                                 : cublasGetStatusName(status);
}

/* ---- products ---- */

namespace {

/* A batch of matrices, column-major. */
template <class T> struct matrices {
    T *data;
    int64_t rows, columns, ld, stride, batch;

    bool empty() const { return rows == 0 || columns == 0 || batch == 0; }
    T *column(int64_t b, int64_t j) const { return data + b * stride + j * ld; }
    const T *end() const { return column(batch - 1, columns - 1) + rows; }

    bool fits() const {
        if (empty()) return true;
        return stride >= 0 && is_device_range(data, static_cast<size_t>(end() - data) * sizeof(T));
    }
    bool is_written() const {
        for (int64_t b = 0; b < batch; b++)
            for (int64_t j = 0; j < columns; j++)
                if (!race_is_written(column(b, j), static_cast<size_t>(rows) * sizeof(T))) return false;
        return true;
    }
    void mark_written() const {
        for (int64_t b = 0; b < batch; b++)
            for (int64_t j = 0; j < columns; j++) race_written(column(b, j), static_cast<size_t>(rows) * sizeof(T));
    }
};

template <class T> bool overlap(const matrices<const T> &a, const matrices<T> &c) {
    return !a.empty() && !c.empty() && a.data < c.end() && c.data < a.end();
}

template <class T> struct product {
    const char *name;
    bool transpose_a, transpose_b, tf32;
    int64_t m, n, k;
    T alpha, beta;
    matrices<const T> a, b;
    matrices<T> c;

    T factor(T x) const { return x; }
    const char *problem() const;
    void run() const;
};

template <> float product<float>::factor(float x) const { return tf32 ? round_to_tf32(x) : x; }

template <class T> const char *product<T>::problem() const {
    if (m < 0 || n < 0 || k < 0 || c.batch < 0) return "a size is negative";
    if (a.ld < std::max<int64_t>(1, a.rows)) return "lda is smaller than the rows of A";
    if (b.ld < std::max<int64_t>(1, b.rows)) return "ldb is smaller than the rows of B";
    if (c.ld < std::max<int64_t>(1, m)) return "ldc is smaller than the rows of C";
    if (c.empty()) return nullptr;
    if (!a.fits()) return "A leaves its device allocation";
    if (!b.fits()) return "B leaves its device allocation";
    if (!c.fits()) return "C leaves its device allocation";
    if (c.batch > 1 && c.stride < (n - 1) * c.ld + m) return "the matrices C overlap";
    if (overlap(a, c) || overlap(b, c)) return "C overlaps a factor";
    return nullptr;
}

template <class T> void product<T>::run() const {
    const device_access open;
    if (alpha != 0 && k > 0 && !(a.is_written() && b.is_written()))
        report(UNINITIALISED, std::string(name) + ": a factor was never written");
    if (beta != 0 && !c.is_written()) report(UNINITIALISED, std::string(name) + ": beta C was never written");
    for (int64_t q = 0; q < c.batch; q++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t i = 0; i < m; i++) {
                T sum = 0;
                for (int64_t l = 0; l < k; l++) {
                    const T x = transpose_a ? a.column(q, i)[l] : a.column(q, l)[i];
                    const T y = transpose_b ? b.column(q, l)[j] : b.column(q, j)[l];
                    sum += factor(x) * factor(y);
                }
                T &out = c.column(q, j)[i];
                out = beta == 0 ? alpha * sum : alpha * sum + beta * out;
            }
    c.mark_written();
}

template <class T>
cublasStatus_t multiply(const char *name, cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b,
                        int64_t m, int64_t n, int64_t k, const T *alpha, const T *a, int64_t lda, int64_t stride_a,
                        const T *b, int64_t ldb, int64_t stride_b, const T *beta, T *c, int64_t ldc, int64_t stride_c,
                        int64_t batch) {
    NEEDS(handle);
    int failure;
    if (asked_to_fail(&failure)) return CUBLAS_STATUS_EXECUTION_FAILED;
    const auto refused = [name](const char *sentence) {
        report(CALL, std::string(name) + ": " + sentence);
        return CUBLAS_STATUS_INVALID_VALUE;
    };
    if (handle->pointer != CUBLAS_POINTER_MODE_HOST) return refused("alpha and beta must be on the host");
    if (find_allocation(alpha) || find_allocation(beta)) return refused("alpha or beta is on the device");
    const bool transpose_a = op_a != CUBLAS_OP_N, transpose_b = op_b != CUBLAS_OP_N;
    product<T> p = {name,
                    transpose_a,
                    transpose_b,
                    handle->math == CUBLAS_TF32_TENSOR_OP_MATH,
                    m,
                    n,
                    k,
                    *alpha,
                    *beta,
                    {a, transpose_a ? k : m, transpose_a ? m : k, lda, stride_a, batch},
                    {b, transpose_b ? n : k, transpose_b ? k : n, ldb, stride_b, batch},
                    {c, m, n, ldc, stride_c, batch}};
    if (const char *sentence = p.problem()) return refused(sentence);
    if (outcome() != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
    if (!p.c.empty()) enqueue(handle->stream, [p] { p.run(); });
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace

#define CUEMU_GEMM(name, type, size)                                                                                   \
    cublasStatus_t name(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, size m, size n, size k, \
                        const type *alpha, const type *a, size lda, const type *b, size ldb, const type *beta,         \
                        type *c, size ldc) {                                                                           \
        return multiply<type>(#name, handle, op_a, op_b, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1);    \
    }
#define CUEMU_GEMM_BATCHED(name, type, size)                                                                           \
    cublasStatus_t name(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, size m, size n, size k, \
                        const type *alpha, const type *a, size lda, long long stride_a, const type *b, size ldb,       \
                        long long stride_b, const type *beta, type *c, size ldc, long long stride_c, size batch) {     \
        return multiply<type>(#name, handle, op_a, op_b, m, n, k, alpha, a, lda, stride_a, b, ldb, stride_b, beta, c,  \
                              ldc, stride_c, batch);                                                                   \
    }
CUEMU_GEMM(cublasSgemm, float, int)
CUEMU_GEMM(cublasDgemm, double, int)
CUEMU_GEMM(cublasSgemm_64, float, int64_t)
CUEMU_GEMM(cublasDgemm_64, double, int64_t)
CUEMU_GEMM_BATCHED(cublasSgemmStridedBatched, float, int)
CUEMU_GEMM_BATCHED(cublasDgemmStridedBatched, double, int)
CUEMU_GEMM_BATCHED(cublasSgemmStridedBatched_64, float, int64_t)
CUEMU_GEMM_BATCHED(cublasDgemmStridedBatched_64, double, int64_t)
