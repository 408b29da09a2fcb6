/*
 * transport.cu: cost and Sinkhorn in one call, and the optimal value with its envelope gradient.
 *
 * The gradient of the plan reaches the rows through D = dL/dC:
 *     dL/dx = 2 (diag(D 1) x - D y),   dL/dy = 2 (diag(D^T 1) y - D^T x)
 * The value OT = <f, a> + <g, b> is stationary in the potentials, so its gradient has D = P, dL/da = f, dL/db = g,
 * and P is formed from f and g again.
 */
#include "../src/backend.h"

#include "cost.h"
#include "device.h"
#include "reduce.cuh"
#include "sinkhorn.h"

enum { TRANSPORT_THREADS = 256 };

static R(mover_cuda_sinkhorn) batch_of(const mover_transport_desc *desc) {
    R(mover_cuda_sinkhorn) batch = {};
    batch.batch = desc->batch;
    batch.n = desc->n;
    batch.m = desc->m;
    batch.epsilon = desc->epsilon;
    batch.tol = desc->tol;
    batch.max_iter = desc->max_iter;
    batch.solver = desc->solver;
    return batch;
}

/* Room for the costs of the whole batch. */
static real *take_costs(const mover_transport_desc *desc, mover_arena *arena) {
    int64_t rows = 0;
    if (__builtin_mul_overflow(desc->batch, desc->n, &rows)) arena->overflow = 1;
    return (real *)mover_take(arena, rows, desc->m, sizeof(real));
}

static mover_status solve(const char *function, const mover_transport_desc *desc, const real *x, const real *y,
                          R(mover_cuda_sinkhorn) * batch, real *cost, const R(mover_cuda_cost_scratch) * scratch,
                          const mover_exec *exec) {
    MOVER_TRY(R(mover_cuda_costs)(function, desc->batch, desc->n, desc->m, desc->d, x, y, desc->precision, cost,
                                  nullptr, scratch, exec));
    batch->cost = cost;
    return R(mover_cuda_sinkhorn_solve)(function, batch, exec);
}

/* ---- the plan --------------------------------------------------------------------------------------------------- */

void R(mover_cuda_transport_layout)(const mover_transport_desc *desc, mover_arena *arena) {
    R(mover_cuda_sinkhorn) batch = batch_of(desc);
    (void)R(mover_cuda_cost_take)(arena, desc->batch, desc->n, desc->m);
    R(mover_cuda_sinkhorn_take)(&batch, 1, arena);
}

mover_status R(mover_cuda_transport_forward)(const mover_transport_desc *desc, const real *x, const real *y,
                                             const real *a, const real *b, real *plan, real *cost, real *f, real *g,
                                             int32_t *n_iter, real *marginal_error, void *workspace,
                                             const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    const R(mover_cuda_cost_scratch) scratch = R(mover_cuda_cost_take)(&arena, desc->batch, desc->n, desc->m);
    R(mover_cuda_sinkhorn) batch = batch_of(desc);
    batch.a = a;
    batch.b = b;
    batch.plan = plan;
    batch.f = f;
    batch.g = g;
    batch.n_iter = n_iter;
    batch.marginal_error = marginal_error;
    R(mover_cuda_sinkhorn_take)(&batch, 1, &arena);
    return solve("mover_transport_forward", desc, x, y, &batch, cost, &scratch, exec);
}

/* ---- gradient of plan and cost ---------------------------------------------------------------------------------- */

static R(mover_cuda_plan_gradient) gradient_of(const mover_transport_desc *desc) {
    R(mover_cuda_plan_gradient) gradient = {};
    gradient.batch = desc->batch;
    gradient.n = desc->n;
    gradient.m = desc->m;
    gradient.epsilon = desc->epsilon;
    return gradient;
}

void R(mover_cuda_transport_backward_layout)(const mover_transport_desc *desc, mover_arena *arena) {
    R(mover_cuda_plan_gradient) gradient = gradient_of(desc);
    (void)take_costs(desc, arena);
    (void)R(mover_cuda_cost_gradient_take)(arena, desc->batch, desc->n, desc->m);
    R(mover_cuda_plan_gradient_take)(&gradient, arena);
}

