/*
 * score_plan.h: how the pairs of n anchors and m groups are divided. Sizes decide, nothing else: volume_scores,
 * volume_topk and volume_rank make the same tiles.
 */
#ifndef MOVER_CUDA_SCORE_PLAN_H
#define MOVER_CUDA_SCORE_PLAN_H

#include "../src/internal.h"

enum {
    SCORE_STEP = 64,           /* tiles begin at multiples of it */
    SCORE_ELEMENTS = 1 << 22,  /* of a tile at most: it stays in the second-level cache */
    SCORE_ROWS = 1024,         /* of a tile, where there are more anchors and enough groups */
    SCORE_MOST_ROWS = 1 << 12, /* of a tile */
    SCORE_COLUMNS = 1 << 13,   /* of a tile or of a panel at most */
    SCORE_KEPT = 8,            /* tiles of a strip whose scores are kept together at most */
    PANEL_ELEMENTS = 1 << 24,  /* of a panel at most, but for its least width */
    PANEL_LEAST = 2048,        /* columns */
    CHUNK_SMALL = 16,          /* anchors of a chunk up to SCORE_ROWS of them */
    CHUNK = SCORE_STEP         /* and beyond */
};

/* The equal shares, multiples of SCORE_STEP, into which `count` is divided so that none is above `most`. */
static inline int64_t score_share(int64_t count, int64_t most) {
    const int64_t shares = mover_ceil_div(mover_max(1, count), mover_max(SCORE_STEP, most / SCORE_STEP * SCORE_STEP));
    return mover_max(1, mover_min(count, mover_ceil_div(mover_ceil_div(count, shares), SCORE_STEP) * SCORE_STEP));
}

/* A tile is the scores of `rows` anchors with `groups` groups, from a product of rows x (groups * width). Those of the
 * same anchors are a strip. */
typedef struct score_plan {
    int64_t rows, groups;
    int64_t strips, across; /* tiles below and beside each other */
} score_plan;

static inline score_plan score_plan_of(int64_t n, int64_t m, int64_t width) {
    score_plan plan;
    plan.rows = mover_max(1, mover_min(n, SCORE_ROWS));
    plan.groups = score_share(m, mover_min(SCORE_COLUMNS, SCORE_ELEMENTS / plan.rows) / width);
    plan.rows =
        score_share(n, mover_max(SCORE_ROWS, mover_min(SCORE_MOST_ROWS, SCORE_ELEMENTS / (plan.groups * width))));
    plan.strips = mover_ceil_div(n, plan.rows);
    plan.across = mover_ceil_div(m, plan.groups);
    return plan;
}

/* The backward makes the derivatives of all anchors with a panel of groups at a time, by chunks of anchors. */
static inline int64_t score_panel_of(int64_t n, int64_t m, int64_t members) {
    const int64_t columns = mover_max(PANEL_LEAST, mover_min(SCORE_COLUMNS, PANEL_ELEMENTS / mover_max(1, n)));
    return score_share(m, columns / members);
}

static inline int64_t score_chunk_of(int64_t n) { return n <= SCORE_ROWS ? CHUNK_SMALL : CHUNK; }

#endif
