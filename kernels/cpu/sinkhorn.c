/*
 * sinkhorn.c: entropic optimal transport: how iterations follow each other, and what they end in.
 *
 *     plan_ij = K_ij U_i V_j,   K_ij = exp(u_i + v_j - C_ij / epsilon)
 *
 * An iteration (scaling.c) makes the rows exact, then the columns; the error between the two halves is the whole
 * marginal error, and the second half cannot raise it. The iteration that finds it at most tol is the last.
 *
 * The solver `auto` goes beyond the updates, to U (U_next / U)^(1 + over) to first order and likewise V, with `over`
 * chosen from the observed rate (successive over-relaxation): a fraction of the iterations, the same plan. Where even
 * that crawls, it turns to newton.c.
 */
#include "../src/backend.h"
#include "cost.h"
#include "real.h"

#include "sinkhorn.h"

/* A pass over so many elements is not worth waiting for other threads, and one of MANY is if there is one problem only.
 */
enum { FEW = 512 * 512, MANY = 256 * 256 };

int R(sinkhorn_is_small)(int64_t batch, int64_t n, int64_t m) { return m == 0 || n <= (batch > 1 ? FEW : MANY) / m; }

static void take(sinkhorn_problem *q, int has_plan, mover_arena *arena) {
    q->system = (schur_system){.n = q->n, .m = q->m};
    q->u = mover_take(arena, q->n, 1, sizeof(real));
    q->v = mover_take(arena, q->m, 1, sizeof(real));
    q->row_scale = mover_take(arena, q->n, 1, sizeof(real));
    q->column_scale = mover_take(arena, q->m, 1, sizeof(real));
    q->row_mass = mover_take(arena, q->n, 1, sizeof(real));
    q->column_mass = mover_take(arena, q->m, 1, sizeof(real));
    R(schur_take)(&q->system, arena);
    q->part = mover_take(arena, q->system.blocks, 1, sizeof(double));
    q->diagonal = q->solver == MOVER_SOLVER_SINKHORN ? NULL : mover_take(arena, q->system.blocks, q->m, sizeof(real));
    if (!has_plan) q->plan = mover_take(arena, q->n, q->m, sizeof(real));
}

static sinkhorn_problem problem_of(const sinkhorn_batch *batch) {
    return (sinkhorn_problem){.n = batch->n,
                              .m = batch->m,
                              .epsilon = batch->epsilon,
                              .tol = batch->tol,
                              .max_iter = batch->max_iter,
                              .solver = batch->solver};
}

void R(sinkhorn_take)(sinkhorn_batch *batch, int has_plan, mover_arena *arena) {
    mover_arena one = {0};
    if (batch->batch == 0) return;
    sinkhorn_problem problem = problem_of(batch);
    take(&problem, has_plan, &one);
    arena->overflow |= one.overflow;
    batch->slots = R(sinkhorn_is_small)(batch->batch, batch->n, batch->m) ? batch->batch : 1;
    batch->slot_bytes = one.used;
    batch->scratch = mover_take(arena, batch->slots, (int64_t)one.used, 1);
}

/* ---- masses ------------------------------------------------------------------------------------------------------ */

/* Writes the masses out and returns 1 if they are finite and >= 0 with a positive sum. */
static int write_masses(const real *weights, int64_t count, real *out) {
    real sum = 0;
    int valid = 1;
    for (int64_t i = 0; i < count; i++) {
        out[i] = weights ? weights[i] : (real)1 / (real)count;
        valid &= out[i] >= 0 && out[i] <= SINKHORN_LARGEST;
        sum += out[i];
    }
    return valid && sum > 0 && sum <= SINKHORN_LARGEST;
}

static void start(sinkhorn_problem *q, const real *a, const real *b) {
    q->finite = write_masses(a, q->n, q->row_mass);
    q->finite &= write_masses(b, q->m, q->column_mass);
    for (int64_t i = 0; i < q->n; i++) q->row_scale[i] = 1;
    for (int64_t j = 0; j < q->m; j++) {
        q->v[j] = q->column_mass[j] > 0 ? real_log(q->column_mass[j]) : SINKHORN_NO_MASS;
        q->column_scale[j] = 1;
    }
}