mover_status R(mover_cuda_transport_backward)(const mover_transport_desc *desc, const real *x, const real *y,
                                              const real *plan, const real *grad_plan, const real *grad_cost,
                                              real *grad_x, real *grad_y, real *grad_a, real *grad_b, void *workspace,
                                              const mover_exec *exec) {
    static const char function[] = "mover_transport_backward";
    const int64_t n = desc->n, m = desc->m, batch = desc->batch;
    mover_arena arena = mover_arena_over(workspace);
    real *total = take_costs(desc, &arena);
    const R(mover_cuda_cost_gradient_scratch) scratch = R(mover_cuda_cost_gradient_take)(&arena, batch, n, m);
    if (grad_plan) {
        R(mover_cuda_plan_gradient) gradient = gradient_of(desc);
        gradient.plan = plan;
        gradient.grad_plan = grad_plan;
        gradient.add_cost = grad_cost;
        gradient.grad_cost = total;
        gradient.grad_a = grad_a;
        gradient.grad_b = grad_b;
        R(mover_cuda_plan_gradient_take)(&gradient, &arena);
        MOVER_TRY(R(mover_cuda_plan_gradient_solve)(function, &gradient, exec));
    } else {
        MOVER_TRY(mover_zero(exec, grad_a, (size_t)(batch * n) * sizeof(real)));
        MOVER_TRY(mover_zero(exec, grad_b, (size_t)(batch * m) * sizeof(real)));
    }
    /* rows and columns of a plan's gradient sum to 0: constants added to its costs change nothing */
    return R(mover_cuda_cost_gradient)(function, batch, n, m, desc->d, x, y, desc->precision,
                                       grad_plan ? total : grad_cost, grad_cost, grad_x, grad_y, &scratch, exec);
}

/* ---- value ------------------------------------------------------------------------------------------------------ */

void R(mover_cuda_transport_value_layout)(const mover_transport_desc *desc, mover_arena *arena) {
    R(mover_cuda_sinkhorn) batch = batch_of(desc);
    (void)R(mover_cuda_cost_take)(arena, desc->batch, desc->n, desc->m);
    (void)take_costs(desc, arena);
    R(mover_cuda_sinkhorn_take)(&batch, 0, arena);
}

mover_status R(mover_cuda_transport_value_forward)(const mover_transport_desc *desc, const real *x, const real *y,
                                                   const real *a, const real *b, real *value, real *f, real *g,
                                                   void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    const R(mover_cuda_cost_scratch) scratch = R(mover_cuda_cost_take)(&arena, desc->batch, desc->n, desc->m);
    real *cost = take_costs(desc, &arena);
    R(mover_cuda_sinkhorn) batch = batch_of(desc);
    batch.a = a;
    batch.b = b;
    batch.f = f;
    batch.g = g;
    batch.value = value;
    R(mover_cuda_sinkhorn_take)(&batch, 0, &arena);
    return solve("mover_transport_value_forward", desc, x, y, &batch, cost, &scratch, exec);
}

namespace {

/* One side of all problems: potentials and masses, and what is made of them. */
typedef struct potentials {
    const real *potential, *weights; /* (batch, count); weights NULL: uniform */
    int64_t count;
    double epsilon;
    const real *grad_value; /* (batch) */
    real *scaled;           /* (batch, count) potential / epsilon + log mass */
    real *grad;             /* (batch, count) grad_value (potential - its mean under the masses), or NULL */
} potentials;

} // namespace

/* scaled and grad. A block has a problem, a thread every 256th of its rows; two reads and two writes an element. Sums
 * are trees over the threads. */
static __global__ void __launch_bounds__(TRANSPORT_THREADS) scale_potentials(potentials side, int64_t batch) {
    MOVER_SHARED(double, shared, [TRANSPORT_THREADS / WARP]);
    for (int64_t p = blockIdx.x; p < batch; p += gridDim.x) {
        const int64_t first = p * side.count;
        const double uniform = (double)((real)1 / (real)side.count);
        double sum = 0, total = 0;
        for (int64_t i = threadIdx.x; i < side.count; i += TRANSPORT_THREADS) {
            const double mass = side.weights ? (double)side.weights[first + i] : uniform;
            const double potential = (double)side.potential[first + i];
            side.scaled[first + i] = mass != 0 ? (real)(potential / side.epsilon + log(mass)) : (real)-1e30;
            sum += potential * mass;
            total += mass;
        }
        sum = mover_block_sum<TRANSPORT_THREADS>(sum, shared);
        total = mover_block_sum<TRANSPORT_THREADS>(total, shared);
        const double grad_value = (double)side.grad_value[p];
        for (int64_t i = threadIdx.x; side.grad && i < side.count; i += TRANSPORT_THREADS)
            side.grad[first + i] = (real)(grad_value * ((double)side.potential[first + i] - sum / total));
    }
}

