/*
 * score_strip.c: scores of a strip of anchors with all groups.
 *
 *     alpha_r[i,j] = |anchor_i - others_jr|^2 / 2        one matrix product for a strip of anchors
 *     gamma_rs[j]  = |others_jr - others_js|^2 / 2       r > s, from differences, once for each group
 *
 * A row of products becomes alphas and then scores while it is in the cache. With a mask the members that are present
 * are moved to the front and rows of 0 stand for the missing, whose alpha and gamma are then set to 1: a row orthogonal
 * to all others changes neither volume nor span, and the bits of what is present do not depend on what is not.
 */
#include "real.h"

#include "score_strip.h"

#include <string.h>

/* Anchors of a strip: enough for a product to run at full speed; fewer where the groups are very many. */
enum { MOST_ROWS = 512, LEAST_ROWS = 64, STRIP_ELEMENTS = 1 << 24 };

score_call R(mover_score_take)(const mover_volume_scores_desc *desc, mover_arena *arena) {
    const int64_t members = desc->k - 1, pairs = members * (members - 1) / 2, m = desc->m;
    const int cosine = desc->score == MOVER_SCORE_COSINE;
    score_call call = {.n = desc->n, .m = m, .d = desc->d, .members = members, .score = desc->score};
    call.columns = cosine ? m : m * members;
    call.strip = mover_max(LEAST_ROWS, mover_min(MOST_ROWS, STRIP_ELEMENTS / mover_max(1, call.columns) / 32 * 32));
    if (desc->masked || cosine) call.copy = mover_take(arena, call.columns, desc->d, sizeof(real));
    if (desc->masked) {
        call.present_to = mover_take(arena, m, 1, 1);
        call.place_to = mover_take(arena, m, members, 1);
    }
    if (cosine) return call;
    call.norm_anchor = mover_take(arena, desc->n, 1, sizeof(real));
    call.norm_others = mover_take(arena, m, members, sizeof(real));
    call.gamma = mover_take(arena, pairs, m, sizeof(real));
    if (members == 2) call.inverse = mover_take(arena, m, 1, sizeof(real));
    if (members > 2) call.factors = mover_take(arena, mover_ceil_div(m, LANES), 1, sizeof(lane_others));
    call.near = mover_take(arena, call.strip, 1, sizeof(int64_t));
    call.cost = R(mover_cost_take)(arena, mover_min(call.strip, desc->n), call.columns, desc->d);
    return call;
}

/* ---- groups -------------------------------------------------------------------------------------------------------
 */

typedef struct groups_task {
    score_call *call;
    const real *others;
    const uint8_t *mask;
} groups_task;

/* The members present, in order, to the front of the copy; rows of 0 behind them. */
static void sort_groups(int64_t begin, int64_t end, void *ctx) {
    const groups_task *task = ctx;
    score_call *call = task->call;
    const int64_t members = call->members, d = call->d;
    for (int64_t j = begin; j < end; j++) {
        const uint8_t *mask = task->mask + j * members;
        uint8_t *place = call->place_to + j * members;
        int64_t front = 0, back = members;
        for (int64_t r = 0; r < members; r++)
            if (mask[r]) place[front++] = (uint8_t)r;
        call->present_to[j] = (uint8_t)front;
        for (int64_t r = members - 1; r >= 0; r--)
            if (!mask[r]) place[--back] = (uint8_t)r;
        if (call->score == MOVER_SCORE_COSINE || d == 0) continue;
        real *copy = call->copy + j * members * d;
        for (int64_t r = 0; r < front; r++)
            memcpy(copy + r * d, task->others + (j * members + place[r]) * d, (size_t)d * sizeof(real));
        memset(copy + front * d, 0, (size_t)((members - front) * d) * sizeof(real));
    }
}

MOVER_HOT static void add_row(const real *row, int64_t d, real *sum) {
    MOVER_SIMD
    for (int64_t t = 0; t < d; t++) sum[t] += row[t];
}

/* The sum of the members present. */
static void sum_groups(int64_t begin, int64_t end, void *ctx) {
    const groups_task *task = ctx;
    const score_call *call = task->call;
    const int64_t members = call->members, d = call->d;
    for (int64_t j = begin; j < end; j++) {
        real *sum = call->copy + j * d;
        const int64_t present = call->present ? call->present[j] : members;
        for (int64_t t = 0; t < d; t++) sum[t] = 0;
        for (int64_t r = 0; r < present; r++) {
            const int64_t member = call->place ? call->place[j * members + r] : r;
            add_row(task->others + (j * members + member) * d, d, sum);
        }
    }
}

