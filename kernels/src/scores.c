/*
 * scores.c: entry points of the scores stage: checks, then the backend.
 */
#include "backend.h"

typedef enum call_kind { FORWARD, BACKWARD, TOPK, RANK } call_kind;

static mover_status check_scores(const char *function, const mover_volume_scores_desc *desc, call_kind kind,
                                 const mover_exec *exec) {
    MOVER_TRY(mover_check_pointer(function, "desc", desc, 1));
    MOVER_TRY(mover_check_dtype(function, desc->dtype));
    MOVER_TRY(mover_check_exec(function, exec));
    MOVER_TRY(mover_check_size(function, "n", desc->n, 0));
    MOVER_TRY(mover_check_size(function, "m", desc->m, 0));
    MOVER_TRY(mover_check_size(function, "d", desc->d, 0));
    if (desc->k < 2 || desc->k > MOVER_MAX_K)
        return mover_fail(MOVER_ERROR_ARGUMENT, "%s: k must be between 2 and %d (the anchor counts), got %lld",
                          function, MOVER_MAX_K, (long long)desc->k);
    const int ranks = kind == TOPK || kind == RANK;
    if (desc->score != MOVER_SCORE_VOLUME && desc->score != MOVER_SCORE_SPAN &&
        !(ranks && desc->score == MOVER_SCORE_COSINE))
        return mover_fail(MOVER_ERROR_ARGUMENT, "%s: score must be MOVER_SCORE_VOLUME%s, got %d", function,
                          ranks ? ", MOVER_SCORE_SPAN or MOVER_SCORE_COSINE" : " or MOVER_SCORE_SPAN",
                          (int)desc->score);
    MOVER_TRY(mover_check_precision(function, desc->precision, exec));
    if (kind == TOPK && (desc->topk < 1 || desc->topk > desc->m))
        return mover_fail(MOVER_ERROR_ARGUMENT, "%s: topk must be from 1 to m = %lld, got %lld", function,
                          (long long)desc->m, (long long)desc->topk);
    if (kind != TOPK && kind != RANK) MOVER_TRY(mover_check_volume(function, desc->n, desc->m, desc->k));
    MOVER_TRY(mover_check_volume(function, desc->n, desc->d, 1));
    if (kind == TOPK) MOVER_TRY(mover_check_volume(function, desc->n, desc->topk, 1));
    return mover_check_volume(function, desc->m, desc->k, mover_max(desc->k, desc->d));
}

static mover_status scores_size(const char *function, const mover_volume_scores_desc *desc, call_kind kind,
                                size_t *bytes, const mover_exec *exec) {
    MOVER_TRY(check_scores(function, desc, kind, exec));
    MOVER_TRY(mover_check_pointer(function, "bytes", bytes, 1));
    mover_arena arena = {0};
    if (kind == FORWARD)
        MOVER_CALL(exec, desc->dtype, volume_scores_layout, desc, &arena);
    else if (kind == BACKWARD)
        MOVER_CALL(exec, desc->dtype, volume_scores_backward_layout, desc, &arena);
    else
        MOVER_CALL(exec, desc->dtype, ranking_layout, desc, &arena);
    return mover_arena_size(function, &arena, bytes);
}

static mover_status check_rows(const char *function, const mover_volume_scores_desc *desc, const void *anchor,
                               const void *others, const uint8_t *mask) {
    MOVER_TRY(mover_check_pointer(function, "anchor", anchor, desc->n * desc->d));
    MOVER_TRY(mover_check_pointer(function, "others", others, desc->m * desc->d));
    if (!desc->masked && mask)
        return mover_fail(MOVER_ERROR_ARGUMENT, "%s: a mask is given, so desc.masked must be 1", function);
    return mover_check_pointer(function, "mask", mask, desc->masked ? desc->m : 0);
}

/* Every target is a group; those on a device are not read here. */
static mover_status check_targets(const char *function, const mover_volume_scores_desc *desc, const int64_t *target,
                                  const mover_exec *exec) {
    if (mover_on_cuda(exec)) return MOVER_OK;
    for (int64_t i = 0; i < desc->n; i++)
        if (target[i] < 0 || target[i] >= desc->m)
            return mover_fail(MOVER_ERROR_ARGUMENT, "%s: target[%lld] must be a group from 0 to %lld, got %lld",
                              function, (long long)i, (long long)(desc->m - 1), (long long)target[i]);
    return MOVER_OK;
}

mover_status mover_volume_scores_forward_workspace_size(const mover_volume_scores_desc *desc, size_t *bytes,
                                                        const mover_exec *exec) {
    return scores_size("mover_volume_scores_forward_workspace_size", desc, FORWARD, bytes, exec);
}

