/*
 * plan_gradient.c: the exact gradient of the entropic plan.
 *
 * With H = P . G (elementwise), s = H 1, t = H^T 1, r = P 1, c = P^T 1, the optimality conditions give
 *
 *     [diag r   P    ] [u]   [s]
 *     [P^T    diag c ] [v] = [t],      dL/dC = -(1/epsilon) P . (G - u 1^T - 1 v^T),   dL/da = u,   dL/db = v.
 *
 * u is eliminated and v found by schur.c, whose right-hand side is formed without subtracting large numbers:
 *
 *     t - P^T (s / r) = sum_i P_ij (G_ij - s_i / r_i)
 *
 * Rows or columns without mass take u_i = 0 or v_j = 0.
 */
#include "../src/backend.h"
#include "cost.h"
#include "real.h"

#include "sinkhorn.h"

enum { MOST_STEPS = 500, SUMS = 4 };

#if MOVER_REAL_BITS == 32
static const double TOLERANCE = 1e-7; /* on |residual| / |(s, t)| */
#else
static const double TOLERANCE = 1e-12;
#endif

/* The gradient of one plan at work. */
typedef struct gradient_task {
    const plan_gradient *call;
    const real *plan, *grad_plan, *add_cost; /* (n, m) */
    real *grad_cost;                         /* (n, m) */
    real *row_sum, *s, *u;                   /* (n): r, s, u */
    real *t;                                 /* (m) */
    real *sums;                              /* (blocks, SUMS, m) */
    schur_system system;
} gradient_task;

static void take(gradient_task *task, mover_arena *arena) {
    const int64_t n = task->call->n, m = task->call->m;
    task->system = (schur_system){.n = n, .m = m};
    task->row_sum = mover_take(arena, n, 1, sizeof(real));
    task->s = mover_take(arena, n, 1, sizeof(real));
    task->u = mover_take(arena, n, 1, sizeof(real));
    task->t = mover_take(arena, m, 1, sizeof(real));
    R(schur_take)(&task->system, arena);
    task->sums = mover_take(arena, SUMS * task->system.blocks, m, sizeof(real));
}

void R(plan_gradient_take)(plan_gradient *call, mover_arena *arena) {
    mover_arena one = {0};
    gradient_task task = {.call = call};
    take(&task, &one);
    arena->overflow |= one.overflow;
    call->slots = R(sinkhorn_is_small)(call->batch, call->n, call->m) ? call->batch : mover_min(call->batch, 1);
    call->slot_bytes = one.used;
    call->scratch = mover_take(arena, call->slots, (int64_t)one.used, 1);
}

/* ---- sums of P and P . G ---------------------------------------------------------------------------------------- */

MOVER_HOT static void sum_blocks(const gradient_task *task, int64_t begin, int64_t end) {
    const int64_t n = task->call->n, m = task->call->m;
    for (int64_t block = begin; block < end; block++) {
        real *restrict column = task->sums + block * SUMS * m, *restrict weighted = column + m;
        real *restrict centred = column + 2 * m, *restrict diagonal = column + 3 * m;
        for (int64_t j = 0; j < SUMS * m; j++) column[j] = 0;
        for (int64_t i = block * SINKHORN_BLOCK; i < mover_min(n, (block + 1) * SINKHORN_BLOCK); i++) {
            const real *restrict plan = task->plan + i * m, *restrict grad = task->grad_plan + i * m;
            real r = 0, s = 0;
            MOVER_SIMD_SUM(r, s)
            for (int64_t j = 0; j < m; j++) {
                r += plan[j];
                s += plan[j] * grad[j];
            }
            task->row_sum[i] = r;
            task->s[i] = s;
            if (r == 0) continue;
            const real mean = s / r, inverse = 1 / r;
            MOVER_SIMD
            for (int64_t j = 0; j < m; j++) {
                column[j] += plan[j];
                weighted[j] += plan[j] * grad[j];
                centred[j] += plan[j] * (grad[j] - mean);
                diagonal[j] += plan[j] * ((r - plan[j]) * inverse);
            }
        }
    }
}

static void sums_body(int64_t begin, int64_t end, void *ctx) { sum_blocks(ctx, begin, end); }

/* Adds up the sums of all blocks; *scale is the length of (s, t). */
static mover_status add_sums(gradient_task *task, double *scale, const mover_exec *exec) {
    const int64_t n = task->call->n, m = task->call->m, blocks = task->system.blocks;
    real *const into[SUMS] = {task->system.column_sum, task->t, task->system.residual, task->system.diagonal};
    for (int64_t which = 0; which < SUMS; which++)
        MOVER_TRY(R(mover_cost_column_sums)(task->sums + which * m, blocks, SUMS * m, m, into[which], exec));
    double square = 0;
    for (int64_t i = 0; i < n; i++) square += (double)task->s[i] * (double)task->s[i];
    for (int64_t j = 0; j < m; j++) square += (double)task->t[j] * (double)task->t[j];
    *scale = sqrt(square);
    return MOVER_OK;
}

