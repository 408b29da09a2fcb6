/*
 * control.cuh: how iterations follow each other: what one thread decides for a problem between two ticks of the team.
 *
 * A tick is a phase over the rows, one over the columns and, in a step of conjugate gradients, one over the vectors. At
 * the start of the next tick every block that works on a problem adds up the numbers which those phases left, in one
 * order, and decides by the same arithmetic in double: no block waits for a decision and the host knows of none.
 *
 *     FIRST -> ITERATE ... ITERATE -> WRITE -> SHIFT
 *     ITERATE -> ENTER -> (PREPARE -> STEP ... STEP -> (MOVE -> TRY) ...) ... -> LEAVE -> ITERATE or WRITE
 *
 * The rules are those of the CPU backend (sinkhorn.c, newton.c there): plain updates, over-relaxation by the observed
 * rate, Newton steps where that crawls; and so are the numbers of iterations.
 */
#ifndef MOVER_CUDA_CONTROL_CUH
#define MOVER_CUDA_CONTROL_CUH

#include "schur.cuh"

/* What a tick does with a problem. */
typedef enum control_mode {
    FIRST,   /* makes the kernel, an iteration */
    ITERATE, /* an iteration */
    ENTER,   /* Newton's first state: rows exact */
    PREPARE, /* the diagonal and right-hand side of a direction's system */
    STEP,    /* one step of conjugate gradients */
    MOVE,    /* V = exp((to - from) direction) */
    TRY,     /* rows exact after a move */
    LEAVE,   /* V of the last columns of Newton */
    WRITE,   /* plan, potentials, the error of both marginals */
    SHIFT,   /* potentials to their gauge, scalars; the last, as is POISON */
    POISON   /* outputs of a problem that is not finite */
} control_mode;

enum { WINDOW = 4 /* iterations over which a rate is taken */, MOST_NEWTON = 4 /* turns to Newton */ };
enum { MOST_CG = MOVER_REAL_BITS == 32 ? 100 : 300, MOST_HALVINGS = 5, MOST_POOR = 3 };

static constexpr real LARGEST = REAL_MAX / 64; /* bound on masses, costs and costs / epsilon */
static constexpr double MOST_OVER = 0.9, GROWTH = 3, RETREAT = 0.7;
static constexpr double PATIENCE = 60; /* iterations at the present rate that `auto` waits for */
static constexpr double LONGEST = 20;  /* bound on a change of v: exponentials stay finite */
static constexpr double DESCENT = 1e-4;
static constexpr double POOR = 0.7; /* a step that leaves more than this share of the error */

typedef struct control_options {
    double tol;
    int32_t max_iter, solver;
} control_options;

/* State of one problem between ticks. */
typedef struct control {
    int32_t mode;
    int32_t from_cost;  /* the rows of this tick make the kernel from the costs */
    int32_t force;      /* they must */
    int32_t iterations; /* Sinkhorn iterations and Newton steps so far */
    int32_t newton;     /* turns to Newton that are left */
    double over;        /* how far scales go beyond their updates, 0 to 1; a number of type real */
    double relaxed;     /* the same before it was rounded */
    double mass_a, mass_b;

    int32_t count, since;    /* iterations seen, and since `over` changed */
    double most_over, least; /* bound on it; the least error since the last retreat */
    double errors[WINDOW];   /* the last ones, in a ring */

    int32_t halving, poor, by_scales, returns; /* returns: to where the step began */
    double error, before;                      /* now and before the step */
    double value, at, to, travelled, mean;
    schur_state cg;

    double shift, sum, marginal_error; /* of the potentials; <f, a> + <g, b> before it */
} control;

/* ---- how far to go beyond, and when to turn to Newton ----------------------------------------------------------- */

static __device__ __forceinline__ void forget(control &s) {
    s.count = s.since = 0;
    s.over = s.relaxed = 0;
    s.most_over = MOST_OVER;
    s.least = DBL_MAX;
}

/* The next `over` after an iteration that left `error`. If the error had fallen by the factor q with `over`, that of
 * plain updates is rho = (q + over)^2 / (q (1 + over)^2), and the best `over` 2 / (1 + sqrt(1 - rho)) - 1. */
static __device__ double next_over(control &s, double over, double error) {
    const double q = s.count > 0 ? error / s.errors[(s.count - 1) % WINDOW] : 1;
    s.since++;
    if (error > GROWTH * s.least) {
        s.most_over = RETREAT * over;
        over = 0;
        s.least = error;
        s.since = -1;
    } else if (s.count >= 2 && s.since >= 2 && q > over && q < 1) {
        const double rho = (q + over) * (q + over) / (q * (1 + over) * (1 + over));
        const double best = rho < 1 ? fmin(s.most_over, 2 / (1 + sqrt(1 - rho)) - 1) : 0;
        if (best > over) {
            over = best;
            s.since = 0;
        }
    }
    s.least = fmin(s.least, error);
    return over;
}

/* Whether more than PATIENCE iterations remain at the rate of the last WINDOW. */
static __device__ bool crawls(const control &s, double error, double tol) {
    if (s.count < WINDOW || s.since < WINDOW) return false;
    const double rate = error / s.errors[s.count % WINDOW]; /* the error WINDOW iterations ago */
    return rate >= 1 || WINDOW * log(tol / error) < PATIENCE * log(rate);
}