/* cost becomes grad_value exp(u + v - cost / epsilon). A block has a row at a time, a thread every 256th of its
 * columns; one read and one write an element. Exponents below e^-64 (float) or e^-80 give 0. */
static __global__ void __launch_bounds__(TRANSPORT_THREADS)
    plan_from_costs(real *cost, const real *u, const real *v, const real *grad_value, double epsilon, int64_t batch,
                    int64_t n, int64_t m) {
    const real inverse = (real)(1.4426950408889634 / epsilon), log2_e = (real)1.4426950408889634;
    const real least = MOVER_REAL_BITS == 32 ? -92.5f : (real)-115.5;
    for (int64_t row = blockIdx.x; row < batch * n; row += gridDim.x) {
        const int64_t p = row / n;
        const real u_i = u[row], factor = grad_value[p];
        for (int64_t j = threadIdx.x; j < m; j += TRANSPORT_THREADS) {
            const real exponent = (v[p * m + j] + u_i) * log2_e - cost[row * m + j] * inverse;
            const real plan = exponent > least ? mover_exp2(exponent) : exponent <= least ? (real)0 : exponent;
            cost[row * m + j] = factor * plan;
        }
    }
}

static mover_status scale_side(const char *function, const mover_transport_desc *desc, const potentials *side,
                               const mover_exec *exec) {
    return mover_cuda_check(function, MOVER_LAUNCH(scale_potentials, mover_blocks(desc->batch, MOVER_MOST_BLOCKS),
                                                   TRANSPORT_THREADS, 0, mover_stream(exec), *side, desc->batch));
}

/* What the gradient of the value takes from the workspace. */
typedef struct value_scratch {
    real *cost, *u, *v;
    R(mover_cuda_cost_scratch) costs;
    R(mover_cuda_cost_gradient_scratch) gradient;
} value_scratch;

static value_scratch value_take(const mover_transport_desc *desc, mover_arena *arena) {
    value_scratch scratch;
    scratch.cost = take_costs(desc, arena);
    scratch.u = (real *)mover_take(arena, desc->batch, desc->n, sizeof(real));
    scratch.v = (real *)mover_take(arena, desc->batch, desc->m, sizeof(real));
    scratch.costs = R(mover_cuda_cost_take)(arena, desc->batch, desc->n, desc->m);
    scratch.gradient = R(mover_cuda_cost_gradient_take)(arena, desc->batch, desc->n, desc->m);
    return scratch;
}

void R(mover_cuda_transport_value_backward_layout)(const mover_transport_desc *desc, mover_arena *arena) {
    (void)value_take(desc, arena);
}

mover_status R(mover_cuda_transport_value_backward)(const mover_transport_desc *desc, const real *x, const real *y,
                                                    const real *a, const real *b, const real *f, const real *g,
                                                    const real *grad_value, real *grad_x, real *grad_y, real *grad_a,
                                                    real *grad_b, void *workspace, const mover_exec *exec) {
    static const char function[] = "mover_transport_value_backward";
    const int64_t n = desc->n, m = desc->m, batch = desc->batch;
    mover_arena arena = mover_arena_over(workspace);
    const value_scratch scratch = value_take(desc, &arena);
    const potentials rows = {f, a, n, desc->epsilon, grad_value, scratch.u, grad_a};
    const potentials columns = {g, b, m, desc->epsilon, grad_value, scratch.v, grad_b};
    MOVER_TRY(scale_side(function, desc, &rows, exec));
    MOVER_TRY(scale_side(function, desc, &columns, exec));
    if (!grad_x && !grad_y) return MOVER_OK;
    MOVER_TRY(R(mover_cuda_costs)(function, batch, n, m, desc->d, x, y, desc->precision, scratch.cost, nullptr,
                                  &scratch.costs, exec));
    MOVER_CUDA_TRY(function, MOVER_LAUNCH(plan_from_costs, mover_blocks(batch * n, MOVER_MOST_BLOCKS),
                                          TRANSPORT_THREADS, 0, mover_stream(exec), scratch.cost, scratch.u, scratch.v,
                                          grad_value, desc->epsilon, batch, n, m));
    return R(mover_cuda_cost_gradient)(function, batch, n, m, desc->d, x, y, desc->precision, scratch.cost,
                                       scratch.cost, grad_x, grad_y, &scratch.gradient, exec);
}
