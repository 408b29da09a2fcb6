/*
 * newton.c: finishes transport where alternating updates crawl.
 *
 * With rows kept exact, u is a function of v, and v minimises the convex semi-dual
 *
 *     phi(v) = -<a, u(v)> - <b, v>,   gradient c - b,   Hessian diag c - P^T diag(1/a) P,   c = P^T 1.
 *
 * A step solves the Hessian's system to the forcing term min(1/2, sqrt(error)) by schur.c (multiply-adds only) and
 * costs one pass of exponentials, which is a refreshed iteration of sinkhorn.c; it is shortened until phi or the L1
 * error falls enough.
 */
#include "../src/backend.h"
#include "real.h"

#include "sinkhorn.h"

enum { MOST_CG = MOVER_REAL_BITS == 32 ? 100 : 300, MOST_HALVINGS = 5, MOST_POOR = 3 };

static const double LONGEST = 20; /* bound on a change of v: exponentials stay finite */
static const double DESCENT = 1e-4;
static const double POOR = 0.7; /* a step that leaves more than this share of the error */

static double semi_dual(const sinkhorn_problem *q) {
    double sum = 0;
    for (int64_t i = 0; i < q->n; i++)
        if (q->row_mass[i] > 0) sum -= (double)q->row_mass[i] * (double)q->u[i];
    for (int64_t j = 0; j < q->m; j++)
        if (q->column_mass[j] > 0) sum -= (double)q->column_mass[j] * (double)q->v[j];
    return sum;
}

/* The Newton direction in system.solution; *slope = -<c - b, direction>, *longest its largest entry. */
static mover_status direction(sinkhorn_problem *q, double error, double *slope, double *longest,
                              const mover_exec *exec) {
    schur_system *s = &q->system;
    double square = 0;
    for (int64_t j = 0; j < q->m; j++) {
        s->residual[j] = q->column_mass[j] > 0 ? q->column_mass[j] - s->column_sum[j] : 0;
        square += (double)s->residual[j] * (double)s->residual[j];
    }
    MOVER_TRY(R(schur_solve)(s, fmin(0.5, sqrt(error)) * sqrt(square), MOST_CG, exec));
    *slope = *longest = 0;
    for (int64_t j = 0; j < q->m; j++) {
        *slope += ((double)q->column_mass[j] - (double)s->column_sum[j]) * (double)s->solution[j];
        *longest = fmax(*longest, fabs((double)s->solution[j]));
    }
    return MOVER_OK;
}

/* Goes from length `from` to length `to` along the direction. Multiply-adds do, unless the kernel has been scaled by so
 * much since it was made from the costs that its small entries may be missing. */
static mover_status go(sinkhorn_problem *q, double from, double to, double longest, double *travelled,
                       const mover_exec *exec) {
    for (int64_t j = 0; j < q->m; j++) q->column_scale[j] = (real)exp((to - from) * (double)q->system.solution[j]);
    *travelled += fabs(to - from) * longest;
    const int by_scales = *travelled <= LONGEST;
    if (!by_scales) *travelled = 0;
    return R(sinkhorn_refresh)(q, by_scales, exec);
}

/* One step; *error is the L1 error after it. *moved is 0, and the state as before, where no direction or length helps.
 */
static mover_status step(sinkhorn_problem *q, double *error, double *travelled, int *moved, const mover_exec *exec) {
    const double value = semi_dual(q), before = *error;
    double slope, longest, at = 0;
    MOVER_TRY(direction(q, before, &slope, &longest, exec));
    *moved = 0;
    /* Columns that the kernel hardly reaches may leave no direction, or one that is not finite. */
    if (!(slope > 0 && slope <= DBL_MAX && longest <= DBL_MAX)) return MOVER_OK;
    double length = fmin(1, LONGEST / longest);
    for (int halving = 0; halving <= MOST_HALVINGS; halving++, length /= 2) {
        MOVER_TRY(go(q, at, length, longest, travelled, exec));
        at = length;
        *error = R(sinkhorn_column_error)(q);
        *moved = *error < before || semi_dual(q) <= value - DESCENT * length * slope;
        if (*moved) return MOVER_OK;
    }
    *error = before;
    return go(q, at, 0, longest, travelled, exec);
}

mover_status R(sinkhorn_newton)(sinkhorn_problem *q, int stretched, const mover_exec *exec) {
    q->want_diagonal = 1;
    q->system.plan = q->plan;
    q->system.row_sum = q->row_mass;
    MOVER_TRY(R(sinkhorn_refresh)(q, !stretched, exec));
    double error = R(sinkhorn_column_error)(q),
           travelled = LONGEST; /* how far the kernel has been scaled before is not known */
    for (int poor = 0, moved = 1; moved && poor < MOST_POOR && error > q->tol && error <= DBL_MAX; q->iterations++) {
        if (q->iterations >= q->max_iter) break;
        const double before = error;
        MOVER_TRY(step(q, &error, &travelled, &moved, exec));
        poor = error > POOR * before ? poor + 1 : 0;
    }
    q->want_diagonal = 0;
    return MOVER_OK;
}
