/*
 * contrast.c: entry points of the cross entropy of scores: checks, then the backend.
 */
#include "backend.h"

static mover_status contrast_size(const char *function, const mover_contrast_desc *desc, int backward, size_t *bytes,
                                  const mover_exec *exec) {
    MOVER_TRY(mover_check_pointer(function, "desc", desc, 1));
    MOVER_TRY(mover_check_dtype(function, desc->dtype));
    MOVER_TRY(mover_check_exec(function, exec));
    MOVER_TRY(mover_check_size(function, "batch", desc->batch, 0));
    MOVER_TRY(mover_check_size(function, "n", desc->n, desc->batch > 0));
    if (!(desc->label_smoothing >= 0 && desc->label_smoothing <= 1))
        return mover_fail(MOVER_ERROR_ARGUMENT, "%s: label_smoothing must be from 0 to 1, got %g", function,
                          desc->label_smoothing);
    if (desc->denominator != MOVER_DENOMINATOR_ALL && desc->denominator != MOVER_DENOMINATOR_NEGATIVES)
        return mover_fail(MOVER_ERROR_ARGUMENT,
                          "%s: denominator must be MOVER_DENOMINATOR_ALL or MOVER_DENOMINATOR_NEGATIVES, got %d",
                          function, (int)desc->denominator);
    MOVER_TRY(mover_check_volume(function, desc->batch, desc->n, desc->n));
    MOVER_TRY(mover_check_pointer(function, "bytes", bytes, 1));
    mover_arena arena = {0};
    if (backward)
        MOVER_CALL(exec, desc->dtype, contrast_backward_layout, desc, &arena);
    else
        MOVER_CALL(exec, desc->dtype, contrast_layout, desc, &arena);
    return mover_arena_size(function, &arena, bytes);
}

mover_status mover_contrast_forward_workspace_size(const mover_contrast_desc *desc, size_t *bytes,
                                                   const mover_exec *exec) {
    return contrast_size("mover_contrast_forward_workspace_size", desc, 0, bytes, exec);
}

mover_status mover_contrast_backward_workspace_size(const mover_contrast_desc *desc, size_t *bytes,
                                                    const mover_exec *exec) {
    return contrast_size("mover_contrast_backward_workspace_size", desc, 1, bytes, exec);
}

mover_status mover_contrast_forward(const mover_contrast_desc *desc, const void *scores, const void *scale, void *loss,
                                    void *rows, void *columns, void *workspace, size_t bytes, const mover_exec *exec) {
    static const char function[] = "mover_contrast_forward";
    size_t needed;
    MOVER_TRY(contrast_size(function, desc, 0, &needed, exec));
    MOVER_TRY(mover_check_pointer(function, "scores", scores, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "loss", loss, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "rows", rows, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "columns", columns, desc->batch));
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    if (desc->batch == 0) return MOVER_OK;
    return MOVER_CALL(exec, desc->dtype, contrast_forward, desc, scores, scale, loss, rows, columns, workspace, exec);
}

mover_status mover_contrast_backward(const mover_contrast_desc *desc, const void *scores, const void *scale,
                                     const void *rows, const void *columns, const void *grad_loss, void *grad_scores,
                                     void *grad_scale, void *workspace, size_t bytes, const mover_exec *exec) {
    static const char function[] = "mover_contrast_backward";
    size_t needed;
    MOVER_TRY(contrast_size(function, desc, 1, &needed, exec));
    MOVER_TRY(mover_check_pointer(function, "scores", scores, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "rows", rows, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "columns", columns, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "grad_loss", grad_loss, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "grad_scores", grad_scores, desc->batch));
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, contrast_backward, desc, scores, scale, rows, columns, grad_loss, grad_scores,
                      grad_scale, workspace, exec);
}
