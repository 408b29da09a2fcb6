/*
 * cusolver.cpp: see cusolverDn.h.
 */
#include "emulator.h"

#include <cusolverDn.h>

#include <algorithm>

using namespace cuemu;

constexpr int MOST_MATRICES = 65535;

struct cusolverDnContext {
    cudaStream_t stream = nullptr;
};

#define NEEDS(handle)                                                                                                  \
    if (!(handle)) return CUSOLVER_STATUS_NOT_INITIALIZED

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t *handle) {
    *handle = new cusolverDnContext;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) {
    NEEDS(handle);
    wait_for_all();
    delete handle;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream) {
    NEEDS(handle);
    handle->stream = stream;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnGetStream(cusolverDnHandle_t handle, cudaStream_t *stream) {
    NEEDS(handle);
    *stream = handle->stream;
    return CUSOLVER_STATUS_SUCCESS;
}

namespace {

/* The factor L, where row >= column, of a lower or of a transposed upper triangle. */
template <class T> struct triangle {
    T *data;
    int n, ld;
    bool lower;

    T &at(int row, int column) const {
        return lower ? data[static_cast<size_t>(column) * ld + row] : data[static_cast<size_t>(row) * ld + column];
    }
    size_t bytes() const { return (static_cast<size_t>(n - 1) * ld + n) * sizeof(T); }
    bool is_written() const {
        for (int row = 0; row < n; row++)
            for (int column = 0; column <= row; column++)
                if (!race_is_written(&at(row, column), sizeof(T))) return false;
        return true;
    }
    int factorise() const;
};

/* 0, or the order of the first leading minor that is not positive. */
template <class T> int triangle<T>::factorise() const {
    for (int column = 0; column < n; column++)
        for (int row = column; row < n; row++) {
            T sum = at(row, column);
            for (int p = 0; p < column; p++) sum -= at(row, p) * at(column, p);
            if (row > column)
                at(row, column) = sum / at(column, column);
            else if (sum > 0)
                at(row, row) = std::sqrt(sum);
            else
                return column + 1;
        }
    return 0;
}

template <class T>
void factorise_all(const char *name, bool lower, int n, T *const *data, int ld, int *info, int batch) {
    const device_access open;
    race_written(info, static_cast<size_t>(batch) * sizeof(int));
    if (!race_is_written(data, static_cast<size_t>(batch) * sizeof(T *))) {
        report(UNINITIALISED, std::string(name) + ": the array of matrices was never written");
        return;
    }
    for (int i = 0; i < batch; i++) {
        const triangle<T> matrix = {data[i], n, ld, lower};
        if (!is_device_range(matrix.data, matrix.bytes())) {
            report(BOUNDS, std::string(name) + text(": matrix %d leaves its device allocation", i));
            return;
        }
        if (!matrix.is_written()) report(UNINITIALISED, std::string(name) + text(": matrix %d was never written", i));
        info[i] = matrix.factorise();
    }
}

template <class T>
cusolverStatus_t potrf_batched(const char *name, cusolverDnHandle_t handle, cublasFillMode_t uplo, int n, T **data,
                               int ld, int *info, int batch) {
    NEEDS(handle);
    int failure;
    if (asked_to_fail(&failure)) return CUSOLVER_STATUS_EXECUTION_FAILED;
    const char *problem = nullptr;
    if (n < 0 || batch < 1)
        problem = "a size is negative, or there is no matrix";
    else if (batch > MOST_MATRICES)
        problem = "more than 65535 matrices";
    else if (ld < std::max(1, n))
        problem = "lda is smaller than n";
    else if (!is_device_range(data, static_cast<size_t>(batch) * sizeof(T *)))
        problem = "the array of matrices leaves its device allocation";
    else if (!is_device_range(info, static_cast<size_t>(batch) * sizeof(int)))
        problem = "info leaves its device allocation";
    if (problem) {
        report(CALL, std::string(name) + ": " + problem);
        return CUSOLVER_STATUS_INVALID_VALUE;
    }
    if (outcome() != cudaSuccess) return CUSOLVER_STATUS_EXECUTION_FAILED;
    const bool lower = uplo == CUBLAS_FILL_MODE_LOWER;
    if (n > 0) enqueue(handle->stream, [=] { factorise_all(name, lower, n, data, ld, info, batch); });
    return CUSOLVER_STATUS_SUCCESS;
}

} // namespace

cusolverStatus_t cusolverDnSpotrfBatched(cusolverDnHandle_t handle, cublasFillMode_t uplo, int n, float *matrices[],
                                         int lda, int *info, int batch) {
    return potrf_batched("cusolverDnSpotrfBatched", handle, uplo, n, matrices, lda, info, batch);
}
cusolverStatus_t cusolverDnDpotrfBatched(cusolverDnHandle_t handle, cublasFillMode_t uplo, int n, double *matrices[],
                                         int lda, int *info, int batch) {
    return potrf_batched("cusolverDnDpotrfBatched", handle, uplo, n, matrices, lda, info, batch);
}