static __device__ void decide_iteration(control &s, const control_options &o, double error) {
    s.iterations++;
    if (!(error <= DBL_MAX)) {
        s.mode = POISON;
        return;
    }
    const bool last = error <= o.tol || s.iterations >= o.max_iter;
    s.relaxed = o.solver == MOVER_SOLVER_AUTO && !last ? next_over(s, s.relaxed, error) : 0;
    const bool turn = o.solver == MOVER_SOLVER_NEWTON ? s.count == WINDOW : crawls(s, error, o.tol);
    s.errors[s.count++ % WINDOW] = error;
    s.over = (double)(real)s.relaxed;
    if (last) {
        s.mode = WRITE;
    } else if (turn && s.newton > 0) {
        s.newton--;
        s.mode = ENTER;
    } else {
        s.mode = ITERATE;
    }
}

/* ---- Newton ----------------------------------------------------------------------------------------------------- */

/* Sums over the columns after ENTER and TRY. */
enum { ERROR_SUM, SQUARE_SUM, DUAL_SUM, RESIDUAL_SUM, MASS_COUNT };

/* The next step, or the end of them. */
static __device__ void decide_newton(control &s, const control_options &o, bool moved, double dual,
                                     const double *column) {
    if (!moved || s.poor >= MOST_POOR || !(s.error > o.tol) || !(s.error <= DBL_MAX) || s.iterations >= o.max_iter) {
        s.error = column[ERROR_SUM];
        s.mode = LEAVE;
        return;
    }
    s.before = s.error;
    s.value = dual;
    s.at = 0;
    s.cg.tolerance = fmin(0.5, sqrt(s.error)) * sqrt(column[SQUARE_SUM]);
    s.cg.most_steps = MOST_CG;
    s.cg.count = column[MASS_COUNT];
    s.mean = s.cg.count > 0 ? column[RESIDUAL_SUM] / s.cg.count : 0;
    s.mode = PREPARE;
}

/* Goes to length s.to. Multiply-adds do, unless the kernel has been scaled by so much since it was made from the costs
 * that its small entries may be missing. */
static __device__ void decide_move(control &s) {
    s.travelled += fabs(s.to - s.at) * s.cg.reach;
    s.by_scales = s.travelled <= LONGEST;
    if (!s.by_scales) s.travelled = 0;
    s.mode = MOVE;
}

/* The direction is there. Columns that the kernel hardly reaches may leave none, or one that is not finite. */
static __device__ void decide_direction(control &s) {
    s.halving = 0;
    s.returns = !(s.cg.slope > 0 && s.cg.slope <= DBL_MAX && s.cg.reach <= DBL_MAX);
    s.to = s.returns ? s.at : fmin(1.0, LONGEST / s.cg.reach);
    decide_move(s);
}

/* After TRY: the step is made, shortened or taken back. */
static __device__ void decide_try(control &s, const control_options &o, double dual, const double *column) {
    s.at = s.to;
    if (!s.returns) {
        s.error = column[ERROR_SUM];
        const bool moved = s.error < s.before || dual <= s.value - DESCENT * s.to * s.cg.slope;
        if (!moved) {
            s.halving++;
            s.returns = s.halving > MOST_HALVINGS;
            s.to = s.returns ? 0 : s.to / 2;
            decide_move(s);
            return;
        }
    } else {
        s.error = s.before;
    }
    s.poor = s.error > POOR * s.before ? s.poor + 1 : 0;
    s.iterations++;
    decide_newton(s, o, !s.returns, dual, column);
}

/* ---- all -------------------------------------------------------------------------------------------------------- */

static __device__ void control_begin(control &s, const control_options &o) {
    s = control{};
    s.mode = FIRST;
    s.from_cost = 1;
    s.newton = o.solver == MOVER_SOLVER_SINKHORN ? 0 : MOST_NEWTON;
    forget(s);
}

static __device__ __forceinline__ bool is_last(int32_t mode) { return mode == SHIFT || mode == POISON; }

/* From the numbers of the last tick to the mode of the next. */
static __device__ void control_decide(control &s, const control_options &o, const double *row, const double *column,
                                      const double *vector) {
    s.force = 0;
    switch (s.mode) {
    case FIRST:
        s.mass_a = row[1];
        s.mass_b = column[2];
        if (!(s.mass_a > 0 && s.mass_a <= LARGEST && s.mass_b > 0 && s.mass_b <= LARGEST)) {
            s.mode = POISON;
        } else {
            s.force = column[1] > 0;
            decide_iteration(s, o, row[0] > 0 ? (double)INFINITY : column[0]);
        }
        break;
    case ITERATE:
        s.force = column[1] > 0;
        decide_iteration(s, o, row[0] + column[0]);
        break;
    case ENTER:
        s.error = column[ERROR_SUM];
        s.travelled = LONGEST; /* how far the kernel has been scaled before is not known */
        s.poor = 0;
        decide_newton(s, o, true, -row[1] - column[DUAL_SUM], column);
        break;
    case PREPARE:
        s.mode = STEP;
        if (!schur_started(s.cg, column)) decide_direction(s);
        break;
    case STEP:
        if (!schur_stepped(s.cg, column, vector)) decide_direction(s);
        break;
    case MOVE:
        s.mode = TRY;
        break;
    case TRY:
        decide_try(s, o, -row[1] - column[DUAL_SUM], column);
        break;
    case LEAVE:
        forget(s);
        s.force = column[1] > 0;
        s.mode = s.error <= o.tol || s.iterations >= o.max_iter ? WRITE : ITERATE;
        break;
    case WRITE:
        s.marginal_error = row[0] + column[0];
        s.shift = (column[1] - row[1]) / (s.mass_a + s.mass_b);
        s.sum = row[1] + column[1] + s.shift * (s.mass_a - s.mass_b);
        s.mode = SHIFT;
        break;
    default:
        break;
    }
    /* Newton scales by V alone */
    if (s.mode == LEAVE || s.mode == PREPARE) s.over = 0;
}

#endif