/* ---- how far to go beyond, and when to turn to Newton -------------------------------------------------------------
 */

static const double MOST_OVER = 0.9, GROWTH = 3, RETREAT = 0.7;
enum { WINDOW = 4 /* iterations over which a rate is taken */, MOST_NEWTON = 4 /* turns to Newton */ };
static const double PATIENCE = 60; /* iterations at the present rate that `auto` waits for */

typedef struct pace {
    double over, most_over;       /* now, and its bound */
    double least, errors[WINDOW]; /* the least error since the last retreat, the last errors in a ring */
    int32_t count, since;         /* iterations seen, and since `over` changed */
} pace;

/* The next `over` after an iteration that left `error`. If the error had fallen by the factor q with `over`, that of
 * plain updates is rho = (q + over)^2 / (q (1 + over)^2), and the best `over` 2 / (1 + sqrt(1 - rho)) - 1. */
static double next_over(pace *s, double error) {
    const double q = s->count > 0 ? error / s->errors[(s->count - 1) % WINDOW] : 1;
    s->since++;
    if (error > GROWTH * s->least) {
        s->most_over = RETREAT * s->over;
        s->over = 0;
        s->least = error;
        s->since = -1;
    } else if (s->count >= 2 && s->since >= 2 && q > s->over && q < 1) {
        const double rho = (q + s->over) * (q + s->over) / (q * (1 + s->over) * (1 + s->over));
        const double best = rho < 1 ? fmin(s->most_over, 2 / (1 + sqrt(1 - rho)) - 1) : 0;
        if (best > s->over) {
            s->over = best;
            s->since = 0;
        }
    }
    s->least = fmin(s->least, error);
    return s->over;
}

/* Whether more than PATIENCE iterations remain at the rate of the last WINDOW. */
static int crawls(const pace *s, double error, double tol) {
    if (s->count < WINDOW || s->since < WINDOW) return 0;
    const double rate = error / s->errors[s->count % WINDOW]; /* the error WINDOW iterations ago */
    return rate >= 1 || WINDOW * log(tol / error) < PATIENCE * log(rate);
}

static void remember(pace *s, double error) { s->errors[s->count++ % WINDOW] = error; }

/* ---- to the end of the iterations ----------------------------------------------------------------------------------
 */

static mover_status iterate(sinkhorn_problem *q, const mover_exec *exec) {
    pace at = {.most_over = MOST_OVER, .least = DBL_MAX};
    int stretched = 1, newton = q->solver == MOVER_SOLVER_SINKHORN ? 0 : MOST_NEWTON;
    while (q->finite) {
        double error = 0;
        if (stretched)
            MOVER_TRY(R(sinkhorn_refresh)(q, 0, exec));
        else
            MOVER_TRY(R(sinkhorn_scale_rows)(q, &error, exec));
        error += R(sinkhorn_column_error)(q);
        q->iterations++;
        q->finite &= error <= DBL_MAX;
        const int last = error <= q->tol || q->iterations >= q->max_iter;
        q->over = q->solver == MOVER_SOLVER_AUTO && !last ? (real)next_over(&at, error) : 0;
        const int turn = q->solver == MOVER_SOLVER_NEWTON ? at.count == WINDOW : crawls(&at, error, q->tol);
        remember(&at, error);
        stretched = R(sinkhorn_scale_columns)(q);
        if (last) break;
        if (newton == 0 || !turn) continue;
        newton--;
        q->over = 0;
        MOVER_TRY(R(sinkhorn_newton)(q, stretched, exec));
        error = R(sinkhorn_column_error)(q);
        stretched = R(sinkhorn_scale_columns)(q);
        if (error <= q->tol || q->iterations >= q->max_iter) break;
        at = (pace){.most_over = MOST_OVER, .least = DBL_MAX};
    }
    return MOVER_OK;
}

/* ---- results -------------------------------------------------------------------------------------------------------
 */

