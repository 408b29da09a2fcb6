/*
 * alpha_volume.h: the volume of two or three unit rows from alpha = 1 - cos of each pair.
 *
 *     two     Vol^2 = alpha (2 - alpha)
 *     three   Vol^2 = alpha (2 - alpha) beta (2 - beta) - t^2,   t = (beta - gamma) + alpha (1 - beta)
 *
 * alpha and beta belong to the pairs (1,2) and (1,3), gamma to (2,3). Small alphas keep their digits, where a formula
 * in cosines would lose them. A square that is not above the rounding errors of its own terms becomes 0: rows that are
 * linearly dependent to working precision have volume 0 and, by inverse_volume, gradient 0. A square is therefore 0,
 * positive, or NaN where an alpha is not finite (the products with 0 see to that).
 *
 * Included after real.h. Costs that are negative by rounding must be raised to 0 first (see half_cost).
 */
#ifndef MOVER_CPU_ALPHA_VOLUME_H
#define MOVER_CPU_ALPHA_VOLUME_H

#define ALPHA_NOISE (8 * REAL_EPSILON)

MOVER_INLINE real half_cost(real cost) { return cost < 0 ? 0 : cost / 2; }

MOVER_INLINE real pair_square(real alpha) {
    const real square = alpha * (2 - alpha) + 0 * alpha;
    return square <= ALPHA_NOISE * 2 * alpha ? 0 : square;
}

/* An error of rounding e in each alpha moves alpha (2 - alpha) beta (2 - beta) by a few e alpha beta, and t by e times
 * alpha + beta + gamma, where gamma <= 2 (alpha + beta). */
MOVER_INLINE real triple_square(real alpha, real beta, real gamma, real *t) {
    *t = (beta - gamma) + alpha * (1 - beta);
    const real square = (alpha * (2 - alpha)) * (beta * (2 - beta)) - *t * *t + 0 * *t;
    const real noise = ALPHA_NOISE * (2 * alpha) * beta + 2 * ALPHA_NOISE * (alpha + beta) * real_fabs(*t);
    return square <= noise ? 0 : square;
}

/* 1 / Vol for gradients: 0 where the volume is 0. */
MOVER_INLINE real inverse_volume(real square, real volume) { return square == 0 ? 0 : 1 / volume; }

#endif
