/*
 * sinkhorn.c: entropic optimal transport by alternating updates in log domain.
 *
 *     plan_ij = exp(u_i + v_j - C_ij / epsilon),   u = f / epsilon + log a,   v = g / epsilon + log b
 *
 * One iteration reads the costs once and takes one exponential per element: for a row, e_j = plan_ij, r = sum_j e_j,
 * u_i += log(a_i / r), and e_j a_i / r is added to the column sums; then v_j += log(b_j / column sum). r measures the
 * row error of the state before the iteration, whose columns are exact: once it is at most tol, the iteration is
 * finished and the last.
 *
 * u starts at the row's largest exponent, so nothing overflows. Only the first column sums can underflow (a column far
 * from every row, for small epsilon): those columns are summed again about their own largest exponent. From then on
 * r_i >= a_i min b and every sum is safe.
 *
 * Work is divided into blocks of BLOCK rows; the column sums of the blocks are added in order, so results do not
 * depend on the threads.
 */
#include "backend.h"
#include "real.h"

#include "exponential.h"
#include "sinkhorn.h"

enum { BLOCK = 32, COLUMNS = 256 };
enum { ITERATING = 0, DONE = 1, NOT_FINITE = 2 };

static const real NO_MASS = (real)-1e30;   /* the log of a mass of 0 */
static const real UNDERFLOW = (real)1e-30; /* column sums below are taken again */
static const real LARGEST = REAL_MAX / 64; /* bound on costs and on costs / epsilon */

MOVER_INLINE real mass(const real *weights, int64_t index, int64_t count) {
    return weights ? weights[index] : (real)1 / (real)count;
}

static inline real log_mass(real value) { return value > 0 ? real_log(value) : NO_MASS; }

void R(sinkhorn_take)(sinkhorn_solver *s, mover_arena *arena) {
    s->blocks = mover_ceil_div(s->n, BLOCK);
    s->u = mover_take(arena, s->batch, s->n, sizeof(real));
    s->v = mover_take(arena, s->batch, s->m, sizeof(real));
    s->block_error = mover_take(arena, s->batch, s->blocks, sizeof(double));
    s->active = mover_take(arena, s->batch, 1, sizeof(int64_t));
    s->state = mover_take(arena, s->batch, 1, sizeof(int32_t));
    s->iterations = mover_take(arena, s->batch, 1, sizeof(int32_t));
    int64_t rows = 0;
    if (__builtin_mul_overflow(s->batch, s->blocks, &rows)) arena->overflow = 1;
    s->column_sum = mover_take(arena, rows, s->m, sizeof(real));
    s->row = mover_take(arena, rows, s->m, sizeof(real));
}

/* ---- start ------------------------------------------------------------------------------------------------------ */

/* 1 if masses are finite and >= 0 with a positive sum. */
static int masses_valid(const real *weights, int64_t count) {
    if (!weights) return 1;
    real sum = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!(weights[i] >= 0 && weights[i] <= LARGEST)) return 0;
        sum += weights[i];
    }
    return sum > 0 && sum <= LARGEST;
}

MOVER_HOT static void start_rows(const sinkhorn_solver *s, int64_t begin, int64_t end) {
    const real inverse = (real)(1 / s->epsilon), bound = LARGEST * (real)fmin(1, s->epsilon);
    for (int64_t task = begin; task < end; task++) {
        const int64_t p = task / s->blocks, block = task % s->blocks;
        const real *restrict v = s->v + p * s->m;
        int32_t bad = 0;
        for (int64_t i = block * BLOCK; i < mover_min(s->n, (block + 1) * BLOCK); i++) {
            const real *restrict cost = s->cost + (p * s->n + i) * s->m;
            real largest = -REAL_MAX;
            int32_t bad_in_row = 0;
            MOVER_PRAGMA(omp simd reduction(max : largest) reduction(+ : bad_in_row))
            for (int64_t j = 0; j < s->m; j++) {
                const real exponent = v[j] - cost[j] * inverse;
                largest = exponent > largest ? exponent : largest;
                bad_in_row += !(real_fabs(cost[j]) <= bound);
            }
            bad += bad_in_row;
            s->u[p * s->n + i] = mass(s->a ? s->a + p * s->n : NULL, i, s->n) > 0 ? -largest : NO_MASS;
        }
        s->block_error[task] = bad;
    }
}

static void start_body(int64_t begin, int64_t end, void *ctx) { start_rows(ctx, begin, end); }