MOVER_HOT static real half_distance(const real *x, const real *y, int64_t d) {
    double sum = 0;
    MOVER_SIMD_SUM(sum)
    for (int64_t t = 0; t < d; t++) {
        const double difference = (double)x[t] - (double)y[t];
        sum += difference * difference;
    }
    return (real)(sum / 2);
}

static void gamma_groups(int64_t begin, int64_t end, void *ctx) {
    const score_call *call = ctx;
    for (int64_t j = begin; j < end; j++) {
        const real *group = call->others + j * call->members * call->d;
        const int64_t present = call->present ? call->present[j] : call->members;
        for (int r = 1; r < call->members; r++)
            for (int s = 0; s < r; s++)
                call->gamma[pair_at(r, s) * call->m + j] =
                    r < present ? half_distance(group + r * call->d, group + s * call->d, call->d) : 1;
        if (call->members == 2) {
            const real square = pair_square(call->gamma[j]);
            call->inverse[j] = square == 0 ? 0 : 1 / square;
        }
    }
}

MOVER_HOT static void factor_block(const score_call *call, int64_t block) {
    lane_others *others = call->factors + block;
    const int rows = (int)call->members - 1;
    const int64_t j = block * LANES, count = mover_min(LANES, call->m - j);
    for (int r = 0; r < rows; r++) {
        load_alpha(call->gamma + pair_at(r + 1, 0) * call->m + j, 1, 0, count, others->first[r]);
        for (int s = 0; s < r; s++)
            load_alpha(call->gamma + pair_at(r + 1, s + 1) * call->m + j, 1, 0, count, others->lower[at(r, s)]);
    }
    lane_others_factor(rows, others);
}

static void factor_blocks(int64_t begin, int64_t end, void *ctx) {
    for (int64_t block = begin; block < end; block++) factor_block(ctx, block);
}

mover_status R(mover_score_groups)(score_call *call, const real *anchor, const real *others, const uint8_t *mask,
                                   const mover_exec *exec) {
    const int64_t members = call->members, m = call->m, d = call->d;
    groups_task task = {call, others, mask};
    call->anchor = anchor;
    call->others = others;
    if (mask) {
        MOVER_TRY(mover_run(exec, 0, m, mover_grain(members * d), sort_groups, &task));
        call->present = call->present_to;
        call->place = call->place_to;
        call->others = call->copy;
    }
    if (call->score == MOVER_SCORE_COSINE) {
        call->others = call->copy;
        return mover_run(exec, 0, m, mover_grain(members * d), sum_groups, &task);
    }
    if (members == 1) return MOVER_OK;
    MOVER_TRY(mover_run(exec, 0, m, mover_grain(members * members * d / 2), gamma_groups, call));
    if (members == 2) return MOVER_OK;
    return mover_run(exec, 0, mover_ceil_div(m, LANES), mover_grain(LANES * members * members * members / 2),
                     factor_blocks, call);
}

mover_status R(mover_score_norms)(score_call *call, const mover_exec *exec) {
    if (call->score == MOVER_SCORE_COSINE) return MOVER_OK;
    MOVER_TRY(R(mover_cost_norms)(call->anchor, call->n, call->d, call->norm_anchor, exec));
    return R(mover_cost_norms)(call->others, call->columns, call->d, call->norm_others, exec);
}

/* ---- rows of alphas to rows of scores -----------------------------------------------------------------------------
 */

MOVER_INLINE void score_pairs(int64_t m, const real *alpha, real *scores) {
    MOVER_SIMD
    for (int64_t j = 0; j < m; j++) scores[j] = real_sqrt(pair_square(alpha[j]));
}

MOVER_INLINE void score_triples(int64_t m, const real *restrict alpha, const real *restrict gamma,
                                real *restrict scores) {
    MOVER_SIMD
    for (int64_t j = 0; j < m; j++) {
        real t;
        scores[j] = real_sqrt(triple_square(alpha[2 * j], alpha[2 * j + 1], gamma[j], &t));
    }
}

MOVER_INLINE void score_spans(int64_t m, const real *restrict alpha, const real *restrict gamma,
                              const real *restrict inverse, real *restrict scores) {
    MOVER_SIMD
    for (int64_t j = 0; j < m; j++) {
        real c;
        scores[j] = real_sqrt(span_square(alpha[2 * j], alpha[2 * j + 1], gamma[j], inverse[j], &c));
    }
}

MOVER_INLINE void score_lanes(const score_call *call, const real *row, real *scores) {
    const int members = (int)call->members;
    for (int64_t j = 0; j < call->m; j += LANES) {
        const lane_others *others = call->factors + j / LANES;
        const int64_t count = mover_min(LANES, call->m - j);
        lane_rows alpha, u;
        lane_row square;
        for (int r = 0; r < members; r++) load_alpha(row + j * members, members, r, count, alpha[r]);
        lane_distance(members - 1, others, alpha, u, square);
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) square[lane] = real_sqrt(square[lane]);
        if (call->score == MOVER_SCORE_VOLUME) {
            MOVER_SIMD
            for (int lane = 0; lane < LANES; lane++) square[lane] *= others->volume[lane];
        }
        for (int64_t lane = 0; lane < count; lane++) scores[j + lane] = square[lane];
    }
}