/* The kernel of a block becomes the plan; part is its row error, partial its column sums. */
MOVER_HOT static void plan_blocks(const sinkhorn_problem *q, int64_t begin, int64_t end) {
    const int64_t m = q->m;
    const real *restrict v = q->column_scale;
    for (int64_t block = begin; block < end; block++) {
        real *restrict sums = q->system.partial + block * m;
        double error = 0;
        for (int64_t j = 0; j < m; j++) sums[j] = 0;
        for (int64_t i = block * SINKHORN_BLOCK; i < mover_min(q->n, (block + 1) * SINKHORN_BLOCK); i++) {
            real *restrict plan = q->plan + i * m;
            const real u = q->row_scale[i];
            real sum = 0;
            MOVER_SIMD_SUM(sum)
            for (int64_t j = 0; j < m; j++) {
                plan[j] = plan[j] * u * v[j];
                sum += plan[j];
                sums[j] += plan[j];
            }
            error += (double)real_fabs(sum - q->row_mass[i]);
        }
        q->part[block] = error;
    }
}

static void plan_body(int64_t begin, int64_t end, void *ctx) { plan_blocks(ctx, begin, end); }

static mover_status write_plan(sinkhorn_problem *q, real *marginal_error, const mover_exec *exec) {
    const int64_t blocks = q->system.blocks, n = q->n, m = q->m;
    if (!q->finite) {
        for (int64_t e = 0; e < n * m; e++) q->plan[e] = (real)NAN;
        *marginal_error = (real)NAN;
        return MOVER_OK;
    }
    MOVER_TRY(mover_run(exec, 0, blocks, mover_grain(SINKHORN_BLOCK * m), plan_body, q));
    MOVER_TRY(R(mover_cost_column_sums)(q->system.partial, blocks, m, m, q->system.column_sum, exec));
    double error = 0;
    for (int64_t block = 0; block < blocks; block++) error += q->part[block];
    for (int64_t j = 0; j < m; j++) error += (double)real_fabs(q->system.column_sum[j] - q->column_mass[j]);
    *marginal_error = (real)error;
    return MOVER_OK;
}

/* -epsilon log sum_j b_j exp((g_j - C_ij) / epsilon), the soft c-transform, for rows or columns without mass.
 * `step` leads from one cost to the next; v holds the other side's log scalings, `count` of them. */
static real soft_transform(const real *cost, int64_t step, const real *v, int64_t count, double epsilon) {
    double largest = (double)SINKHORN_NO_MASS, sum = 0;
    for (int64_t j = 0; j < count; j++)
        if (v[j] > SINKHORN_NO_MASS) largest = fmax(largest, (double)v[j] - (double)cost[j * step] / epsilon);
    for (int64_t j = 0; j < count; j++)
        if (v[j] > SINKHORN_NO_MASS) sum += exp((double)v[j] - (double)cost[j * step] / epsilon - largest);
    return (real)(-epsilon * (largest + log(sum)));
}

/* f = epsilon (u - log a), g = epsilon (v - log b), shifted so that <f, a> = <g, b>; returns <f, a> + <g, b>. */
static real write_potentials(sinkhorn_problem *q, real *f, real *g) {
    const int64_t n = q->n, m = q->m;
    double with_a = 0, with_b = 0, mass_a = 0, mass_b = 0;
    if (!q->finite) {
        for (int64_t i = 0; i < n; i++) f[i] = (real)NAN;
        for (int64_t j = 0; j < m; j++) g[j] = (real)NAN;
        return (real)NAN;
    }
    R(sinkhorn_absorb)(q);
    for (int64_t i = 0; i < n; i++) {
        const double mass = (double)q->row_mass[i];
        f[i] = mass > 0 ? (real)(q->epsilon * ((double)q->u[i] - log(mass)))
                        : soft_transform(q->cost + i * m, 1, q->v, m, q->epsilon);
        with_a += (double)f[i] * mass;
        mass_a += mass;
    }
    for (int64_t j = 0; j < m; j++) {
        const double mass = (double)q->column_mass[j];
        g[j] = mass > 0 ? (real)(q->epsilon * ((double)q->v[j] - log(mass)))
                        : soft_transform(q->cost + j, m, q->u, n, q->epsilon);
        with_b += (double)g[j] * mass;
        mass_b += mass;
    }
    const double shift = (with_b - with_a) / (mass_a + mass_b);
    for (int64_t i = 0; i < n; i++) f[i] = (real)((double)f[i] + shift);
    for (int64_t j = 0; j < m; j++) g[j] = (real)((double)g[j] - shift);
    return (real)(with_a + with_b + shift * (mass_a - mass_b));
}