static mover_status start(sinkhorn_solver *s, const mover_exec *exec) {
    for (int64_t p = 0; p < s->batch; p++) {
        const real *a = s->a ? s->a + p * s->n : NULL, *b = s->b ? s->b + p * s->m : NULL;
        const int valid = masses_valid(a, s->n) && masses_valid(b, s->m);
        s->state[p] = valid ? ITERATING : NOT_FINITE;
        s->iterations[p] = 0;
        for (int64_t j = 0; j < s->m; j++) s->v[p * s->m + j] = log_mass(valid ? mass(b, j, s->m) : 1);
    }
    MOVER_TRY(mover_run(exec, 0, s->batch * s->blocks, mover_grain(BLOCK * s->m), start_body, s));
    for (int64_t task = 0; task < s->batch * s->blocks; task++)
        if (s->block_error[task] > 0) s->state[task / s->blocks] = NOT_FINITE;
    return MOVER_OK;
}

/* ---- one iteration ---------------------------------------------------------------------------------------------- */

/* The exponentials of one row of the plan; returns their sum. */
MOVER_INLINE real exponentials(const real *restrict cost, const real *restrict v, real u, real inverse, int64_t m,
                               real *restrict e) {
    real sum = 0;
    MOVER_SIMD_SUM(sum)
    for (int64_t j = 0; j < m; j++) {
        e[j] = exponential((v[j] + u) - cost[j] * inverse);
        sum += e[j];
    }
    return sum;
}

MOVER_HOT static void update_rows(const sinkhorn_solver *s, int64_t begin, int64_t end) {
    const real inverse = (real)(1 / s->epsilon);
    for (int64_t task = begin; task < end; task++) {
        const int64_t p = s->active[task / s->blocks], block = task % s->blocks, slot = p * s->blocks + block;
        const real *v = s->v + p * s->m, *a = s->a ? s->a + p * s->n : NULL;
        real *restrict e = s->row + slot * s->m, *restrict column_sum = s->column_sum + slot * s->m;
        double error = 0;
        for (int64_t j = 0; j < s->m; j++) column_sum[j] = 0;
        for (int64_t i = block * BLOCK; i < mover_min(s->n, (block + 1) * BLOCK); i++) {
            const real mass_i = mass(a, i, s->n);
            if (mass_i == 0) continue;
            real *u = s->u + p * s->n + i;
            const real sum = exponentials(s->cost + (p * s->n + i) * s->m, v, *u, inverse, s->m, e);
            const real factor = mass_i / sum;
            error += (double)real_fabs(sum - mass_i);
            *u += real_log(factor);
            MOVER_SIMD
            for (int64_t j = 0; j < s->m; j++) column_sum[j] += e[j] * factor;
        }
        s->block_error[slot] = error;
    }
}

/* log sum_i exp(u_i - C_ij / epsilon) of column j, about its largest exponent. */
static real column_log_sum(const sinkhorn_solver *s, int64_t p, int64_t j) {
    const real *cost = s->cost + p * s->n * s->m + j, *u = s->u + p * s->n;
    const real inverse = (real)(1 / s->epsilon);
    real largest = NO_MASS, sum = 0;
    for (int64_t i = 0; i < s->n; i++)
        if (u[i] > NO_MASS) {
            const real exponent = u[i] - cost[i * s->m] * inverse;
            largest = exponent > largest ? exponent : largest;
        }
    for (int64_t i = 0; i < s->n; i++)
        if (u[i] > NO_MASS) sum += exponential(u[i] - cost[i * s->m] * inverse - largest);
    return largest + real_log(sum);
}

MOVER_HOT static void update_columns(const sinkhorn_solver *s, int64_t begin, int64_t end) {
    const int64_t chunks = mover_ceil_div(s->m, COLUMNS);
    for (int64_t task = begin; task < end; task++) {
        const int64_t p = s->active[task / chunks], chunk = task % chunks;
        const int64_t first = chunk * COLUMNS, width = mover_min(COLUMNS, s->m - first);
        real *v = s->v + p * s->m + first;
        const real *b = s->b ? s->b + p * s->m + first : NULL;
        real sum[COLUMNS] = {0};
        for (int64_t block = 0; block < s->blocks; block++) {
            const real *restrict part = s->column_sum + (p * s->blocks + block) * s->m + first;
            MOVER_SIMD
            for (int64_t j = 0; j < width; j++) sum[j] += part[j];
        }
        for (int64_t j = 0; j < width; j++) {
            const real mass_j = mass(b, j, s->m);
            if (mass_j == 0) continue;
            if (sum[j] < UNDERFLOW)
                v[j] = real_log(mass_j) - column_log_sum(s, p, first + j);
            else
                v[j] += real_log(mass_j / sum[j]);
        }
    }
}