MOVER_HOT static void score_row(const score_call *call, const real *alpha, real *scores) {
    if (call->members == 1)
        score_pairs(call->m, alpha, scores);
    else if (call->members > 2)
        score_lanes(call, alpha, scores);
    else if (call->score == MOVER_SCORE_VOLUME)
        score_triples(call->m, alpha, call->gamma, scores);
    else
        score_spans(call->m, alpha, call->gamma, call->inverse, scores);
}

/* ---- strips -------------------------------------------------------------------------------------------------------
 */

typedef struct strip_task {
    const score_call *call;
    int64_t first;
    real *alphas, *scores;
    int done; /* the alphas are made; rows that waited, or all, remain to be scored */
    int all;
} strip_task;

static void no_score_without_members(const score_call *call, real *scores) {
    if (!call->present) return;
    for (int64_t j = 0; j < call->m; j++)
        if (call->present[j] == 0) scores[j] = (real)NAN;
}

static void finish_row(const strip_task *task, int64_t i, int repair) {
    const score_call *call = task->call;
    real *alpha = task->alphas + i * call->columns, *scores = task->scores + i * call->m;
    if (repair) {
        R(mover_cost_repair)
        (call->anchor + (task->first + i) * call->d, call->norm_anchor[task->first + i], call->others,
         call->norm_others, call->columns, call->d, (real)0.5, alpha);
    }
    if (call->present)
        for (int64_t j = 0; j < call->m; j++)
            for (int64_t r = call->present[j]; r < call->members; r++) alpha[j * call->members + r] = 1;
    score_row(call, alpha, scores);
    no_score_without_members(call, scores);
}

/* Rows of which many entries are near wait until all rows have been counted. */
static int waits(const score_call *call, int64_t near) {
    return REAL_DTYPE == MOVER_FLOAT32 && near > call->columns / MOVER_COST_SPARSE;
}

static void strip_rows(int64_t begin, int64_t end, void *ctx) {
    const strip_task *task = ctx;
    const score_call *call = task->call;
    for (int64_t i = begin; i < end; i++) {
        if (task->done) {
            if (task->all || waits(call, call->near[i])) finish_row(task, i, !task->all);
            continue;
        }
        call->near[i] = R(mover_cost_row)(call->norm_anchor[task->first + i], call->norm_others, call->columns,
                                          (real)0.5, task->alphas + i * call->columns);
        if (!waits(call, call->near[i])) finish_row(task, i, call->near[i] > 0);
    }
}

static void cosine_rows(int64_t begin, int64_t end, void *ctx) {
    const strip_task *task = ctx;
    for (int64_t i = begin; i < end; i++) no_score_without_members(task->call, task->scores + i * task->call->m);
}

mover_status R(mover_score_strip)(const score_call *call, int64_t first, real *alphas, real *scores,
                                  const mover_exec *exec) {
    const int64_t rows = mover_min(call->strip, call->n - first), d = call->d, columns = call->columns;
    const real *anchor = call->anchor + first * d;
    strip_task task = {call, first, alphas, scores, 0, 0};
    const int cosine = call->score == MOVER_SCORE_COSINE;
    MOVER_TRY(mover_product(exec, REAL_DTYPE, 0, 1, rows, columns, d, anchor, d, call->others, d,
                            cosine ? scores : alphas, columns));
    if (cosine) return mover_run(exec, 0, rows, mover_grain(columns), cosine_rows, &task);

    const int64_t members = call->members, work = members < 3 ? 4 : members * members * 2;
    const int64_t grain = mover_grain(call->m * work);
    MOVER_TRY(mover_run(exec, 0, rows, grain, strip_rows, &task));
#if MOVER_REAL_BITS == 32
    int64_t near = 0, waiting = 0;
    for (int64_t i = 0; i < rows; i++) {
        near += call->near[i];
        waiting += waits(call, call->near[i]);
    }
    if (waiting == 0) return MOVER_OK;
    task.done = 1;
    task.all = near > rows * columns / MOVER_COST_SPARSE;
    if (task.all)
        MOVER_TRY(mover_cost_in_double(anchor, call->others, rows, columns, d, 0.5f, alphas, &call->cost, exec));
    return mover_run(exec, 0, rows, grain, strip_rows, &task);
#else
    return MOVER_OK;
#endif
}
