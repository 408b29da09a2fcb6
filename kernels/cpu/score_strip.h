/*
 * score_strip.h: scores of a strip of anchors with all groups, as volume_scores, volume_topk and volume_rank share it.
 *
 * All three divide the anchors into the same strips, so a pair has the same bits in each.
 *
 * Included after real.h.
 */
#ifndef MOVER_CPU_SCORE_STRIP_H
#define MOVER_CPU_SCORE_STRIP_H

#include "../src/backend.h"

#include "alpha_volume.h"
#include "cost.h"

typedef real scalar;
#include "small_matrix.h"

#include "lane_volume.h"

#include "lane_span.h"

enum { MOST_OTHERS = MOVER_MAX_K - 1, MOST_PAIRS = MOST_OTHERS * (MOST_OTHERS - 1) / 2 };

typedef struct score_call {
    int64_t n, m, d, members, columns; /* columns of the product: m members, or m for the cosine */
    mover_score score;
    const real *anchor;     /* (n, d) */
    const real *others;     /* (m, members, d): members present first, then rows of 0; cosine: (m, d), their sums */
    const uint8_t *present; /* (m), how many members are present; NULL: all */
    const uint8_t *place;   /* (m, members): the member that stands there; NULL: in order */
    real *copy;             /* what `others` points to, where it is not the caller's array */
    uint8_t *present_to, *place_to;
    real *norm_anchor, *norm_others; /* (n), (columns): squared norms */
    real *gamma;                     /* (pairs, m) */
    real *inverse;                   /* (m), two members: 1 / (gamma (2 - gamma)), 0 where the second is dropped */
    lane_others *factors;            /* (m / LANES, rounded up), three and more members */
    int64_t strip;                   /* anchors of a strip */
    int64_t *near;                   /* (strip) */
    R(mover_cost_scratch) cost;
} score_call;

/* The place of gamma_rs, r > s, among the pairs. */
MOVER_INLINE int pair_at(int r, int s) { return r * (r - 1) / 2 + s; }

/* Lanes of column r of a row of alphas, which stand members apart; 0 in lanes to spare. */
MOVER_INLINE void load_alpha(const real *row, int64_t members, int r, int64_t count, lane_row alpha) {
    if (count == LANES) {
        for (int lane = 0; lane < LANES; lane++) alpha[lane] = row[lane * members + r];
        return;
    }
    for (int64_t lane = 0; lane < LANES; lane++) alpha[lane] = lane < count ? row[lane * members + r] : 0;
}

/* dist^2 of an anchor from the span of two rows, of which the first has alpha and the second beta to the anchor, gamma
 * to each other; inverse as in score_call. The arithmetic of lane_distance for one row; *c is the coefficient of the
 * second row. */
MOVER_INLINE real span_square(real alpha, real beta, real gamma, real inverse, real *c) {
    const real u = (gamma - beta) + alpha * (1 - gamma), share = u * inverse;
    const real square = alpha * (2 - alpha) - u * share + 0 * (alpha + beta + gamma);
    const real noise = ALPHA_NOISE * (2 * alpha) + 2 * ALPHA_NOISE * (gamma + alpha) * real_fabs(share);
    *c = share;
    return square <= noise ? 0 : square;
}

/* Takes everything but the pointers to the caller's arrays. */
score_call R(mover_score_take)(const mover_volume_scores_desc *desc, mover_arena *arena);

/* What depends on the groups alone. mask is NULL unless desc->masked. */
mover_status R(mover_score_groups)(score_call *call, const real *anchor, const real *others, const uint8_t *mask,
                                   const mover_exec *exec);

/* Squared norms, which mover_score_strip needs. */
mover_status R(mover_score_norms)(score_call *call, const mover_exec *exec);

/* Anchors [first, first + strip) or up to n, first a multiple of strip: scores (rows, m) and, but for the cosine, their
 * alphas (rows, m, members); of a missing member alpha is 1. With one member both may be the same array. */
mover_status R(mover_score_strip)(const score_call *call, int64_t first, real *alphas, real *scores,
                                  const mover_exec *exec);

#endif
