/*
 * cusolverDn.h: stands in for the dense part of cuSOLVER: batched Cholesky factorisation, column-major, in the order of
 * the stream.
 */
#ifndef CUEMU_CUSOLVER_DN_H
#define CUEMU_CUSOLVER_DN_H

#include "cublas_v2.h"

enum cusolverStatus_t {
    CUSOLVER_STATUS_SUCCESS = 0,
    CUSOLVER_STATUS_NOT_INITIALIZED = 1,
    CUSOLVER_STATUS_ALLOC_FAILED = 2,
    CUSOLVER_STATUS_INVALID_VALUE = 3,
    CUSOLVER_STATUS_EXECUTION_FAILED = 6,
    CUSOLVER_STATUS_INTERNAL_ERROR = 7
};

typedef struct cusolverDnContext *cusolverDnHandle_t;

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t *handle);
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle);
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream);
cusolverStatus_t cusolverDnGetStream(cusolverDnHandle_t handle, cudaStream_t *stream);

/* `matrices` and `info` are arrays on the device. The factor overwrites the triangle that `uplo` names; the other one
 * is neither read nor written. info[i] is 0, or the order of the leading minor of matrix i that is not positive. At
 * most 65535 matrices in a call. */
cusolverStatus_t cusolverDnSpotrfBatched(cusolverDnHandle_t handle, cublasFillMode_t uplo, int n, float *matrices[],
                                         int lda, int *info, int batch);
cusolverStatus_t cusolverDnDpotrfBatched(cusolverDnHandle_t handle, cublasFillMode_t uplo, int n, double *matrices[],
                                         int lda, int *info, int batch);

#endif
