/*
 * scores.c: entry points of the scores stage: checks, then the backend.
 */
#include "../cpu/backend.h"

#include <string.h>

static mover_status scores_size(const char *function, const mover_volume_scores_desc *desc, int backward,
                                size_t *bytes) {
    MOVER_TRY(mover_check_pointer(function, "desc", desc, 1));
    MOVER_TRY(mover_check_dtype(function, desc->dtype));
    MOVER_TRY(mover_check_size(function, "n", desc->n, 0));
    MOVER_TRY(mover_check_size(function, "m", desc->m, 0));
    MOVER_TRY(mover_check_size(function, "d", desc->d, 0));
    if (desc->k < 2 || desc->k > MOVER_MAX_K)
        return mover_fail(MOVER_ERROR_ARGUMENT, "%s: k must be between 2 and %d (the anchor counts), got %lld",
                          function, MOVER_MAX_K, (long long)desc->k);
    if (desc->score == MOVER_SCORE_SPAN)
        return mover_fail(MOVER_ERROR_UNSUPPORTED, "%s: score span is not offered by version %s; use volume", function,
                          mover_version());
    if (desc->score != MOVER_SCORE_VOLUME)
        return mover_fail(MOVER_ERROR_ARGUMENT, "%s: score must be MOVER_SCORE_VOLUME, got %d", function,
                          (int)desc->score);
    MOVER_TRY(mover_check_precision(function, desc->precision));
    MOVER_TRY(mover_check_volume(function, desc->n, desc->m, desc->k));
    MOVER_TRY(mover_check_volume(function, desc->n, desc->d, 1));
    MOVER_TRY(mover_check_volume(function, desc->m, desc->k, mover_max(desc->k, desc->d)));
    MOVER_TRY(mover_check_pointer(function, "bytes", bytes, 1));
    mover_arena arena = {0};
    if (desc->dtype == MOVER_FLOAT32)
        (backward ? mover_cpu_volume_scores_backward_layout_f32 : mover_cpu_volume_scores_layout_f32)(desc, &arena);
    else
        (backward ? mover_cpu_volume_scores_backward_layout_f64 : mover_cpu_volume_scores_layout_f64)(desc, &arena);
    return mover_arena_size(function, &arena, bytes);
}

static mover_status check_rows(const char *function, const mover_volume_scores_desc *desc, const void *anchor,
                               const void *others, const uint8_t *mask, const mover_exec *exec) {
    MOVER_TRY(mover_check_exec(function, exec));
    if (mask)
        return mover_fail(MOVER_ERROR_UNSUPPORTED, "%s: a mask is not offered by version %s; mask must be NULL",
                          function, mover_version());
    MOVER_TRY(mover_check_pointer(function, "anchor", anchor, desc->n * desc->d));
    return mover_check_pointer(function, "others", others, desc->m * desc->d);
}

mover_status mover_volume_scores_forward_workspace_size(const mover_volume_scores_desc *desc, size_t *bytes) {
    return scores_size("mover_volume_scores_forward_workspace_size", desc, 0, bytes);
}

mover_status mover_volume_scores_backward_workspace_size(const mover_volume_scores_desc *desc, size_t *bytes) {
    return scores_size("mover_volume_scores_backward_workspace_size", desc, 1, bytes);
}

mover_status mover_volume_scores_forward(const mover_volume_scores_desc *desc, const void *anchor, const void *others,
                                         const uint8_t *mask, void *scores, void *workspace, size_t bytes,
                                         const mover_exec *exec) {
    static const char function[] = "mover_volume_scores_forward";
    size_t needed;
    MOVER_TRY(scores_size(function, desc, 0, &needed));
    MOVER_TRY(check_rows(function, desc, anchor, others, mask, exec));
    MOVER_TRY(mover_check_pointer(function, "scores", scores, desc->n * desc->m));
    if (desc->n == 0 || desc->m == 0) return MOVER_OK;
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    if (desc->dtype == MOVER_FLOAT32)
        return mover_cpu_volume_scores_forward_f32(desc, anchor, others, scores, workspace, exec);
    return mover_cpu_volume_scores_forward_f64(desc, anchor, others, scores, workspace, exec);
}

mover_status mover_volume_scores_backward(const mover_volume_scores_desc *desc, const void *anchor, const void *others,
                                          const uint8_t *mask, const void *grad_scores, void *grad_anchor,
                                          void *grad_others, void *workspace, size_t bytes, const mover_exec *exec) {
    static const char function[] = "mover_volume_scores_backward";
    size_t needed;
    MOVER_TRY(scores_size(function, desc, 1, &needed));
    MOVER_TRY(check_rows(function, desc, anchor, others, mask, exec));
    MOVER_TRY(mover_check_pointer(function, "grad_scores", grad_scores, desc->n * desc->m));
    if (desc->n == 0 || desc->m == 0 || desc->d == 0) { /* no pair: what there is of the gradients is 0 */
        const size_t size = desc->dtype == MOVER_FLOAT32 ? sizeof(float) : sizeof(double);
        if (grad_anchor) memset(grad_anchor, 0, (size_t)(desc->n * desc->d) * size);
        if (grad_others) memset(grad_others, 0, (size_t)(desc->m * (desc->k - 1) * desc->d) * size);
        return MOVER_OK;
    }
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    if (desc->dtype == MOVER_FLOAT32)
        return mover_cpu_volume_scores_backward_f32(desc, anchor, others, grad_scores, grad_anchor, grad_others,
                                                    workspace, exec);
    return mover_cpu_volume_scores_backward_f64(desc, anchor, others, grad_scores, grad_anchor, grad_others, workspace,
                                                exec);
}