static void rows_body(int64_t begin, int64_t end, void *ctx) { update_rows(ctx, begin, end); }
static void columns_body(int64_t begin, int64_t end, void *ctx) { update_columns(ctx, begin, end); }

mover_status R(sinkhorn_solve)(sinkhorn_solver *s, const mover_exec *exec) {
#if MOVER_REAL_BITS == 32
    const double tol = fmax(s->tol, fmax(2e-6, 4e-8 / s->epsilon));
#else
    const double tol = fmax(s->tol, 1e-13 + 1e-16 / s->epsilon);
#endif
    const int64_t chunks = mover_ceil_div(s->m, COLUMNS);
    MOVER_TRY(start(s, exec));
    for (int32_t iteration = 0; iteration < s->max_iter; iteration++) {
        int64_t active = 0;
        for (int64_t p = 0; p < s->batch; p++)
            if (s->state[p] == ITERATING) s->active[active++] = p;
        if (active == 0) break;
        MOVER_TRY(mover_run(exec, 0, active * s->blocks, mover_grain(BLOCK * s->m * 4), rows_body, s));
        MOVER_TRY(mover_run(exec, 0, active * chunks, mover_grain(s->blocks * COLUMNS), columns_body, s));
        for (int64_t index = 0; index < active; index++) {
            const int64_t p = s->active[index];
            double error = 0;
            for (int64_t block = 0; block < s->blocks; block++) error += s->block_error[p * s->blocks + block];
            s->iterations[p] = iteration + 1;
            if (!(error <= DBL_MAX))
                s->state[p] = NOT_FINITE;
            else if (iteration > 0 && error <= tol)
                s->state[p] = DONE;
        }
    }
    return MOVER_OK;
}

/* ---- results ---------------------------------------------------------------------------------------------------- */

typedef struct plan_task {
    const sinkhorn_solver *solver;
    real *plan;
} plan_task;

MOVER_HOT static void write_plan(const plan_task *task_of, int64_t begin, int64_t end) {
    const sinkhorn_solver *s = task_of->solver;
    const real inverse = (real)(1 / s->epsilon);
    for (int64_t slot = begin; slot < end; slot++) {
        const int64_t p = slot / s->blocks, block = slot % s->blocks;
        const real *v = s->v + p * s->m, *a = s->a ? s->a + p * s->n : NULL;
        real *restrict column_sum = s->column_sum + slot * s->m;
        double error = 0;
        for (int64_t j = 0; j < s->m; j++) column_sum[j] = 0;
        for (int64_t i = block * BLOCK; i < mover_min(s->n, (block + 1) * BLOCK); i++) {
            real *restrict plan = task_of->plan + (p * s->n + i) * s->m;
            if (s->state[p] == NOT_FINITE) {
                for (int64_t j = 0; j < s->m; j++) plan[j] = (real)NAN;
                continue;
            }
            const real sum = exponentials(s->cost + (p * s->n + i) * s->m, v, s->u[p * s->n + i], inverse, s->m, plan);
            error += (double)real_fabs(sum - mass(a, i, s->n));
            MOVER_SIMD
            for (int64_t j = 0; j < s->m; j++) column_sum[j] += plan[j];
        }
        s->block_error[slot] = error;
    }
}

static void plan_body(int64_t begin, int64_t end, void *ctx) { write_plan(ctx, begin, end); }

mover_status R(sinkhorn_plan)(sinkhorn_solver *s, real *plan, real *marginal_error, const mover_exec *exec) {
    plan_task task = {s, plan};
    MOVER_TRY(mover_run(exec, 0, s->batch * s->blocks, mover_grain(BLOCK * s->m * 4), plan_body, &task));
    for (int64_t p = 0; p < s->batch; p++) {
        const real *b = s->b ? s->b + p * s->m : NULL;
        double error = 0;
        for (int64_t block = 0; block < s->blocks; block++) error += s->block_error[p * s->blocks + block];
        for (int64_t j = 0; j < s->m; j++) {
            real sum = 0;
            for (int64_t block = 0; block < s->blocks; block++)
                sum += s->column_sum[(p * s->blocks + block) * s->m + j];
            error += (double)real_fabs(sum - mass(b, j, s->m));
        }
        marginal_error[p] = s->state[p] == NOT_FINITE ? (real)NAN : (real)error;
    }
    return MOVER_OK;
}

