/*
 * plan_gradient.c: the exact gradient of the entropic plan.
 *
 * With H = P . G (elementwise), s = H 1, t = H^T 1, r = P 1, c = P^T 1, the optimality conditions give
 *
 *     [diag r   P    ] [u]   [s]
 *     [P^T    diag c ] [v] = [t],      dL/dC = -(1/epsilon) P . (G - u 1^T - 1 v^T),   dL/da = u,   dL/db = v.
 *
 * u is eliminated; the system for v is solved by conjugate gradients with a Jacobi preconditioner, one read of P per
 * step. Near a permutation both sides of it vanish, so nothing is formed by subtracting large numbers:
 *
 *     right-hand side  sum_i P_ij (G_ij - s_i / r_i)
 *     operator         sum_i P_ij (v_j - w_i),   w_i = sum_j P_ij v_j / r_i
 *     diagonal         sum_i P_ij (r_i - P_ij) / r_i
 *
 * Rows or columns without mass take u_i = 0 or v_j = 0.
 */
#include "backend.h"
#include "real.h"

#include "sinkhorn.h"

enum { BLOCK = 32, MOST_STEPS = 500 };

#if MOVER_REAL_BITS == 32
static const double TOLERANCE = 1e-7; /* on |residual| / |(s, t)| */
#else
static const double TOLERANCE = 1e-12;
#endif

void R(plan_gradient_take)(plan_gradient *q, mover_arena *arena) {
    q->blocks = mover_ceil_div(q->n, BLOCK);
    q->row_sum = mover_take(arena, q->batch, q->n, sizeof(real));
    q->s = mover_take(arena, q->batch, q->n, sizeof(real));
    q->u = mover_take(arena, q->batch, q->n, sizeof(real));
    q->column_sum = mover_take(arena, q->batch, q->m, sizeof(real));
    q->t = mover_take(arena, q->batch, q->m, sizeof(real));
    q->diagonal = mover_take(arena, q->batch, q->m, sizeof(real));
    q->v = mover_take(arena, q->batch, q->m, sizeof(real));
    q->residual = mover_take(arena, q->batch, q->m, sizeof(real));
    q->direction = mover_take(arena, q->batch, q->m, sizeof(real));
    q->product = mover_take(arena, q->batch, q->m, sizeof(real));
    q->scale = mover_take(arena, q->batch, 1, sizeof(double));
    q->rho = mover_take(arena, q->batch, 1, sizeof(double));
    q->active = mover_take(arena, q->batch, 1, sizeof(int64_t));
    int64_t rows = 0;
    if (__builtin_mul_overflow(q->batch, q->blocks, &rows) || __builtin_mul_overflow(rows, 4, &rows))
        arena->overflow = 1;
    q->partial = mover_take(arena, rows, q->m, sizeof(real));
}

/* ---- sums of P and P . G ---------------------------------------------------------------------------------------- */

