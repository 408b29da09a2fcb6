/*
 * scores.c: entry points of the scores stage: checks, then the backend.
 */
#include "../cpu/backend.h"

#include <string.h>

typedef enum call_kind { FORWARD, BACKWARD, TOPK, RANK } call_kind;

static mover_status check_scores(const char *function, const mover_volume_scores_desc *desc, call_kind kind) {
    MOVER_TRY(mover_check_pointer(function, "desc", desc, 1));
    MOVER_TRY(mover_check_dtype(function, desc->dtype));
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
    MOVER_TRY(mover_check_precision(function, desc->precision));
    if (kind == TOPK && (desc->topk < 1 || desc->topk > desc->m))
        return mover_fail(MOVER_ERROR_ARGUMENT, "%s: topk must be from 1 to m = %lld, got %lld", function,
                          (long long)desc->m, (long long)desc->topk);
    if (kind != TOPK && kind != RANK) MOVER_TRY(mover_check_volume(function, desc->n, desc->m, desc->k));
    MOVER_TRY(mover_check_volume(function, desc->n, desc->d, 1));
    if (kind == TOPK) MOVER_TRY(mover_check_volume(function, desc->n, desc->topk, 1));
    return mover_check_volume(function, desc->m, desc->k, mover_max(desc->k, desc->d));
}

typedef void (*layout)(const mover_volume_scores_desc *desc, mover_arena *arena);

static mover_status scores_size(const char *function, const mover_volume_scores_desc *desc, call_kind kind,
                                size_t *bytes) {
    static const layout layouts[][2] = {
        {mover_cpu_volume_scores_layout_f32, mover_cpu_volume_scores_layout_f64},
        {mover_cpu_volume_scores_backward_layout_f32, mover_cpu_volume_scores_backward_layout_f64},
        {mover_cpu_ranking_layout_f32, mover_cpu_ranking_layout_f64},
        {mover_cpu_ranking_layout_f32, mover_cpu_ranking_layout_f64}};
    MOVER_TRY(check_scores(function, desc, kind));
    MOVER_TRY(mover_check_pointer(function, "bytes", bytes, 1));
    mover_arena arena = {0};
    layouts[kind][desc->dtype == MOVER_FLOAT64](desc, &arena);
    return mover_arena_size(function, &arena, bytes);
}

static mover_status check_rows(const char *function, const mover_volume_scores_desc *desc, const void *anchor,
                               const void *others, const uint8_t *mask, const mover_exec *exec) {
    MOVER_TRY(mover_check_exec(function, exec));
    MOVER_TRY(mover_check_pointer(function, "anchor", anchor, desc->n * desc->d));
    MOVER_TRY(mover_check_pointer(function, "others", others, desc->m * desc->d));
    if (!desc->masked && mask)
        return mover_fail(MOVER_ERROR_ARGUMENT, "%s: a mask is given, so desc.masked must be 1", function);
    return mover_check_pointer(function, "mask", mask, desc->masked ? desc->m : 0);
}

/* Every target is a group. */
static mover_status check_targets(const char *function, const mover_volume_scores_desc *desc, const int64_t *target) {
    for (int64_t i = 0; i < desc->n; i++)
        if (target[i] < 0 || target[i] >= desc->m)
            return mover_fail(MOVER_ERROR_ARGUMENT, "%s: target[%lld] must be a group from 0 to %lld, got %lld",
                              function, (long long)i, (long long)(desc->m - 1), (long long)target[i]);
    return MOVER_OK;
}

mover_status mover_volume_scores_forward_workspace_size(const mover_volume_scores_desc *desc, size_t *bytes) {
    return scores_size("mover_volume_scores_forward_workspace_size", desc, FORWARD, bytes);
}

mover_status mover_volume_scores_backward_workspace_size(const mover_volume_scores_desc *desc, size_t *bytes) {
    return scores_size("mover_volume_scores_backward_workspace_size", desc, BACKWARD, bytes);
}

mover_status mover_volume_topk_workspace_size(const mover_volume_scores_desc *desc, size_t *bytes) {
    return scores_size("mover_volume_topk_workspace_size", desc, TOPK, bytes);
}

mover_status mover_volume_rank_workspace_size(const mover_volume_scores_desc *desc, size_t *bytes) {
    return scores_size("mover_volume_rank_workspace_size", desc, RANK, bytes);
}

