/*
 * transport.c: cost and Sinkhorn in one call, and the optimal value with its envelope gradient.
 *
 * The gradient of the plan reaches the rows through D = dL/dC:
 *     dL/dx = 2 (diag(D 1) x - D y),   dL/dy = 2 (diag(D^T 1) y - D^T x)
 * The value OT = <f, a> + <g, b> is stationary in the potentials, so its gradient has D = P, dL/da = f, dL/db = g,
 * and P is formed from f and g again.
 */
#include "../src/backend.h"
#include "cost.h"
#include "real.h"

#include "exponential.h"
#include "sinkhorn.h"

static sinkhorn_batch batch_of(const mover_transport_desc *desc) {
    return (sinkhorn_batch){.batch = desc->batch,
                            .n = desc->n,
                            .m = desc->m,
                            .epsilon = desc->epsilon,
                            .tol = desc->tol,
                            .max_iter = desc->max_iter,
                            .solver = desc->solver};
}

/* Costs and solutions of all problems. `cost` has room for all of them where `keep_costs` is not 0, else for
 * `batch->slots`. A problem that is divided among threads is solved while its costs are in the cache. */
static mover_status solve(const mover_transport_desc *desc, const real *x, const real *y, sinkhorn_batch *batch,
                          real *cost, int keep_costs, const R(mover_cost_scratch) * scratch, const mover_exec *exec) {
    const int64_t n = desc->n, m = desc->m, d = desc->d;
    const int small = R(sinkhorn_is_small)(desc->batch, n, m);
    for (int64_t p = 0; p < desc->batch; p++) {
        real *cost_p = cost + (keep_costs || small ? p : 0) * n * m;
        MOVER_TRY(R(mover_cost_product)(x + p * n * d, y + p * m * d, n, m, d, 1, cost_p, scratch, exec));
        if (!small) MOVER_TRY(R(sinkhorn_solve_one)(batch, p, 0, cost_p, exec));
    }
    batch->cost = cost;
    return small ? R(sinkhorn_solve)(batch, exec) : MOVER_OK;
}

void R(mover_cpu_transport_layout)(const mover_transport_desc *desc, mover_arena *arena) {
    sinkhorn_batch batch = batch_of(desc);
    (void)R(mover_cost_take)(arena, desc->n, desc->m, desc->d);
    R(sinkhorn_take)(&batch, 1, arena);
}

mover_status R(mover_cpu_transport_forward)(const mover_transport_desc *desc, const real *x, const real *y,
                                            const real *a, const real *b, real *plan, real *cost, real *f, real *g,
                                            int32_t *n_iter, real *marginal_error, void *workspace,
                                            const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    const R(mover_cost_scratch) scratch = R(mover_cost_take)(&arena, desc->n, desc->m, desc->d);
    sinkhorn_batch batch = batch_of(desc);
    batch.a = a;
    batch.b = b;
    batch.plan = plan;
    batch.f = f;
    batch.g = g;
    batch.n_iter = n_iter;
    batch.marginal_error = marginal_error;
    R(sinkhorn_take)(&batch, 1, &arena);
    return solve(desc, x, y, &batch, cost, 1, &scratch, exec);
}

/* ---- gradient of plan and cost ---------------------------------------------------------------------------------- */

static plan_gradient gradient_of(const mover_transport_desc *desc) {
    return (plan_gradient){.batch = desc->batch, .n = desc->n, .m = desc->m, .epsilon = desc->epsilon};
}

void R(mover_cpu_transport_backward_layout)(const mover_transport_desc *desc, mover_arena *arena) {
    plan_gradient call = gradient_of(desc);
    int64_t rows = 0;
    if (__builtin_mul_overflow(desc->batch, desc->n, &rows)) arena->overflow = 1;
    mover_take(arena, rows, desc->m, sizeof(real));
    mover_take(arena, desc->n + desc->m, 1, sizeof(real));
    R(plan_gradient_take)(&call, arena);
}

mover_status R(mover_cpu_transport_backward)(const mover_transport_desc *desc, const real *x, const real *y,
                                             const real *plan, const real *grad_plan, const real *grad_cost,
                                             real *grad_x, real *grad_y, real *grad_a, real *grad_b, void *workspace,
                                             const mover_exec *exec) {
    const int64_t n = desc->n, m = desc->m, d = desc->d, batch = desc->batch;
    mover_arena arena = mover_arena_over(workspace);
    real *total = mover_take(&arena, batch * n, m, sizeof(real));
    real *sums = mover_take(&arena, n + m, 1, sizeof(real));
    if (grad_plan) {
        plan_gradient call = gradient_of(desc);
        call.plan = plan;
        call.grad_plan = grad_plan;
        call.add_cost = grad_cost;
        call.grad_cost = total;
        call.grad_a = grad_a;
        call.grad_b = grad_b;
        R(plan_gradient_take)(&call, &arena);
        MOVER_TRY(R(plan_gradient_solve)(&call, exec));
    } else {
        for (int64_t i = 0; grad_a && i < batch * n; i++) grad_a[i] = 0;
        for (int64_t j = 0; grad_b && j < batch * m; j++) grad_b[j] = 0;
    }
    /* rows and columns of a plan's gradient sum to 0: constants added to its costs change nothing */
    const real *grad = grad_plan ? total : grad_cost;
    for (int64_t p = 0; p < batch; p++)
        MOVER_TRY(R(mover_cost_gradient)(x + p * n * d, y + p * m * d, n, m, d, grad + p * n * m,
                                         grad_cost ? grad_cost + p * n * m : NULL, grad_x ? grad_x + p * n * d : NULL,
                                         grad_y ? grad_y + p * m * d : NULL, sums, exec));
    return MOVER_OK;
}