static double reachable_tol(double tol, double epsilon) {
#if MOVER_REAL_BITS == 32
    return fmax(tol, fmax(2e-6, 4e-8 / epsilon));
#else
    return fmax(tol, 1e-13 + 1e-16 / epsilon);
#endif
}

mover_status R(sinkhorn_solve_one)(const sinkhorn_batch *batch, int64_t p, int64_t slot, const real *cost,
                                   const mover_exec *exec) {
    const int64_t n = batch->n, m = batch->m;
    mover_arena arena = mover_arena_over(batch->scratch + (size_t)slot * batch->slot_bytes);
    sinkhorn_problem problem = problem_of(batch);
    problem.tol = reachable_tol(batch->tol, batch->epsilon);
    problem.cost = cost;
    if (batch->plan) problem.plan = batch->plan + p * n * m;
    take(&problem, batch->plan != NULL, &arena);
    start(&problem, batch->a ? batch->a + p * n : NULL, batch->b ? batch->b + p * m : NULL);
    MOVER_TRY(iterate(&problem, exec));
    if (batch->plan) MOVER_TRY(write_plan(&problem, batch->marginal_error + p, exec));
    const real value = write_potentials(&problem, batch->f + p * n, batch->g + p * m);
    if (batch->value) batch->value[p] = value;
    if (batch->n_iter) batch->n_iter[p] = problem.iterations;
    return MOVER_OK;
}

static void small_body(int64_t begin, int64_t end, void *ctx) {
    const sinkhorn_batch *batch = ctx;
    for (int64_t p = begin; p < end; p++) /* without a host nothing can fail */
        (void)R(sinkhorn_solve_one)(batch, p, p, batch->cost + p * batch->n * batch->m, NULL);
}

mover_status R(sinkhorn_solve)(const sinkhorn_batch *batch, const mover_exec *exec) {
    const int64_t size = batch->n * batch->m;
    if (batch->batch > 0 && R(sinkhorn_is_small)(batch->batch, batch->n, batch->m))
        return mover_run(exec, 0, batch->batch, mover_grain(size * 32), small_body, (void *)batch);
    for (int64_t p = 0; p < batch->batch; p++)
        MOVER_TRY(R(sinkhorn_solve_one)(batch, p, 0, batch->cost + p * size, exec));
    return MOVER_OK;
}

/* ---- the op ----------------------------------------------------------------------------------------------------- */

static sinkhorn_batch batch_of(const mover_sinkhorn_desc *desc) {
    return (sinkhorn_batch){.batch = desc->batch,
                            .n = desc->n,
                            .m = desc->m,
                            .epsilon = desc->epsilon,
                            .tol = desc->tol,
                            .max_iter = desc->max_iter,
                            .solver = desc->solver};
}

void R(mover_cpu_sinkhorn_layout)(const mover_sinkhorn_desc *desc, mover_arena *arena) {
    sinkhorn_batch batch = batch_of(desc);
    R(sinkhorn_take)(&batch, 1, arena);
}

mover_status R(mover_cpu_sinkhorn_forward)(const mover_sinkhorn_desc *desc, const real *cost, const real *a,
                                           const real *b, real *plan, real *f, real *g, int32_t *n_iter,
                                           real *marginal_error, void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    sinkhorn_batch batch = batch_of(desc);
    batch.cost = cost;
    batch.a = a;
    batch.b = b;
    batch.plan = plan;
    batch.f = f;
    batch.g = g;
    batch.marginal_error = marginal_error;
    batch.n_iter = n_iter;
    R(sinkhorn_take)(&batch, 1, &arena);
    return R(sinkhorn_solve)(&batch, exec);
}
