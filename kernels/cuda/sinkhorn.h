/*
 * sinkhorn.h: the solver of entropic transport, as its files and transport.cu use it. Included after real.h.
 */
#ifndef MOVER_CUDA_SINKHORN_H
#define MOVER_CUDA_SINKHORN_H

#include "../src/internal.h"

/* A batch of problems and where their solutions go. */
typedef struct R(mover_cuda_sinkhorn) {
    int64_t batch, n, m;
    double epsilon, tol;
    int32_t max_iter;
    mover_solver solver;
    const real *cost, *a, *b;                    /* (batch, n, m), (batch, n), (batch, m); a, b NULL: uniform */
    real *plan, *f, *g, *value, *marginal_error; /* (batch, ...); plan, value and marginal_error may be NULL */
    int32_t *n_iter;                             /* (batch) or NULL */
    real *kernel;                                /* (batch, n, m): the plan, or scratch in its place */
    void *scratch;
} R(mover_cuda_sinkhorn);

/* Sizes and options are set. Without `has_plan`, scratch is taken in the plan's place. */
void R(mover_cuda_sinkhorn_take)(R(mover_cuda_sinkhorn) * batch, int has_plan, mover_arena *arena);

mover_status R(mover_cuda_sinkhorn_solve)(const char *function, const R(mover_cuda_sinkhorn) * batch,
                                          const mover_exec *exec);

/* The gradient of a batch of plans. */
typedef struct R(mover_cuda_plan_gradient) {
    int64_t batch, n, m;
    double epsilon;
    const real *plan, *grad_plan; /* (batch, n, m) */
    const real *add_cost;         /* (batch, n, m), added to grad_cost, or NULL */
    real *grad_cost;              /* (batch, n, m) */
    real *grad_a, *grad_b;        /* (batch, n), (batch, m), or NULL */
    void *scratch;
} R(mover_cuda_plan_gradient);

void R(mover_cuda_plan_gradient_take)(R(mover_cuda_plan_gradient) * gradient, mover_arena *arena);

/* Writes grad_cost, grad_a and grad_b. */
mover_status R(mover_cuda_plan_gradient_solve)(const char *function, const R(mover_cuda_plan_gradient) * gradient,
                                               const mover_exec *exec);

#endif
