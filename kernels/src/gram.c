/*
 * gram.c: entry points of the gram stage, Gram matrices and log-determinants: checks, then the backend.
 */
#include "backend.h"

/* ---- gram ------------------------------------------------------------------------------------------------------- */

static mover_status check_gram(const char *function, const mover_gram_desc *desc, const mover_exec *exec) {
    MOVER_TRY(mover_check_pointer(function, "desc", desc, 1));
    MOVER_TRY(mover_check_dtype(function, desc->dtype));
    MOVER_TRY(mover_check_size(function, "batch", desc->batch, 0));
    MOVER_TRY(mover_check_size(function, "k", desc->k, 1));
    MOVER_TRY(mover_check_size(function, "d", desc->d, 0));
    MOVER_TRY(mover_check_volume(function, desc->batch, desc->k, desc->k));
    MOVER_TRY(mover_check_volume(function, desc->batch, desc->k, desc->d));
    return mover_check_exec(function, exec);
}

mover_status mover_gram_forward(const mover_gram_desc *desc, const void *v, void *gram, const mover_exec *exec) {
    static const char function[] = "mover_gram_forward";
    MOVER_TRY(check_gram(function, desc, exec));
    MOVER_TRY(mover_check_pointer(function, "v", v, desc->batch * desc->k * desc->d));
    MOVER_TRY(mover_check_pointer(function, "gram", gram, desc->batch));
    if (desc->batch == 0) return MOVER_OK;
    return MOVER_CALL(exec, desc->dtype, gram_forward, desc, v, gram, exec);
}

mover_status mover_gram_backward(const mover_gram_desc *desc, const void *v, const void *grad_gram, void *grad_v,
                                 const mover_exec *exec) {
    static const char function[] = "mover_gram_backward";
    MOVER_TRY(check_gram(function, desc, exec));
    const int64_t count = desc->batch * desc->k * desc->d;
    MOVER_TRY(mover_check_pointer(function, "v", v, count));
    MOVER_TRY(mover_check_pointer(function, "grad_gram", grad_gram, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "grad_v", grad_v, count));
    if (count == 0) return MOVER_OK;
    return MOVER_CALL(exec, desc->dtype, gram_backward, desc, v, grad_gram, grad_v, exec);
}

/* ---- logdet ----------------------------------------------------------------------------------------------------- */

static mover_status logdet_size(const char *function, const mover_logdet_desc *desc, size_t *bytes,
                                const mover_exec *exec) {
    MOVER_TRY(mover_check_pointer(function, "desc", desc, 1));
    MOVER_TRY(mover_check_dtype(function, desc->dtype));
    MOVER_TRY(mover_check_exec(function, exec));
    MOVER_TRY(mover_check_size(function, "batch", desc->batch, 0));
    MOVER_TRY(mover_check_size(function, "k", desc->k, 1));
    MOVER_TRY(mover_check_volume(function, desc->batch, desc->k, desc->k));
    if (desc->factorization == MOVER_FACTORIZATION_CUSOLVER && !mover_on_cuda(exec))
        return mover_fail(MOVER_ERROR_UNSUPPORTED, "%s: factorization cusolver exists on CUDA only; use auto",
                          function);
    if (desc->factorization != MOVER_FACTORIZATION_AUTO && desc->factorization != MOVER_FACTORIZATION_REGISTERS &&
        desc->factorization != MOVER_FACTORIZATION_CUSOLVER)
        return mover_fail(MOVER_ERROR_ARGUMENT,
                          "%s: factorization must be MOVER_FACTORIZATION_AUTO, _REGISTERS or _CUSOLVER, got %d",
                          function, (int)desc->factorization);
    if (desc->factorization == MOVER_FACTORIZATION_REGISTERS && desc->k > MOVER_MAX_K)
        return mover_fail(MOVER_ERROR_ARGUMENT, "%s: factorization registers needs k <= %d, got %lld; use auto",
                          function, MOVER_MAX_K, (long long)desc->k);
    MOVER_TRY(mover_check_pointer(function, "bytes", bytes, 1));
    mover_arena arena = {0};
    MOVER_CALL(exec, desc->dtype, logdet_layout, desc, &arena);
    return mover_arena_size(function, &arena, bytes);
}

mover_status mover_logdet_workspace_size(const mover_logdet_desc *desc, size_t *bytes, const mover_exec *exec) {
    return logdet_size("mover_logdet_workspace_size", desc, bytes, exec);
}

mover_status mover_logdet_forward(const mover_logdet_desc *desc, const void *gram, void *logdet, int32_t *info,
                                  void *workspace, size_t bytes, const mover_exec *exec) {
    static const char function[] = "mover_logdet_forward";
    size_t needed;
    MOVER_TRY(logdet_size(function, desc, &needed, exec));
    MOVER_TRY(mover_check_pointer(function, "gram", gram, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "logdet", logdet, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "info", info, desc->batch));
    if (desc->batch == 0) return MOVER_OK;
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, logdet_forward, desc, gram, logdet, info, workspace, exec);
}

mover_status mover_logdet_backward(const mover_logdet_desc *desc, const void *gram, const void *grad_logdet,
                                   void *grad_gram, void *workspace, size_t bytes, const mover_exec *exec) {
    static const char function[] = "mover_logdet_backward";
    size_t needed;
    MOVER_TRY(logdet_size(function, desc, &needed, exec));
    MOVER_TRY(mover_check_pointer(function, "gram", gram, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "grad_logdet", grad_logdet, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "grad_gram", grad_gram, desc->batch));
    if (desc->batch == 0) return MOVER_OK;
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, logdet_backward, desc, gram, grad_logdet, grad_gram, workspace, exec);
}