mover_status mover_volume_scores_backward_workspace_size(const mover_volume_scores_desc *desc, size_t *bytes,
                                                         const mover_exec *exec) {
    return scores_size("mover_volume_scores_backward_workspace_size", desc, BACKWARD, bytes, exec);
}

mover_status mover_volume_topk_workspace_size(const mover_volume_scores_desc *desc, size_t *bytes,
                                              const mover_exec *exec) {
    return scores_size("mover_volume_topk_workspace_size", desc, TOPK, bytes, exec);
}

mover_status mover_volume_rank_workspace_size(const mover_volume_scores_desc *desc, size_t *bytes,
                                              const mover_exec *exec) {
    return scores_size("mover_volume_rank_workspace_size", desc, RANK, bytes, exec);
}

mover_status mover_volume_scores_forward(const mover_volume_scores_desc *desc, const void *anchor, const void *others,
                                         const uint8_t *mask, void *scores, void *alphas, void *workspace, size_t bytes,
                                         const mover_exec *exec) {
    static const char function[] = "mover_volume_scores_forward";
    size_t needed;
    MOVER_TRY(scores_size(function, desc, FORWARD, &needed, exec));
    MOVER_TRY(check_rows(function, desc, anchor, others, mask));
    MOVER_TRY(mover_check_pointer(function, "scores", scores, desc->n * desc->m));
    if (desc->n == 0 || desc->m == 0) return MOVER_OK;
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, volume_scores_forward, desc, anchor, others, mask, scores, alphas, workspace,
                      exec);
}

mover_status mover_volume_scores_backward(const mover_volume_scores_desc *desc, const void *anchor, const void *others,
                                          const uint8_t *mask, const void *alphas, const void *grad_scores,
                                          void *grad_anchor, void *grad_others, void *workspace, size_t bytes,
                                          const mover_exec *exec) {
    static const char function[] = "mover_volume_scores_backward";
    size_t needed;
    MOVER_TRY(scores_size(function, desc, BACKWARD, &needed, exec));
    MOVER_TRY(check_rows(function, desc, anchor, others, mask));
    MOVER_TRY(mover_check_pointer(function, "alphas", alphas, desc->n * desc->m));
    MOVER_TRY(mover_check_pointer(function, "grad_scores", grad_scores, desc->n * desc->m));
    if (desc->n == 0 || desc->m == 0 || desc->d == 0) { /* no pair: what there is of the gradients is 0 */
        const size_t size = desc->dtype == MOVER_FLOAT32 ? sizeof(float) : sizeof(double);
        MOVER_TRY(mover_zero(exec, grad_anchor, (size_t)(desc->n * desc->d) * size));
        return mover_zero(exec, grad_others, (size_t)(desc->m * (desc->k - 1) * desc->d) * size);
    }
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, volume_scores_backward, desc, anchor, others, mask, alphas, grad_scores,
                      grad_anchor, grad_others, workspace, exec);
}

mover_status mover_volume_topk(const mover_volume_scores_desc *desc, const void *anchor, const void *others,
                               const uint8_t *mask, void *values, int64_t *indices, void *workspace, size_t bytes,
                               const mover_exec *exec) {
    static const char function[] = "mover_volume_topk";
    size_t needed;
    MOVER_TRY(scores_size(function, desc, TOPK, &needed, exec));
    MOVER_TRY(check_rows(function, desc, anchor, others, mask));
    MOVER_TRY(mover_check_pointer(function, "values", values, desc->n));
    MOVER_TRY(mover_check_pointer(function, "indices", indices, desc->n));
    if (desc->n == 0) return MOVER_OK;
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, volume_topk, desc, anchor, others, mask, values, indices, workspace, exec);
}

mover_status mover_volume_rank(const mover_volume_scores_desc *desc, const void *anchor, const void *others,
                               const int64_t *target, const uint8_t *mask, int64_t *better, int64_t *tied,
                               void *workspace, size_t bytes, const mover_exec *exec) {
    static const char function[] = "mover_volume_rank";
    size_t needed;
    MOVER_TRY(scores_size(function, desc, RANK, &needed, exec));
    MOVER_TRY(check_rows(function, desc, anchor, others, mask));
    MOVER_TRY(mover_check_pointer(function, "target", target, desc->n));
    MOVER_TRY(mover_check_pointer(function, "better", better, desc->n));
    MOVER_TRY(mover_check_pointer(function, "tied", tied, desc->n));
    MOVER_TRY(check_targets(function, desc, target, exec));
    if (desc->n == 0) return MOVER_OK;
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, volume_rank, desc, anchor, others, target, mask, better, tied, workspace,
                      exec);
}
