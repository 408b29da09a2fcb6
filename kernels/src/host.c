/*
 * host.c: the workspace arena, and the functions that a host may lend: threads and matrix products.
 */
#include "internal.h"

#include <string.h>

enum { ALIGNMENT = 64 };
static const size_t largest = SIZE_MAX / 2 / ALIGNMENT * ALIGNMENT - ALIGNMENT; /* with room to align the base */

mover_arena mover_arena_over(void *workspace) {
    const uintptr_t address = (uintptr_t)workspace;
    const uintptr_t aligned = (address + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    mover_arena arena = {workspace ? (char *)workspace + (aligned - address) : NULL, 0, 0};
    return arena;
}

void *mover_take(mover_arena *arena, int64_t rows, int64_t columns, size_t size) {
    size_t bytes;
    if (rows < 0 || columns < 0 || __builtin_mul_overflow((size_t)rows, (size_t)columns, &bytes) ||
        __builtin_mul_overflow(bytes, size, &bytes) || bytes > largest - arena->used) {
        arena->overflow = 1;
        return NULL;
    }
    void *taken = arena->base ? arena->base + arena->used : NULL;
    arena->used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return taken;
}

mover_status mover_arena_size(const char *function, const mover_arena *arena, size_t *bytes) {
    if (arena->overflow)
        return mover_fail(MOVER_ERROR_OVERFLOW, "%s: the workspace for these sizes does not fit the address space",
                          function);
    *bytes = arena->used ? arena->used + ALIGNMENT : 0;
    return MOVER_OK;
}

mover_status mover_zero(const mover_exec *exec, void *data, size_t bytes) {
    if (!data || bytes == 0) return MOVER_OK;
#if defined(MOVER_WITH_CUDA)
    if (mover_on_cuda(exec)) return mover_cuda_zero(exec, data, bytes);
#else
    (void)exec;
#endif
    memset(data, 0, bytes);
    return MOVER_OK;
}

mover_status mover_run(const mover_exec *exec, int64_t begin, int64_t end, int64_t grain, mover_body body, void *ctx) {
    if (begin >= end) return MOVER_OK;
    if (!exec || !exec->parallel_for || end - begin <= grain) {
        body(begin, end, ctx);
        return MOVER_OK;
    }
    const int failure = exec->parallel_for(exec->host, begin, end, grain, body, ctx);
    if (failure) return mover_fail(MOVER_ERROR_HOST, "the host's parallel_for failed with code %d", failure);
    return MOVER_OK;
}

static void fill_zero(mover_dtype dtype, int64_t n, int64_t m, void *c, int64_t ldc) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            if (dtype == MOVER_FLOAT32)
                ((float *)c)[i * ldc + j] = 0;
            else
                ((double *)c)[i * ldc + j] = 0;
        }
}

mover_status mover_product(const mover_exec *exec, mover_dtype dtype, int transpose_a, int transpose_b, int64_t n,
                           int64_t m, int64_t d, const void *a, int64_t lda, const void *b, int64_t ldb, void *c,
                           int64_t ldc) {
    if (n == 0 || m == 0) return MOVER_OK;
    if (d == 0) {
        fill_zero(dtype, n, m, c, ldc);
        return MOVER_OK;
    }
    if (exec && exec->gemm) {
        const int failure = exec->gemm(exec->host, dtype, transpose_a, transpose_b, n, m, d, a, lda, b, ldb, c, ldc);
        if (failure) return mover_fail(MOVER_ERROR_HOST, "the host's gemm failed with code %d", failure);
        return MOVER_OK;
    }
    if (dtype == MOVER_FLOAT32) return mover_gemm_f32(exec, transpose_a, transpose_b, n, m, d, a, lda, b, ldb, c, ldc);
    return mover_gemm_f64(exec, transpose_a, transpose_b, n, m, d, a, lda, b, ldb, c, ldc);
}