/* ---- the gradients ---------------------------------------------------------------------------------------------- */

/* u, then dL/dC, of rows [begin, end). */
MOVER_HOT static void finish_rows(const gradient_task *task, int64_t begin, int64_t end) {
    const int64_t m = task->call->m;
    const real factor = (real)(-1 / task->call->epsilon);
    const real *restrict v = task->system.solution;
    for (int64_t i = begin; i < end; i++) {
        const real *restrict plan = task->plan + i * m, *restrict grad = task->grad_plan + i * m;
        real *restrict out = task->grad_cost + i * m;
        const real r = task->row_sum[i];
        real w = 0;
        MOVER_SIMD_SUM(w)
        for (int64_t j = 0; j < m; j++) w += plan[j] * (grad[j] - v[j]);
        const real u = r == 0 ? 0 : w / r;
        task->u[i] = u;
        if (task->add_cost) {
            const real *restrict add = task->add_cost + i * m;
            MOVER_SIMD
            for (int64_t j = 0; j < m; j++) out[j] = add[j] + factor * (plan[j] * ((grad[j] - v[j]) - u));
        } else {
            MOVER_SIMD
            for (int64_t j = 0; j < m; j++) out[j] = factor * (plan[j] * ((grad[j] - v[j]) - u));
        }
    }
}

static void finish_body(int64_t begin, int64_t end, void *ctx) { finish_rows(ctx, begin, end); }

/* out = values - <values, weights> / sum of weights */
static void centre(const real *values, const real *weights, int64_t count, real *out) {
    double sum = 0, total = 0;
    for (int64_t i = 0; i < count; i++) {
        sum += (double)values[i] * (double)weights[i];
        total += (double)weights[i];
    }
    const double mean = total == 0 ? 0 : sum / total;
    for (int64_t i = 0; i < count; i++) out[i] = (real)((double)values[i] - mean);
}

static mover_status solve_one(const plan_gradient *call, int64_t p, int64_t slot, const mover_exec *exec) {
    const int64_t n = call->n, m = call->m, first = p * n * m;
    mover_arena arena = mover_arena_over(call->scratch + (size_t)slot * call->slot_bytes);
    gradient_task task = {.call = call, .plan = call->plan + first, .grad_plan = call->grad_plan + first};
    task.add_cost = call->add_cost ? call->add_cost + first : NULL;
    task.grad_cost = call->grad_cost + first;
    take(&task, &arena);
    task.system.plan = task.plan;
    task.system.row_sum = task.row_sum;
    MOVER_TRY(mover_run(exec, 0, task.system.blocks, mover_grain(SINKHORN_BLOCK * m * 2), sums_body, &task));
    double scale;
    MOVER_TRY(add_sums(&task, &scale, exec));
    MOVER_TRY(R(schur_solve)(&task.system, TOLERANCE * scale, MOST_STEPS, exec));
    for (int64_t j = 0; j < m && !(scale <= DBL_MAX); j++) task.system.solution[j] = (real)NAN;
    MOVER_TRY(mover_run(exec, 0, n, mover_grain(m * 2), finish_body, &task));
    if (call->grad_a) centre(task.u, task.row_sum, n, call->grad_a + p * n);
    if (call->grad_b) centre(task.system.solution, task.system.column_sum, m, call->grad_b + p * m);
    return MOVER_OK;
}

static void small_body(int64_t begin, int64_t end, void *ctx) {
    for (int64_t p = begin; p < end; p++) (void)solve_one(ctx, p, p, NULL); /* without a host nothing can fail */
}

mover_status R(plan_gradient_solve)(plan_gradient *call, const mover_exec *exec) {
    if (R(sinkhorn_is_small)(call->batch, call->n, call->m))
        return mover_run(exec, 0, call->batch, mover_grain(call->n * call->m * 32), small_body, call);
    for (int64_t p = 0; p < call->batch; p++) MOVER_TRY(solve_one(call, p, 0, exec));
    return MOVER_OK;
}

/* ---- the op ----------------------------------------------------------------------------------------------------- */

static plan_gradient gradient_of(const mover_sinkhorn_desc *desc) {
    return (plan_gradient){.batch = desc->batch, .n = desc->n, .m = desc->m, .epsilon = desc->epsilon};
}

void R(mover_cpu_sinkhorn_backward_layout)(const mover_sinkhorn_desc *desc, mover_arena *arena) {
    plan_gradient call = gradient_of(desc);
    R(plan_gradient_take)(&call, arena);
}

mover_status R(mover_cpu_sinkhorn_backward)(const mover_sinkhorn_desc *desc, const real *plan, const real *grad_plan,
                                            real *grad_cost, real *grad_a, real *grad_b, void *workspace,
                                            const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    plan_gradient call = gradient_of(desc);
    call.plan = plan;
    call.grad_plan = grad_plan;
    call.grad_cost = grad_cost;
    call.grad_a = grad_a;
    call.grad_b = grad_b;
    R(plan_gradient_take)(&call, &arena);
    return R(plan_gradient_solve)(&call, exec);
}
