/*
 * sinkhorn.h: the solver of entropic transport, as its files and transport.c use it. Included after real.h.
 *
 * A problem is solved on its own: `exec` lends threads to the passes over its rows. Small problems are solved one a
 * thread instead (sinkhorn_solve), with the same blocks and so the same bits.
 */
#ifndef MOVER_CPU_SINKHORN_H
#define MOVER_CPU_SINKHORN_H

#include "../src/internal.h"

enum { SINKHORN_BLOCK = 32 }; /* rows whose column sums are added up first */

static const real SINKHORN_NO_MASS = (real)-1e30;   /* the log of a mass of 0 */
static const real SINKHORN_LARGEST = REAL_MAX / 64; /* bound on masses, costs and costs / epsilon */

/* The linear system of the optimality conditions once u is eliminated, for a plan P with r = P 1 and c = P^T 1:
 *     (diag c - P^T diag(1/r) P) solution = right-hand side
 * Its null vector is the constant; columns without mass have solution 0. */
typedef struct schur_system {
    int64_t n, m, blocks;
    const real *plan;    /* (n, m) */
    const real *row_sum; /* (n) r */
    real *column_sum;    /* (m) c */
    real *diagonal;      /* (m) of the system: sum_i P_ij (r_i - P_ij) / r_i */
    real *residual;      /* (m) holds the right-hand side on entry */
    real *solution;      /* (m) */
    real *direction;     /* (m) scratch, as are the following */
    real *product;       /* (m) */
    real *partial;       /* (blocks, m) */
} schur_system;

/* Sizes are set; takes all arrays but plan and row_sum. */
void R(schur_take)(schur_system *system, mover_arena *arena);

/* Conjugate gradients from 0 until |residual| <= tolerance, at most `steps` of them. */
mover_status R(schur_solve)(schur_system *system, double tolerance, int steps, const mover_exec *exec);

/* One problem: plan_ij = kernel_ij row_scale_i column_scale_j, kernel_ij = exp(u_i + v_j - cost_ij / epsilon). */
typedef struct sinkhorn_problem {
    int64_t n, m;
    double epsilon, tol;
    int32_t max_iter;
    mover_solver solver;
    const real *cost;               /* (n, m) */
    real *plan;                     /* (n, m): the kernel, in the end the plan */
    real *u, *v;                    /* (n), (m) */
    real *row_scale, *column_scale; /* (n), (m) */
    real *row_mass, *column_mass;   /* (n), (m): a and b, written out */
    double *part;                   /* (blocks): a number of every block of rows */
    schur_system system;            /* partial and column_sum serve all passes */
    real *diagonal;                 /* (blocks, m): its parts, in Newton's steps; NULL for the solver sinkhorn */
    real over;                      /* how far scales go beyond their updates, 0 to 1 */
    int started;                    /* u is set */
    int want_diagonal;              /* refreshing also makes the diagonal of the system */
    int by_scales;                  /* refreshing goes by the scales */
    int finite;                     /* 0 once costs, masses or sums are not */
    int32_t iterations;             /* Sinkhorn iterations and Newton steps so far */
} sinkhorn_problem;

/* The kernel made again, every row scaled to its mass: from the costs, or `by_scales` from itself and the column
 * scales. The scales are taken into u and v and become 1; system.column_sum takes the column sums. */
mover_status R(sinkhorn_refresh)(sinkhorn_problem *problem, int by_scales, const mover_exec *exec);

/* U of every row from sums of K V, then system.column_sum of K U; *error is what is left in the rows. */
mover_status R(sinkhorn_scale_rows)(sinkhorn_problem *problem, double *error, const mover_exec *exec);

/* The L1 error of the columns, from their sums. */
double R(sinkhorn_column_error)(const sinkhorn_problem *problem);

/* V of every column from its sum. Returns 1 where the kernel must be refreshed next. */
int R(sinkhorn_scale_columns)(sinkhorn_problem *problem);

/* Takes the scales into u and v. */
void R(sinkhorn_absorb)(sinkhorn_problem *problem);

/* Newton steps from the present state to the tolerance, or until they no longer help. Ends in a refreshed state.
 * `stretched`: the kernel must first be made from the costs. */
mover_status R(sinkhorn_newton)(sinkhorn_problem *problem, int stretched, const mover_exec *exec);

/* A batch of problems and where their solutions go. */
typedef struct sinkhorn_batch {
    int64_t batch, n, m;
    double epsilon, tol;
    int32_t max_iter;
    mover_solver solver;
    const real *cost, *a, *b;                    /* (batch, n, m), (batch, n), (batch, m); a, b NULL: uniform */
    real *plan, *f, *g, *value, *marginal_error; /* (batch, ...); plan, value and marginal_error may be NULL */
    int32_t *n_iter;                             /* (batch) or NULL */
    int64_t slots;                               /* problems that are solved at the same time */
    char *scratch;                               /* (slots, slot_bytes) */
    size_t slot_bytes;
} sinkhorn_batch;

/* 1 where problems are too small to be divided among threads. */
int R(sinkhorn_is_small)(int64_t batch, int64_t n, int64_t m);

/* Sizes and options are set. Without `has_plan`, scratch is taken in the plan's place. */
void R(sinkhorn_take)(sinkhorn_batch *batch, int has_plan, mover_arena *arena);

/* Solves problem p, whose costs lie at `cost` (n, m), with the scratch of a slot. */
mover_status R(sinkhorn_solve_one)(const sinkhorn_batch *batch, int64_t p, int64_t slot, const real *cost,
                                   const mover_exec *exec);

/* Solves all problems of a batch whose costs are in `batch->cost`. */
mover_status R(sinkhorn_solve)(const sinkhorn_batch *batch, const mover_exec *exec);

/* The gradient of a batch of plans. */
typedef struct plan_gradient {
    int64_t batch, n, m;
    double epsilon;
    const real *plan, *grad_plan; /* (batch, n, m) */
    const real *add_cost;         /* (batch, n, m), added to grad_cost, or NULL */
    real *grad_cost;              /* (batch, n, m) */
    real *grad_a, *grad_b;        /* (batch, n), (batch, m), or NULL */
    int64_t slots;                /* as in sinkhorn_batch */
    char *scratch;
    size_t slot_bytes;
} plan_gradient;

void R(plan_gradient_take)(plan_gradient *gradient, mover_arena *arena);

/* Writes grad_cost, grad_a and grad_b. */
mover_status R(plan_gradient_solve)(plan_gradient *gradient, const mover_exec *exec);

#endif
