/*
 * expected_volume.c: the sum of the volumes of all triples of three sets of unit rows, from squared distances.
 *
 *     S = sum_{i,j,l} p_ij q_il r_jl Vol(alpha_ij, beta_il, gamma_jl),   alpha, beta, gamma = c12/2, c13/2, c23/2
 *
 *     dS/dp_ij = sum_l q r Vol      dS/dalpha_ij = p_ij sum_l q r ((1-alpha) beta (2-beta) - t (1-beta)) / Vol
 *     dS/dq_il = sum_j p r Vol      dS/dbeta_il  = q_il sum_j p r ((1-beta) alpha (2-alpha) - t (1-alpha)) / Vol
 *     dS/dr_jl = sum_i p q Vol      dS/dgamma_jl = r_jl sum_i p q t / Vol
 *
 * p, q, r are p12, p13, p23; Vol and t are those of alpha_volume.h. Everything about a triple is made in registers,
 * used for the sum or for all six gradients, and forgotten.
 *
 * Order of the loops: a task owns a block of rows i; for a tile of ROWS j by WIDTH l, kept in the first-level cache, it
 * goes through its i; the loop over l is vectorised. A task writes the rows i of the gradients of c12, p12, c13 and p13
 * itself. Those of c23 and p23 are sums over i: each task leaves its share of GROUP rows j in scratch memory, and the
 * shares are added in their order before the next GROUP. The number of tasks depends on the sizes alone.
 *
 * Sums of at most WIDTH or one block of terms are in `real`, what they add up to in double or in few terms.
 */
#include "real.h"

#include "../src/backend.h"

#include "alpha_volume.h"

enum { ROWS = 8, WIDTH = 256, GROUP = 64, LEAST_BLOCK = 32, MOST_BLOCKS = 32, FORWARD_BLOCK = 16 };

typedef struct triples {
    int64_t n1, n2, n3, blocks;
    const real *c12, *c13, *c23, *p12, *p13, *p23;
    real grad_value;
    real *grad_c12, *grad_c13, *grad_c23, *grad_p12, *grad_p13, *grad_p23;
    int want_c, want_p, want_value;
    int64_t group;           /* first row j of the group at work */
    real *share_c, *share_p; /* (blocks, GROUP, n3) */
    double *block_sum;       /* (blocks) */
} triples;

static triples triples_of(const mover_expected_volume_desc *desc, const real *c12, const real *c13, const real *c23,
                          const real *p12, const real *p13, const real *p23) {
    triples call = {.n1 = desc->n1, .n2 = desc->n2, .n3 = desc->n3};
    call.c12 = c12;
    call.c13 = c13;
    call.c23 = c23;
    call.p12 = p12;
    call.p13 = p13;
    call.p23 = p23;
    return call;
}

MOVER_INLINE void half_costs(const real *cost, int64_t count, real *half) {
    MOVER_SIMD
    for (int64_t l = 0; l < count; l++) half[l] = half_cost(cost[l]);
}

MOVER_INLINE void fill(real *to, int64_t count, real value) {
    for (int64_t l = 0; l < count; l++) to[l] = value;
}

/* ---- forward ------------------------------------------------------------------------------------------------------
 */

MOVER_INLINE real sum_volumes(int64_t count, real alpha, const real *restrict beta, const real *restrict gamma,
                              const real *restrict q, const real *restrict r) {
    real sum = 0;
    MOVER_SIMD_SUM(sum)
    for (int64_t l = 0; l < count; l++) {
        real t;
        const real volume = real_sqrt(triple_square(alpha, beta[l], gamma[l], &t));
        sum += (q ? q[l] : 1) * (r ? r[l] : 1) * volume;
    }
    return sum;
}

/* Rows [begin, end) of set 1 against rows [j0, j0 + rows) of set 2 and [l0, l0 + width) of set 3. */
MOVER_HOT static double forward_tile(const triples *call, int64_t begin, int64_t end, int64_t j0, int64_t rows,
                                     int64_t l0, int64_t width) {
    real gamma[ROWS][WIDTH], beta[WIDTH];
    double total = 0;
    for (int64_t j = 0; j < rows; j++) half_costs(call->c23 + (j0 + j) * call->n3 + l0, width, gamma[j]);
    for (int64_t i = begin; i < end; i++) {
        const real *q = call->p13 ? call->p13 + i * call->n3 + l0 : NULL;
        half_costs(call->c13 + i * call->n3 + l0, width, beta);
        for (int64_t j = 0; j < rows; j++) {
            const int64_t ij = i * call->n2 + j0 + j;
            const real alpha = half_cost(call->c12[ij]);
            const real *r = call->p23 ? call->p23 + (j0 + j) * call->n3 + l0 : NULL;
            real sum;
            if (q && r)
                sum = sum_volumes(width, alpha, beta, gamma[j], q, r);
            else if (q)
                sum = sum_volumes(width, alpha, beta, gamma[j], q, NULL);
            else if (r)
                sum = sum_volumes(width, alpha, beta, gamma[j], NULL, r);
            else
                sum = sum_volumes(width, alpha, beta, gamma[j], NULL, NULL);
            total += (call->p12 ? (double)call->p12[ij] : 1) * (double)sum;
        }
    }
    return total;
}