mover_status mover_volume_scores_forward(const mover_volume_scores_desc *desc, const void *anchor, const void *others,
                                         const uint8_t *mask, void *scores, void *alphas, void *workspace, size_t bytes,
                                         const mover_exec *exec) {
    static const char function[] = "mover_volume_scores_forward";
    size_t needed;
    MOVER_TRY(scores_size(function, desc, FORWARD, &needed));
    MOVER_TRY(check_rows(function, desc, anchor, others, mask, exec));
    MOVER_TRY(mover_check_pointer(function, "scores", scores, desc->n * desc->m));
    if (desc->n == 0 || desc->m == 0) return MOVER_OK;
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    if (desc->dtype == MOVER_FLOAT32)
        return mover_cpu_volume_scores_forward_f32(desc, anchor, others, mask, scores, alphas, workspace, exec);
    return mover_cpu_volume_scores_forward_f64(desc, anchor, others, mask, scores, alphas, workspace, exec);
}

mover_status mover_volume_scores_backward(const mover_volume_scores_desc *desc, const void *anchor, const void *others,
                                          const uint8_t *mask, const void *alphas, const void *grad_scores,
                                          void *grad_anchor, void *grad_others, void *workspace, size_t bytes,
                                          const mover_exec *exec) {
    static const char function[] = "mover_volume_scores_backward";
    size_t needed;
    MOVER_TRY(scores_size(function, desc, BACKWARD, &needed));
    MOVER_TRY(check_rows(function, desc, anchor, others, mask, exec));
    MOVER_TRY(mover_check_pointer(function, "alphas", alphas, desc->n * desc->m));
    MOVER_TRY(mover_check_pointer(function, "grad_scores", grad_scores, desc->n * desc->m));
    if (desc->n == 0 || desc->m == 0 || desc->d == 0) { /* no pair: what there is of the gradients is 0 */
        const size_t size = desc->dtype == MOVER_FLOAT32 ? sizeof(float) : sizeof(double);
        if (grad_anchor) memset(grad_anchor, 0, (size_t)(desc->n * desc->d) * size);
        if (grad_others) memset(grad_others, 0, (size_t)(desc->m * (desc->k - 1) * desc->d) * size);
        return MOVER_OK;
    }
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    if (desc->dtype == MOVER_FLOAT32)
        return mover_cpu_volume_scores_backward_f32(desc, anchor, others, mask, alphas, grad_scores, grad_anchor,
                                                    grad_others, workspace, exec);
    return mover_cpu_volume_scores_backward_f64(desc, anchor, others, mask, alphas, grad_scores, grad_anchor,
                                                grad_others, workspace, exec);
}

mover_status mover_volume_topk(const mover_volume_scores_desc *desc, const void *anchor, const void *others,
                               const uint8_t *mask, void *values, int64_t *indices, void *workspace, size_t bytes,
                               const mover_exec *exec) {
    static const char function[] = "mover_volume_topk";
    size_t needed;
    MOVER_TRY(scores_size(function, desc, TOPK, &needed));
    MOVER_TRY(check_rows(function, desc, anchor, others, mask, exec));
    MOVER_TRY(mover_check_pointer(function, "values", values, desc->n));
    MOVER_TRY(mover_check_pointer(function, "indices", indices, desc->n));
    if (desc->n == 0) return MOVER_OK;
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    if (desc->dtype == MOVER_FLOAT32)
        return mover_cpu_volume_topk_f32(desc, anchor, others, mask, values, indices, workspace, exec);
    return mover_cpu_volume_topk_f64(desc, anchor, others, mask, values, indices, workspace, exec);
}

mover_status mover_volume_rank(const mover_volume_scores_desc *desc, const void *anchor, const void *others,
                               const int64_t *target, const uint8_t *mask, int64_t *better, int64_t *tied,
                               void *workspace, size_t bytes, const mover_exec *exec) {
    static const char function[] = "mover_volume_rank";
    size_t needed;
    MOVER_TRY(scores_size(function, desc, RANK, &needed));
    MOVER_TRY(check_rows(function, desc, anchor, others, mask, exec));
    MOVER_TRY(mover_check_pointer(function, "target", target, desc->n));
    MOVER_TRY(mover_check_pointer(function, "better", better, desc->n));
    MOVER_TRY(mover_check_pointer(function, "tied", tied, desc->n));
    MOVER_TRY(check_targets(function, desc, target));
    if (desc->n == 0) return MOVER_OK;
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    if (desc->dtype == MOVER_FLOAT32)
        return mover_cpu_volume_rank_f32(desc, anchor, others, target, mask, better, tied, workspace, exec);
    return mover_cpu_volume_rank_f64(desc, anchor, others, target, mask, better, tied, workspace, exec);
}
