/*
 * ranking.c: the best groups of every anchor, and the rank of one, without the matrix of scores.
 *
 * Strips of anchors are scored by score_strip.c, as volume_scores scores them; each row of a strip is then searched
 * while the next ones wait: for the topk best, kept in order in the output itself, or for what is better than its
 * target.
 */
#include "real.h"

#include "score_strip.h"

typedef struct ranking_call {
    score_call groups;
    int64_t topk, first;   /* first anchor of the strip */
    real *alphas, *scores; /* (strip, m, members), (strip, m) */
    const int64_t *target;
    real *values;
    int64_t *indices, *better, *tied;
} ranking_call;

/* ---- topk ---------------------------------------------------------------------------------------------------------
 *
 * Scores are compared with a sign that makes smaller better. A key of NaN is after every number. */

MOVER_INLINE int before(real a, int64_t i, real b, int64_t j) {
    if (a != a || b != b) return b != b && (a == a || i < j);
    return a < b || (a == b && i < j);
}

/* The heap has its last element, by `before`, at the root. */
static void sift_down(real *key, int64_t *index, int64_t count, int64_t root) {
    const real k = key[root];
    const int64_t i = index[root];
    for (;;) {
        int64_t child = 2 * root + 1;
        if (child >= count) break;
        if (child + 1 < count && before(key[child], index[child], key[child + 1], index[child + 1])) child++;
        if (!before(k, i, key[child], index[child])) break;
        key[root] = key[child];
        index[root] = index[child];
        root = child;
    }
    key[root] = k;
    index[root] = i;
}

/* How many of scores[j, j + count) are at most `bound`, or not comparable with it. */
MOVER_HOT static int64_t candidates(const real *scores, int64_t count, real sign, real bound) {
    int32_t found = 0;
    MOVER_SIMD_SUM(found)
    for (int64_t j = 0; j < count; j++) found += !(sign * scores[j] >= bound);
    return found;
}

static void topk_row(int64_t m, const real *scores, real sign, int64_t topk, real *values, int64_t *indices) {
    enum { STEP = 256 };
    for (int64_t j = 0; j < topk; j++) {
        values[j] = sign * scores[j];
        indices[j] = j;
    }
    for (int64_t j = topk / 2; j-- > 0;) sift_down(values, indices, topk, j);
    for (int64_t j0 = topk; j0 < m; j0 += STEP) {
        const int64_t width = mover_min(STEP, m - j0);
        if (values[0] == values[0] && candidates(scores + j0, width, sign, values[0]) == 0) continue;
        for (int64_t j = j0; j < j0 + width; j++) {
            if (!before(sign * scores[j], j, values[0], indices[0])) continue;
            values[0] = sign * scores[j];
            indices[0] = j;
            sift_down(values, indices, topk, 0);
        }
    }
    for (int64_t last = topk - 1; last > 0; last--) { /* the heap's last element to the end, as heap sort does */
        const real key = values[0];
        const int64_t index = indices[0];
        values[0] = values[last];
        indices[0] = indices[last];
        values[last] = key;
        indices[last] = index;
        sift_down(values, indices, last, 0);
    }
    for (int64_t j = 0; j < topk; j++) values[j] = scores[indices[j]];
}

static void topk_rows(int64_t begin, int64_t end, void *ctx) {
    const ranking_call *call = ctx;
    const real sign = call->groups.score == MOVER_SCORE_COSINE ? -1 : 1;
    for (int64_t i = begin; i < end; i++)
        topk_row(call->groups.m, call->scores + i * call->groups.m, sign, call->topk,
                 call->values + (call->first + i) * call->topk, call->indices + (call->first + i) * call->topk);
}

/* ---- rank ---------------------------------------------------------------------------------------------------------
 */

MOVER_HOT static void rank_row(int64_t m, const real *scores, real sign, int64_t target, int64_t *better,
                               int64_t *tied) {
    enum { STEP = 1 << 20 }; /* counts of a step fit 32 bits */
    const real score = sign * scores[target];
    *better = *tied = 0;
    if (score != score) {
        *better = m - 1;
        return;
    }
    for (int64_t j0 = 0; j0 < m; j0 += STEP) {
        const int64_t width = mover_min(STEP, m - j0);
        int32_t less = 0, equal = 0;
        MOVER_SIMD_SUM(less, equal)
        for (int64_t j = 0; j < width; j++) {
            const real other = sign * scores[j0 + j];
            less += other < score;
            equal += other == score;
        }
        *better += less;
        *tied += equal;
    }
    *tied -= 1;
}

static void rank_rows(int64_t begin, int64_t end, void *ctx) {
    const ranking_call *call = ctx;
    const real sign = call->groups.score == MOVER_SCORE_COSINE ? -1 : 1;
    for (int64_t i = begin; i < end; i++)
        rank_row(call->groups.m, call->scores + i * call->groups.m, sign, call->target[call->first + i],
                 call->better + call->first + i, call->tied + call->first + i);
}

/* ---------------------------------------------------------------------------------------------------------------------
 */

static ranking_call take_ranking(const mover_volume_scores_desc *desc, mover_arena *arena) {
    ranking_call call = {.groups = R(mover_score_take)(desc, arena), .topk = desc->topk};
    const int64_t rows = mover_min(call.groups.strip, desc->n);
    call.scores = mover_take(arena, rows, desc->m, sizeof(real));
    if (call.groups.columns > desc->m) call.alphas = mover_take(arena, rows, call.groups.columns, sizeof(real));
    return call;
}

void R(mover_cpu_ranking_layout)(const mover_volume_scores_desc *desc, mover_arena *arena) {
    (void)take_ranking(desc, arena);
}

static mover_status search(ranking_call *call, const real *anchor, const real *others, const uint8_t *mask,
                           mover_body rows_body, const mover_exec *exec) {
    score_call *groups = &call->groups;
    MOVER_TRY(R(mover_score_groups)(groups, anchor, others, mask, exec));
    MOVER_TRY(R(mover_score_norms)(groups, exec));
    for (; call->first < groups->n; call->first += groups->strip) {
        const int64_t rows = mover_min(groups->strip, groups->n - call->first);
        MOVER_TRY(
            R(mover_score_strip)(groups, call->first, call->alphas ? call->alphas : call->scores, call->scores, exec));
        MOVER_TRY(mover_run(exec, 0, rows, mover_grain(groups->m), rows_body, call));
    }
    return MOVER_OK;
}

mover_status R(mover_cpu_volume_topk)(const mover_volume_scores_desc *desc, const real *anchor, const real *others,
                                      const uint8_t *mask, real *values, int64_t *indices, void *workspace,
                                      const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    ranking_call call = take_ranking(desc, &arena);
    call.values = values;
    call.indices = indices;
    return search(&call, anchor, others, mask, topk_rows, exec);
}

mover_status R(mover_cpu_volume_rank)(const mover_volume_scores_desc *desc, const real *anchor, const real *others,
                                      const int64_t *target, const uint8_t *mask, int64_t *better, int64_t *tied,
                                      void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    ranking_call call = take_ranking(desc, &arena);
    call.target = target;
    call.better = better;
    call.tied = tied;
    return search(&call, anchor, others, mask, rank_rows, exec);
}