MOVER_HOT static void sum_blocks(const plan_gradient *q, int64_t begin, int64_t end) {
    const int64_t m = q->m;
    for (int64_t slot = begin; slot < end; slot++) {
        const int64_t p = slot / q->blocks, block = slot % q->blocks;
        real *restrict column = q->partial + slot * 4 * m, *restrict weighted = column + m;
        real *restrict centred = column + 2 * m, *restrict diagonal = column + 3 * m;
        for (int64_t j = 0; j < 4 * m; j++) column[j] = 0;
        for (int64_t i = block * BLOCK; i < mover_min(q->n, (block + 1) * BLOCK); i++) {
            const real *restrict plan = q->plan + (p * q->n + i) * m, *restrict grad =
                                                                          q->grad_plan + (p * q->n + i) * m;
            real r = 0, s = 0;
            MOVER_SIMD_SUM(r, s)
            for (int64_t j = 0; j < m; j++) {
                r += plan[j];
                s += plan[j] * grad[j];
            }
            q->row_sum[p * q->n + i] = r;
            q->s[p * q->n + i] = s;
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

/* Adds the `count` partial rows of a problem, in the order of the blocks. */
MOVER_HOT static void add_partials(const plan_gradient *q, int64_t p, int64_t which, int64_t count,
                                   real *restrict sum) {
    const int64_t m = q->m;
    for (int64_t j = 0; j < m; j++) sum[j] = 0;
    for (int64_t block = 0; block < q->blocks; block++) {
        const real *restrict part = q->partial + ((p * q->blocks + block) * count + which) * m;
        MOVER_SIMD
        for (int64_t j = 0; j < m; j++) sum[j] += part[j];
    }
}

/* ---- the operator ----------------------------------------------------------------------------------------------- */

/* partial_j = sum_{i in block} P_ij (x_j - w_i) for the direction x of each active problem. */
MOVER_HOT static void apply_blocks(const plan_gradient *q, int64_t begin, int64_t end) {
    const int64_t m = q->m;
    for (int64_t task = begin; task < end; task++) {
        const int64_t p = q->active[task / q->blocks], block = task % q->blocks;
        const real *restrict x = q->direction + p * m;
        real *restrict partial = q->partial + (p * q->blocks + block) * m;
        for (int64_t j = 0; j < m; j++) partial[j] = 0;
        for (int64_t i = block * BLOCK; i < mover_min(q->n, (block + 1) * BLOCK); i++) {
            const real *restrict plan = q->plan + (p * q->n + i) * m;
            const real r = q->row_sum[p * q->n + i];
            if (r == 0) continue;
            real w = 0;
            MOVER_SIMD_SUM(w)
            for (int64_t j = 0; j < m; j++) w += plan[j] * x[j];
            w /= r;
            MOVER_SIMD
            for (int64_t j = 0; j < m; j++) partial[j] += plan[j] * (x[j] - w);
        }
    }
}

static void sums_body(int64_t begin, int64_t end, void *ctx) { sum_blocks(ctx, begin, end); }
static void apply_body(int64_t begin, int64_t end, void *ctx) { apply_blocks(ctx, begin, end); }

/* ---- conjugate gradients ---------------------------------------------------------------------------------------- */

static double dot(const real *x, const real *y, int64_t count) {
    double sum = 0;
    MOVER_SIMD_SUM(sum)
    for (int64_t j = 0; j < count; j++) sum += (double)x[j] * (double)y[j];
    return sum;
}

MOVER_INLINE real precondition(const plan_gradient *q, int64_t index, real value) {
    const real column = q->column_sum[index], least = REAL_EPSILON * column;
    if (column == 0) return 0;
    return value / (q->diagonal[index] > least ? q->diagonal[index] : least);
}

/* Takes the mean over columns with mass out of the residual: the operator's null vector is the constant. */
static void project(const plan_gradient *q, int64_t p) {
    real *residual = q->residual + p * q->m;
    const real *column = q->column_sum + p * q->m;
    double sum = 0;
    int64_t count = 0;
    for (int64_t j = 0; j < q->m; j++)
        if (column[j] != 0) {
            sum += (double)residual[j];
            count++;
        }
    const real mean = count ? (real)(sum / (double)count) : 0;
    for (int64_t j = 0; j < q->m; j++) residual[j] = column[j] != 0 ? residual[j] - mean : 0;
}

/* Sums of problem p and the first residual and direction; returns whether there is anything to solve. */
static int begin_problem(plan_gradient *q, int64_t p) {
    const int64_t m = q->m;
    real *residual = q->residual + p * m, *direction = q->direction + p * m;
    add_partials(q, p, 0, 4, q->column_sum + p * m);
    add_partials(q, p, 1, 4, q->t + p * m);
    add_partials(q, p, 2, 4, residual);
    add_partials(q, p, 3, 4, q->diagonal + p * m);
    const real *s = q->s + p * q->n, *t = q->t + p * m;
    q->scale[p] = sqrt(dot(s, s, q->n) + dot(t, t, m));
    project(q, p);
    q->rho[p] = 0;
    for (int64_t j = 0; j < m; j++) {
        q->v[p * m + j] = 0;
        direction[j] = precondition(q, p * m + j, residual[j]);
        q->rho[p] += (double)residual[j] * (double)direction[j];
    }
    return sqrt(dot(residual, residual, m)) > TOLERANCE * q->scale[p];
}

/* One step of problem p with the product of its direction; returns whether it goes on. */
static int step_problem(plan_gradient *q, int64_t p) {
    const int64_t m = q->m;
    real *v = q->v + p * m, *residual = q->residual + p * m, *direction = q->direction + p * m;
    real *product = q->product + p * m;
    add_partials(q, p, 0, 1, product);
    const double curvature = dot(direction, product, m);
    if (!(curvature > 0)) return 0;
    const real length = (real)(q->rho[p] / curvature);
    MOVER_SIMD
    for (int64_t j = 0; j < m; j++) {
        v[j] += length * direction[j];
        residual[j] -= length * product[j];
    }
    project(q, p);
    if (!(sqrt(dot(residual, residual, m)) > TOLERANCE * q->scale[p])) return 0;
    double rho = 0;
    for (int64_t j = 0; j < m; j++) {
        product[j] = precondition(q, p * m + j, residual[j]);
        rho += (double)residual[j] * (double)product[j];
    }
    const real ratio = (real)(rho / q->rho[p]);
    q->rho[p] = rho;
    MOVER_SIMD
    for (int64_t j = 0; j < m; j++) direction[j] = product[j] + ratio * direction[j];
    return rho > 0;
}

/* ---- the gradients ---------------------------------------------------------------------------------------------- */

typedef struct finish_task {
    const plan_gradient *system;
    const real *add_cost;
    real *grad_cost;
} finish_task;

/* Adjacent rows of all problems: u, then dL/dC. */
MOVER_HOT static void finish_rows(const finish_task *task, int64_t begin, int64_t end) {
    const plan_gradient *q = task->system;
    const int64_t m = q->m;
    const real factor = (real)(-1 / q->epsilon);
    for (int64_t row = begin; row < end; row++) {
        const real *restrict plan = q->plan + row * m, *restrict grad = q->grad_plan + row * m;
        const real *restrict v = q->v + row / q->n * m;
        real *restrict out = task->grad_cost + row * m;
        const real r = q->row_sum[row];
        real w = 0;
        MOVER_SIMD_SUM(w)
        for (int64_t j = 0; j < m; j++) w += plan[j] * (grad[j] - v[j]);
        const real u = r == 0 ? 0 : w / r;
        q->u[row] = u;
        MOVER_SIMD
        for (int64_t j = 0; j < m; j++) out[j] = factor * (plan[j] * ((grad[j] - v[j]) - u));
        if (task->add_cost) {
            const real *restrict add = task->add_cost + row * m;
            MOVER_SIMD
            for (int64_t j = 0; j < m; j++) out[j] += add[j];
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

mover_status R(plan_gradient_solve)(plan_gradient *q, const real *add_cost, real *grad_cost, real *grad_a, real *grad_b,
                                    const mover_exec *exec) {
    const int64_t n = q->n, m = q->m;
    MOVER_TRY(mover_run(exec, 0, q->batch * q->blocks, mover_grain(BLOCK * m * 2), sums_body, q));
    int64_t active = 0;
    for (int64_t p = 0; p < q->batch; p++)
        if (begin_problem(q, p)) q->active[active++] = p;
    for (int step = 0; step < MOST_STEPS && active > 0; step++) {
        MOVER_TRY(mover_run(exec, 0, active * q->blocks, mover_grain(BLOCK * m), apply_body, q));
        int64_t going = 0;
        for (int64_t index = 0; index < active; index++)
            if (step_problem(q, q->active[index])) q->active[going++] = q->active[index];
        active = going;
    }
    finish_task task = {q, add_cost, grad_cost};
    MOVER_TRY(mover_run(exec, 0, q->batch * n, mover_grain(m * 2), finish_body, &task));
    for (int64_t p = 0; p < q->batch; p++) {
        if (grad_a) centre(q->u + p * n, q->row_sum + p * n, n, grad_a + p * n);
        if (grad_b) centre(q->v + p * m, q->column_sum + p * m, m, grad_b + p * m);
    }
    return MOVER_OK;
}

/* ---- the op ----------------------------------------------------------------------------------------------------- */

static plan_gradient system_of(const mover_sinkhorn_desc *desc) {
    return (plan_gradient){.batch = desc->batch, .n = desc->n, .m = desc->m, .epsilon = desc->epsilon};
}

void R(mover_cpu_sinkhorn_backward_layout)(const mover_sinkhorn_desc *desc, mover_arena *arena) {
    plan_gradient system = system_of(desc);
    R(plan_gradient_take)(&system, arena);
}

mover_status R(mover_cpu_sinkhorn_backward)(const mover_sinkhorn_desc *desc, const real *plan, const real *grad_plan,
                                            real *grad_cost, real *grad_a, real *grad_b, void *workspace,
                                            const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    plan_gradient system = system_of(desc);
    system.plan = plan;
    system.grad_plan = grad_plan;
    R(plan_gradient_take)(&system, &arena);
    return R(plan_gradient_solve)(&system, NULL, grad_cost, grad_a, grad_b, exec);
}