/* ---- value ------------------------------------------------------------------------------------------------------ */

/* Costs are kept for the problems that are solved at the same time only. */
static real *take_costs(const mover_transport_desc *desc, const sinkhorn_batch *batch, mover_arena *arena) {
    int64_t rows = 0;
    if (__builtin_mul_overflow(batch->slots, desc->n, &rows)) arena->overflow = 1;
    return mover_take(arena, rows, desc->m, sizeof(real));
}

void R(mover_cpu_transport_value_layout)(const mover_transport_desc *desc, mover_arena *arena) {
    sinkhorn_batch batch = batch_of(desc);
    (void)R(mover_cost_take)(arena, desc->n, desc->m, desc->d);
    R(sinkhorn_take)(&batch, 0, arena);
    (void)take_costs(desc, &batch, arena);
}

mover_status R(mover_cpu_transport_value_forward)(const mover_transport_desc *desc, const real *x, const real *y,
                                                  const real *a, const real *b, real *value, real *f, real *g,
                                                  void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    const R(mover_cost_scratch) scratch = R(mover_cost_take)(&arena, desc->n, desc->m, desc->d);
    sinkhorn_batch batch = batch_of(desc);
    batch.a = a;
    batch.b = b;
    batch.f = f;
    batch.g = g;
    batch.value = value;
    R(sinkhorn_take)(&batch, 0, &arena);
    return solve(desc, x, y, &batch, take_costs(desc, &batch, &arena), 0, &scratch, exec);
}

typedef struct envelope {
    const mover_transport_desc *desc;
    const real *u, *v; /* f / epsilon + log a, g / epsilon + log b of one problem */
    real grad_value;
    real *cost; /* (n, m), becomes grad_value * plan */
} envelope;

MOVER_HOT static void plan_from_costs(const envelope *task, int64_t begin, int64_t end) {
    const real inverse = (real)(1 / task->desc->epsilon);
    const real *restrict v = task->v;
    for (int64_t i = begin; i < end; i++) {
        real *restrict row = task->cost + i * task->desc->m;
        const real u = task->u[i];
        MOVER_SIMD
        for (int64_t j = 0; j < task->desc->m; j++)
            row[j] = task->grad_value * exponential((v[j] + u) - row[j] * inverse);
    }
}

static void plan_body(int64_t begin, int64_t end, void *ctx) { plan_from_costs(ctx, begin, end); }

/* out = potential / epsilon + log mass; grad = grad_value (potential - its mean under the masses), where wanted. */
static void scale_potential(const real *potential, const real *weights, int64_t count, double epsilon, real grad_value,
                            real *out, real *grad) {
    double sum = 0, total = 0;
    for (int64_t i = 0; i < count; i++) {
        const real mass = weights ? weights[i] : (real)1 / (real)count;
        out[i] = mass != 0 ? (real)((double)potential[i] / epsilon + log((double)mass)) : (real)-1e30;
        sum += (double)potential[i] * (double)mass;
        total += (double)mass;
    }
    for (int64_t i = 0; grad && i < count; i++)
        grad[i] = (real)((double)grad_value * ((double)potential[i] - sum / total));
}

void R(mover_cpu_transport_value_backward_layout)(const mover_transport_desc *desc, mover_arena *arena) {
    mover_take(arena, desc->n, desc->m, sizeof(real));
    mover_take(arena, desc->n + desc->m, 1, sizeof(real));
    mover_take(arena, desc->n + desc->m, 1, sizeof(real));
    (void)R(mover_cost_take)(arena, desc->n, desc->m, desc->d);
}

mover_status R(mover_cpu_transport_value_backward)(const mover_transport_desc *desc, const real *x, const real *y,
                                                   const real *a, const real *b, const real *f, const real *g,
                                                   const real *grad_value, real *grad_x, real *grad_y, real *grad_a,
                                                   real *grad_b, void *workspace, const mover_exec *exec) {
    const int64_t n = desc->n, m = desc->m, d = desc->d;
    mover_arena arena = mover_arena_over(workspace);
    real *cost = mover_take(&arena, n, m, sizeof(real));
    real *scaled = mover_take(&arena, n + m, 1, sizeof(real));
    real *sums = mover_take(&arena, n + m, 1, sizeof(real));
    const R(mover_cost_scratch) scratch = R(mover_cost_take)(&arena, n, m, d);
    for (int64_t p = 0; p < desc->batch; p++) {
        scale_potential(f + p * n, a ? a + p * n : NULL, n, desc->epsilon, grad_value[p], scaled,
                        grad_a ? grad_a + p * n : NULL);
        scale_potential(g + p * m, b ? b + p * m : NULL, m, desc->epsilon, grad_value[p], scaled + n,
                        grad_b ? grad_b + p * m : NULL);
        if (!grad_x && !grad_y) continue;
        const real *x_p = x + p * n * d, *y_p = y + p * m * d;
        MOVER_TRY(R(mover_cost_product)(x_p, y_p, n, m, d, 1, cost, &scratch, exec));
        envelope task = {desc, scaled, scaled + n, grad_value[p], cost};
        MOVER_TRY(mover_run(exec, 0, n, mover_grain(m * 4), plan_body, &task));
        MOVER_TRY(R(mover_cost_gradient)(x_p, y_p, n, m, d, cost, cost, grad_x ? grad_x + p * n * d : NULL,
                                         grad_y ? grad_y + p * m * d : NULL, sums, exec));
    }
    return MOVER_OK;
}