static void forward_blocks(int64_t begin, int64_t end, void *ctx) {
    const triples *call = ctx;
    for (int64_t block = begin; block < end; block++) {
        const int64_t i0 = block * FORWARD_BLOCK, i1 = mover_min(call->n1, i0 + FORWARD_BLOCK);
        double sum = 0;
        for (int64_t j = 0; j < call->n2; j += ROWS)
            for (int64_t l = 0; l < call->n3; l += WIDTH)
                sum += forward_tile(call, i0, i1, j, mover_min(ROWS, call->n2 - j), l, mover_min(WIDTH, call->n3 - l));
        call->block_sum[block] = sum;
    }
}

static void take_forward(triples *call, mover_arena *arena) {
    call->blocks = mover_ceil_div(call->n1, FORWARD_BLOCK);
    call->block_sum = mover_take(arena, call->blocks, 1, sizeof(double));
}

void R(mover_cpu_expected_volume_layout)(const mover_expected_volume_desc *desc, mover_arena *arena) {
    triples call = triples_of(desc, NULL, NULL, NULL, NULL, NULL, NULL);
    take_forward(&call, arena);
}

mover_status R(mover_cpu_expected_volume_forward)(const mover_expected_volume_desc *desc, const real *c12,
                                                  const real *c13, const real *c23, const real *p12, const real *p13,
                                                  const real *p23, real *value, void *workspace,
                                                  const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    triples call = triples_of(desc, c12, c13, c23, p12, p13, p23);
    take_forward(&call, &arena);
    MOVER_TRY(mover_run(exec, 0, call.blocks, mover_grain(FORWARD_BLOCK * call.n2 * call.n3), forward_blocks, &call));
    double sum = 0;
    for (int64_t block = 0; block < call.blocks; block++) sum += call.block_sum[block];
    *value = (real)sum;
    return MOVER_OK;
}

/* ---- backward -----------------------------------------------------------------------------------------------------
 */

/* What the loop over l adds to, for one pair i, j. The sums over l are returned; p q r are left out of a sum where they
 * do not change within it and are multiplied to it later. */
typedef struct sums {
    real *c13, *p13, *c23, *p23; /* (width) */
    real c12, p12, value;
} sums;

/* by_c = g p_ij / 2 and by_p = g weigh the sums over j and i, for the upstream gradient g and weight = p_ij. */
MOVER_INLINE void add_gradients(int64_t count, real alpha, real weight, real by_c, real by_p, const real *restrict beta,
                                const real *restrict gamma, const real *restrict q, const real *restrict r, int want_c,
                                int want_p, int want_value, sums *into) {
    real *restrict c13 = into->c13, *restrict p13 = into->p13, *restrict c23 = into->c23, *restrict p23 = into->p23;
    real sum_c = 0, sum_p = 0;
    MOVER_SIMD_SUM(sum_c, sum_p)
    for (int64_t l = 0; l < count; l++) {
        real t;
        const real square = triple_square(alpha, beta[l], gamma[l], &t), volume = real_sqrt(square);
        if (want_c) {
            const real inverse = inverse_volume(square, volume), both = (r ? r[l] : 1) * inverse;
            sum_c += q[l] * both * ((1 - alpha) * (beta[l] * (2 - beta[l])) - t * (1 - beta[l]));
            c13[l] += by_c * both * ((1 - beta[l]) * (alpha * (2 - alpha)) - t * (1 - alpha));
            c23[l] += by_c * q[l] * inverse * t;
        }
        if (want_p || want_value) sum_p += q[l] * ((r ? r[l] : 1) * volume);
        if (want_p) {
            const real both = (r ? r[l] : 1) * volume;
            p13[l] += by_p * weight * both;
            p23[l] += by_p * weight * q[l] * volume;
        }
    }
    into->c12 = by_c * sum_c;
    into->p12 = by_p * sum_p;
    into->value = weight * sum_p;
}

