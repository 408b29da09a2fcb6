/*
 * sinkhorn.h: the solver of entropic transport and the gradient of its plan, as transport.c uses them.
 * Included after real.h.
 */
#ifndef MOVER_CPU_SINKHORN_H
#define MOVER_CPU_SINKHORN_H

#include "../src/internal.h"

/* A batch of problems in log domain: plan_ij = exp(u_i + v_j - cost_ij / epsilon). */
typedef struct sinkhorn_solver {
    int64_t batch, n, m;
    double epsilon, tol;
    int32_t max_iter;
    const real *cost;  /* (batch, n, m) */
    const real *a, *b; /* (batch, n), (batch, m); NULL: uniform */
    real *u, *v;       /* (batch, n), (batch, m) */
    /* scratch, for blocks of rows: */
    int64_t blocks;      /* of a problem */
    real *column_sum;    /* (batch, blocks, m): sums over the rows of a block */
    real *row;           /* (batch, blocks, m): the exponentials of one row */
    double *block_error; /* (batch, blocks) */
    int64_t *active;     /* (batch): the problems still iterating */
    int32_t *state;      /* (batch): 0 iterating, 1 converged or out of iterations, 2 not finite */
    int32_t *iterations; /* (batch): applied */
} sinkhorn_solver;

/* Sizes and options are set; takes u, v and the scratch. */
void R(sinkhorn_take)(sinkhorn_solver *solver, mover_arena *arena);

/* Iterates every problem to its end. */
mover_status R(sinkhorn_solve)(sinkhorn_solver *solver, const mover_exec *exec);

/* The plan of the solved problems and its L1 marginal error, NaN where a problem is not finite. */
mover_status R(sinkhorn_plan)(sinkhorn_solver *solver, real *plan, real *marginal_error, const mover_exec *exec);

/* The potentials, f = epsilon (u - log a), g = epsilon (v - log b), shifted so that <f, a> = <g, b>; and, where value
 * is not NULL, the value <f, a> + <g, b>. */
void R(sinkhorn_potentials)(const sinkhorn_solver *solver, real *f, real *g, real *value);

/* A batch of plans and the gradients of a loss with respect to them. */
typedef struct plan_gradient {
    int64_t batch, n, m;
    double epsilon;
    const real *plan, *grad_plan; /* (batch, n, m) */
    /* scratch */
    int64_t blocks;
    real *row_sum, *s;                        /* (batch, n): P 1, (P . G) 1 */
    real *column_sum, *t, *diagonal;          /* (batch, m): P^T 1, (P . G)^T 1, diagonal of the system */
    real *v, *residual, *direction, *product; /* (batch, m) */
    real *u;                                  /* (batch, n) */
    real *partial;                            /* (batch, blocks, 4, m) */
    double *scale, *rho;                      /* (batch): |(s, t)|, <residual, preconditioned residual> */
    int64_t *active;                          /* (batch) */
} plan_gradient;

void R(plan_gradient_take)(plan_gradient *system, mover_arena *arena);

/* Solves for u and v, then writes grad_cost (batch, n, m) and, where not NULL, grad_a (batch, n), grad_b (batch, m).
 * With `add_cost` (batch, n, m) not NULL, that is added to grad_cost. */
mover_status R(plan_gradient_solve)(plan_gradient *system, const real *add_cost, real *grad_cost, real *grad_a,
                                    real *grad_b, const mover_exec *exec);

#endif