/* -epsilon log sum_j b_j exp((g_j - C_ij) / epsilon), the soft c-transform, for rows or columns without mass.
 * `step` leads from one cost to the next; v holds the other side's log scalings, `count` of them. */
static real soft_transform(const real *cost, int64_t step, const real *v, int64_t count, double epsilon) {
    double largest = (double)NO_MASS, sum = 0;
    for (int64_t j = 0; j < count; j++)
        if (v[j] > NO_MASS) largest = fmax(largest, (double)v[j] - (double)cost[j * step] / epsilon);
    for (int64_t j = 0; j < count; j++)
        if (v[j] > NO_MASS) sum += exp((double)v[j] - (double)cost[j * step] / epsilon - largest);
    return (real)(-epsilon * (largest + log(sum)));
}

void R(sinkhorn_potentials)(const sinkhorn_solver *s, real *f, real *g, real *value) {
    for (int64_t p = 0; p < s->batch; p++) {
        const int64_t n = s->n, m = s->m;
        const real *a = s->a ? s->a + p * n : NULL, *b = s->b ? s->b + p * m : NULL;
        const real *u = s->u + p * n, *v = s->v + p * m, *cost = s->cost + p * n * m;
        double with_a = 0, with_b = 0, mass_a = 0, mass_b = 0;
        if (s->state[p] == NOT_FINITE) {
            for (int64_t i = 0; i < n; i++) f[p * n + i] = (real)NAN;
            for (int64_t j = 0; j < m; j++) g[p * m + j] = (real)NAN;
            if (value) value[p] = (real)NAN;
            continue;
        }
        for (int64_t i = 0; i < n; i++) {
            const real mass_i = mass(a, i, n);
            const real potential = mass_i > 0 ? (real)(s->epsilon * ((double)u[i] - log((double)mass_i)))
                                              : soft_transform(cost + i * m, 1, v, m, s->epsilon);
            f[p * n + i] = potential;
            with_a += (double)potential * (double)mass_i;
            mass_a += (double)mass_i;
        }
        for (int64_t j = 0; j < m; j++) {
            const real mass_j = mass(b, j, m);
            const real potential = mass_j > 0 ? (real)(s->epsilon * ((double)v[j] - log((double)mass_j)))
                                              : soft_transform(cost + j, m, u, n, s->epsilon);
            g[p * m + j] = potential;
            with_b += (double)potential * (double)mass_j;
            mass_b += (double)mass_j;
        }
        const double shift = (with_b - with_a) / (mass_a + mass_b);
        for (int64_t i = 0; i < n; i++) f[p * n + i] = (real)((double)f[p * n + i] + shift);
        for (int64_t j = 0; j < m; j++) g[p * m + j] = (real)((double)g[p * m + j] - shift);
        if (value) value[p] = (real)(with_a + with_b + shift * (mass_a - mass_b));
    }
}

/* ---- the op ----------------------------------------------------------------------------------------------------- */

static sinkhorn_solver solver_of(const mover_sinkhorn_desc *desc) {
    return (sinkhorn_solver){.batch = desc->batch,
                             .n = desc->n,
                             .m = desc->m,
                             .epsilon = desc->epsilon,
                             .tol = desc->tol,
                             .max_iter = desc->max_iter};
}

void R(mover_cpu_sinkhorn_layout)(const mover_sinkhorn_desc *desc, mover_arena *arena) {
    sinkhorn_solver solver = solver_of(desc);
    R(sinkhorn_take)(&solver, arena);
}

mover_status R(mover_cpu_sinkhorn_forward)(const mover_sinkhorn_desc *desc, const real *cost, const real *a,
                                           const real *b, real *plan, real *f, real *g, int32_t *n_iter,
                                           real *marginal_error, void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    sinkhorn_solver solver = solver_of(desc);
    solver.cost = cost;
    solver.a = a;
    solver.b = b;
    R(sinkhorn_take)(&solver, &arena);
    MOVER_TRY(R(sinkhorn_solve)(&solver, exec));
    MOVER_TRY(R(sinkhorn_plan)(&solver, plan, marginal_error, exec));
    R(sinkhorn_potentials)(&solver, f, g, NULL);
    for (int64_t p = 0; p < desc->batch; p++) n_iter[p] = solver.iterations[p];
    return MOVER_OK;
}
