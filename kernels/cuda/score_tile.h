/*
 * score_tile.h: the scores of a tile of anchors and groups, as volume_scores, volume_topk and volume_rank share it.
 *
 * All three make the same tiles by the same calls, so a pair has the same bits in each.
 */
#ifndef MOVER_CUDA_SCORE_TILE_H
#define MOVER_CUDA_SCORE_TILE_H

#include "real.h"

#include "../src/internal.h"

#include "score_plan.h"

typedef struct R(mover_cuda_score_call) {
    const char *function; /* the entry point, for errors */
    int64_t n, m, d, members;
    int64_t width; /* columns of the product for a group: members, or 1 for the cosine */
    mover_score score;
    mover_precision precision;
    score_plan plan;
    const real *anchor;     /* (n, d) */
    const real *others;     /* (m, members, d): members present first, then rows of 0; cosine: (m, d), their sums */
    const uint8_t *present; /* (m), how many members are present; NULL: all */
    const uint8_t *place;   /* (m, members): the member that stands there; NULL: in order */
    real *copy;             /* what `others` points to, where it is not the caller's array */
    uint8_t *present_to, *place_to;
    real *norm_anchor, *norm_others; /* (n), (m, members): squared norms */
    real *gamma;                     /* (pairs, m): |y_r - y_s|^2 / 2; 1 where a member is missing */
    real *group;                     /* (group_numbers(members), m), see alpha_volume.cuh; two and more members */
} R(mover_cuda_score_call);

typedef R(mover_cuda_score_call) score_call;

/* Takes everything but the pointers to the caller's arrays. */
score_call R(mover_cuda_score_take)(const char *function, const mover_volume_scores_desc *desc, mover_arena *arena);

/* What depends on the groups alone. mask is NULL unless desc->masked. */
mover_status R(mover_cuda_score_groups)(score_call *call, const real *anchor, const real *others, const uint8_t *mask,
                                        const mover_exec *exec);

/* Squared norms, which mover_cuda_score_tile needs. */
mover_status R(mover_cuda_score_norms)(const score_call *call, const mover_exec *exec);

/* Tile (strip, across) of call->plan: scores[i * stride + j] and, but for the cosine, the alphas (rows, groups,
 * members) of the tile, dense; of a missing member alpha is 1. */
mover_status R(mover_cuda_score_tile)(const score_call *call, int64_t strip, int64_t across, real *alphas, real *scores,
                                      int64_t stride, const mover_exec *exec);

static inline int64_t score_rows_of(const score_call *call, int64_t strip) {
    return mover_min(call->plan.rows, call->n - strip * call->plan.rows);
}

static inline int64_t score_groups_of(const score_call *call, int64_t across) {
    return mover_min(call->plan.groups, call->m - across * call->plan.groups);
}

/* A function template of the number of members, called for call->members. */
#define SCORE_BY_MEMBERS(members, name, ...)                                                                           \
    ((members) == 1   ? name<1>(__VA_ARGS__)                                                                           \
     : (members) == 2 ? name<2>(__VA_ARGS__)                                                                           \
     : (members) == 3 ? name<3>(__VA_ARGS__)                                                                           \
     : (members) == 4 ? name<4>(__VA_ARGS__)                                                                           \
     : (members) == 5 ? name<5>(__VA_ARGS__)                                                                           \
     : (members) == 6 ? name<6>(__VA_ARGS__)                                                                           \
                      : name<7>(__VA_ARGS__))

#endif
