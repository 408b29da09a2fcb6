/*
 * product.h: matrix products by cuBLAS, on the handle that the host lends.
 */
#ifndef MOVER_CUDA_PRODUCT_H
#define MOVER_CUDA_PRODUCT_H

#include "../src/internal.h"

#ifdef __cplusplus
extern "C" {
#endif

/* C (n x m) = op(A) (n x d) op(B) (d x m), row-major with leading dimensions, as mover_gemm of mover.h: for `dtype`, in
 * its full precision or with factors in TF32. The handle's stream, math mode and pointer mode are set for the call and
 * put back. d = 0 gives zeros. MOVER_ERROR_ARGUMENT where the host lends no handle. */
mover_status mover_cuda_product(const char *function, const mover_exec *exec, mover_dtype dtype,
                                mover_precision precision, int transpose_a, int transpose_b, int64_t n, int64_t m,
                                int64_t d, const void *a, int64_t lda, const void *b, int64_t ldb, void *c,
                                int64_t ldc);

#ifdef __cplusplus
}
#endif

#endif
