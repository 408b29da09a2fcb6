/*
 * internal.h: what the library's own files share: errors, workspace layout, lent threads and products.
 */
#ifndef MOVER_INTERNAL_H
#define MOVER_INTERNAL_H

#include "mover/mover.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Records a sentence for mover_last_error() and returns `status`. */
mover_status mover_fail(mover_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- workspace ---------------------------------------------------------------------------------------------------
 * A layout function takes its arrays from an arena in a fixed order. With base = NULL the same function measures:
 * `used` is then the size that the caller must provide. Arrays start on 64-byte boundaries of the (aligned) base. */
typedef struct mover_arena {
    char *base;
    size_t used;
    int overflow;
} mover_arena;

/* An arena over the caller's workspace; its base is rounded up to 64 bytes. */
mover_arena mover_arena_over(void *workspace);

/* Room for rows * columns elements of `size` bytes. NULL while measuring. */
void *mover_take(mover_arena *arena, int64_t rows, int64_t columns, size_t size);

/* The size to report for a measured arena: rounding of the base included. MOVER_ERROR_OVERFLOW if it does not fit. */
mover_status mover_arena_size(const char *function, const mover_arena *arena, size_t *bytes);

/* ---- argument checks: each returns MOVER_OK or records a sentence that names the function -------------------------
 */
mover_status mover_check_size(const char *function, const char *name, int64_t value, int64_t least);
mover_status mover_check_pointer(const char *function, const char *name, const void *pointer, int64_t count);
mover_status mover_check_workspace(const char *function, const void *workspace, size_t bytes, size_t needed);
mover_status mover_check_dtype(const char *function, mover_dtype dtype);
mover_status mover_check_precision(const char *function, mover_precision precision, const mover_exec *exec);
/* n1 * n2 * n3 elements of 8 bytes must be addressable; a size of 0 counts as 1. */
mover_status mover_check_volume(const char *function, int64_t n1, int64_t n2, int64_t n3);
/* The backend must be part of this build. */
mover_status mover_check_exec(const char *function, const mover_exec *exec);

#define MOVER_TRY(call)                                                                                                \
    do {                                                                                                               \
        const mover_status try_status = (call);                                                                        \
        if (try_status != MOVER_OK) return try_status;                                                                 \
    } while (0)

/* 1 where pointers are in the memory of a CUDA device, which the host cannot read. */
static inline int mover_on_cuda(const mover_exec *exec) { return exec && exec->backend == MOVER_CUDA; }

/* Zeros in the memory of the backend; nothing where `data` is NULL. */
mover_status mover_zero(const mover_exec *exec, void *data, size_t bytes);
mover_status mover_cuda_zero(const mover_exec *exec, void *data, size_t bytes);

/* ---- lent functions ------------------------------------------------------------------------------------------------
 */

/* body over [begin, end) on the host's threads, or here. */
mover_status mover_run(const mover_exec *exec, int64_t begin, int64_t end, int64_t grain, mover_body body, void *ctx);

/* C (n, m) = op(A) op(B) by the host's gemm, or by the library's own loops. Empty products give zeros. */
mover_status mover_product(const mover_exec *exec, mover_dtype dtype, int transpose_a, int transpose_b, int64_t n,
                           int64_t m, int64_t d, const void *a, int64_t lda, const void *b, int64_t ldb, void *c,
                           int64_t ldc);

/* The library's own product; `exec` lends threads only. */
mover_status mover_gemm_f32(const mover_exec *exec, int transpose_a, int transpose_b, int64_t n, int64_t m, int64_t d,
                            const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc);
mover_status mover_gemm_f64(const mover_exec *exec, int transpose_a, int transpose_b, int64_t n, int64_t m, int64_t d,
                            const double *a, int64_t lda, const double *b, int64_t ldb, double *c, int64_t ldc);

static inline int64_t mover_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t mover_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t mover_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Iterations per piece of work such that a piece is worth a thread, when one iteration takes `cost` simple operations.
 */
static inline int64_t mover_grain(int64_t cost) { return mover_max(1, 32768 / mover_max(1, cost)); }

#ifdef __cplusplus
}
#endif

#endif