/* The constants make one loop of each kind. */
MOVER_INLINE void add_gradients_with(const real *r, int want_c, int want_p, int want_value, int64_t count, real alpha,
                                     real weight, real by_c, real by_p, const real *beta, const real *gamma,
                                     const real *q, sums *into) {
    if (want_c && want_p)
        add_gradients(count, alpha, weight, by_c, by_p, beta, gamma, q, r, 1, 1, 0, into);
    else if (want_c && want_value)
        add_gradients(count, alpha, weight, by_c, by_p, beta, gamma, q, r, 1, 0, 1, into);
    else if (want_c)
        add_gradients(count, alpha, weight, by_c, by_p, beta, gamma, q, r, 1, 0, 0, into);
    else
        add_gradients(count, alpha, weight, by_c, by_p, beta, gamma, q, r, 0, 1, 0, into);
}

/* As forward_tile, for block `block` of rows i; j0 and l0 are those of the tile. */
MOVER_HOT static void backward_tile(const triples *call, int64_t block, int64_t j0, int64_t rows, int64_t l0,
                                    int64_t width) {
    real gamma[ROWS][WIDTH], c23[ROWS][WIDTH], p23[ROWS][WIDTH], beta[WIDTH], c13[WIDTH], p13[WIDTH], ones[WIDTH];
    const int64_t begin = call->n1 * block / call->blocks, end = call->n1 * (block + 1) / call->blocks;
    double value = 0;
    fill(ones, width, 1);
    for (int64_t j = 0; j < rows; j++) {
        half_costs(call->c23 + (j0 + j) * call->n3 + l0, width, gamma[j]);
        fill(c23[j], width, 0);
        fill(p23[j], width, 0);
    }
    for (int64_t i = begin; i < end; i++) {
        const int64_t il = i * call->n3 + l0;
        const real *q = call->p13 ? call->p13 + il : ones;
        half_costs(call->c13 + il, width, beta);
        fill(c13, width, 0);
        fill(p13, width, 0);
        for (int64_t j = 0; j < rows; j++) {
            const int64_t ij = i * call->n2 + j0 + j;
            const real weight = call->p12 ? call->p12[ij] : 1;
            const real *r = call->p23 ? call->p23 + (j0 + j) * call->n3 + l0 : NULL;
            sums into = {c13, p13, c23[j], p23[j], 0, 0, 0};
            const real alpha = half_cost(call->c12[ij]), by_c = call->grad_value * weight / 2;
            if (r)
                add_gradients_with(r, call->want_c, call->want_p, call->want_value, width, alpha, weight, by_c,
                                   call->grad_value, beta, gamma[j], q, &into);
            else
                add_gradients_with(NULL, call->want_c, call->want_p, call->want_value, width, alpha, weight, by_c,
                                   call->grad_value, beta, gamma[j], q, &into);
            value += (double)into.value;
            if (call->grad_c12) call->grad_c12[ij] += into.c12;
            if (call->grad_p12) call->grad_p12[ij] += into.p12;
        }
        if (call->grad_c13) {
            MOVER_SIMD
            for (int64_t l = 0; l < width; l++) call->grad_c13[il + l] += q[l] * c13[l];
        }
        if (call->grad_p13) {
            MOVER_SIMD
            for (int64_t l = 0; l < width; l++) call->grad_p13[il + l] += p13[l];
        }
    }
    for (int64_t j = 0; j < rows; j++) {
        const int64_t share = (block * GROUP + j0 + j - call->group) * call->n3 + l0;
        if (call->grad_c23)
            for (int64_t l = 0; l < width; l++) call->share_c[share + l] = c23[j][l];
        if (call->grad_p23)
            for (int64_t l = 0; l < width; l++) call->share_p[share + l] = p23[j][l];
    }
    call->block_sum[block] += value;
}

static void backward_blocks(int64_t begin, int64_t end, void *ctx) {
    const triples *call = ctx;
    const int64_t last = mover_min(call->n2, call->group + GROUP);
    for (int64_t block = begin; block < end; block++)
        for (int64_t j = call->group; j < last; j += ROWS)
            for (int64_t l = 0; l < call->n3; l += WIDTH)
                backward_tile(call, block, j, mover_min(ROWS, last - j), l, mover_min(WIDTH, call->n3 - l));
}

/* grad[j, l] = r_jl times the sum of the shares, for one row j of the group; r NULL: ones. */
MOVER_HOT static void add_shares(const triples *call, int64_t j, const real *share, const real *r, real *grad) {
    double sum[WIDTH];
    for (int64_t l0 = 0; l0 < call->n3; l0 += WIDTH) {
        const int64_t width = mover_min(WIDTH, call->n3 - l0), jl = j * call->n3 + l0;
        for (int64_t l = 0; l < width; l++) sum[l] = 0;
        for (int64_t block = 0; block < call->blocks; block++) {
            const real *from = share + (block * GROUP + j - call->group) * call->n3 + l0;
            MOVER_SIMD
            for (int64_t l = 0; l < width; l++) sum[l] += (double)from[l];
        }
        MOVER_SIMD
        for (int64_t l = 0; l < width; l++) grad[jl + l] = (real)((r ? (double)r[jl + l] : 1) * sum[l]);
    }
}

static void share_rows(int64_t begin, int64_t end, void *ctx) {
    const triples *call = ctx;
    for (int64_t j = begin; j < end; j++) {
        if (call->grad_c23) add_shares(call, j, call->share_c, call->p23, call->grad_c23);
        if (call->grad_p23) add_shares(call, j, call->share_p, NULL, call->grad_p23);
    }
}

static void take_backward(triples *call, mover_arena *arena) {
    const int64_t blocks = mover_ceil_div(call->n1, LEAST_BLOCK);
    call->blocks = mover_min(blocks, MOST_BLOCKS);
    call->block_sum = mover_take(arena, call->blocks, 1, sizeof(double));
    call->share_c = mover_take(arena, call->blocks * GROUP, call->n3, sizeof(real));
    call->share_p = mover_take(arena, call->blocks * GROUP, call->n3, sizeof(real));
}

void R(mover_cpu_expected_volume_backward_layout)(const mover_expected_volume_desc *desc, mover_arena *arena) {
    triples call = triples_of(desc, NULL, NULL, NULL, NULL, NULL, NULL);
    take_backward(&call, arena);
}

static void zero(real *grad, int64_t count) {
    if (grad) fill(grad, count, 0);
}

mover_status R(mover_cpu_expected_volume_backward)(const mover_expected_volume_desc *desc, const real *c12,
                                                   const real *c13, const real *c23, const real *p12, const real *p13,
                                                   const real *p23, const real *grad_value, real *value, real *grad_c12,
                                                   real *grad_c13, real *grad_c23, real *grad_p12, real *grad_p13,
                                                   real *grad_p23, void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    triples call = triples_of(desc, c12, c13, c23, p12, p13, p23);
    take_backward(&call, &arena);
    call.grad_value = grad_value ? *grad_value : 1;
    call.grad_c12 = grad_c12;
    call.grad_c13 = grad_c13;
    call.grad_c23 = grad_c23;
    call.grad_p12 = grad_p12;
    call.grad_p13 = grad_p13;
    call.grad_p23 = grad_p23;
    call.want_c = grad_c12 || grad_c13 || grad_c23;
    call.want_p = grad_p12 || grad_p13 || grad_p23;
    call.want_value = value != NULL;
    for (int64_t block = 0; block < call.blocks; block++) call.block_sum[block] = 0;
    zero(grad_c12, call.n1 * call.n2);
    zero(grad_c13, call.n1 * call.n3);
    zero(grad_c23, call.n2 * call.n3);
    zero(grad_p12, call.n1 * call.n2);
    zero(grad_p13, call.n1 * call.n3);
    zero(grad_p23, call.n2 * call.n3);
    if (!call.want_c && !call.want_p) call.want_p = call.want_value; /* its loop makes the value too */
    if (!call.want_c && !call.want_p) return MOVER_OK;
    const int64_t work = mover_ceil_div(call.n1, mover_max(1, call.blocks)) * GROUP * call.n3;
    for (; call.group < call.n2; call.group += GROUP) {
        const int64_t last = mover_min(call.n2, call.group + GROUP);
        MOVER_TRY(mover_run(exec, 0, call.blocks, mover_grain(work), backward_blocks, &call));
        if (grad_c23 || grad_p23)
            MOVER_TRY(mover_run(exec, call.group, last, mover_grain(call.blocks * call.n3), share_rows, &call));
    }
    double sum = 0;
    for (int64_t block = 0; block < call.blocks; block++) sum += call.block_sum[block];
    if (value) *value = (real)sum;
    return MOVER_OK;
}
