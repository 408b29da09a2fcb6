/*
 * alpha_volume.cuh: the volume of two to eight unit rows, and the distance of one from the span of the others, from
 * alpha = 1 - cos of each pair; by one thread, in registers.
 *
 *     two      Vol^2 = alpha (2 - alpha)
 *     three    Vol^2 = alpha (2 - alpha) beta (2 - beta) - t^2,   t = (beta - gamma) + alpha (1 - beta)
 *     more     M_rs = alpha_r + alpha_s - gamma_rs - alpha_r alpha_s = L D L^T,   Vol = prod sqrt(d_r)
 *
 * Small alphas keep their digits, where a formula in cosines would lose them. What is not above the rounding errors of
 * its own terms is 0: rows that are linearly dependent to working precision have volume 0 and gradient 0. What is not
 * finite gives NaN (the products with 0 see to that). Rules and constants are those of the CPU backend.
 *
 * Costs that are negative by rounding must be raised to 0 first (half_cost). Included after real.h.
 */
#ifndef MOVER_CUDA_ALPHA_VOLUME_H
#define MOVER_CUDA_ALPHA_VOLUME_H

#include "small_matrix.cuh"

#include <stdint.h>

#define ALPHA_NOISE (8 * REAL_EPSILON)

static __device__ __forceinline__ real half_cost(real cost) { return cost < 0 ? real(0) : cost / 2; }

/* ---- two and three rows: alpha, beta belong to the pairs (1,2), (1,3), gamma to (2,3) ------------------------------
 */

static __device__ __forceinline__ real pair_square(real alpha) {
    const real square = alpha * (2 - alpha) + 0 * alpha;
    return square <= ALPHA_NOISE * 2 * alpha ? real(0) : square;
}

/* An error of rounding e in each alpha moves alpha (2 - alpha) beta (2 - beta) by a few e alpha beta, and t by e times
 * alpha + beta + gamma, where gamma <= 2 (alpha + beta). */
static __device__ __forceinline__ real triple_square(real alpha, real beta, real gamma, real *t) {
    *t = (beta - gamma) + alpha * (1 - beta);
    const real square = (alpha * (2 - alpha)) * (beta * (2 - beta)) - *t * *t + 0 * *t;
    const real noise = ALPHA_NOISE * (2 * alpha) * beta + 2 * ALPHA_NOISE * (alpha + beta) * fabs(*t);
    return square <= noise ? real(0) : square;
}

/* 1 / Vol for gradients: 0 where the volume is 0. */
static __device__ __forceinline__ real inverse_volume(real square) { return square == 0 ? real(0) : 1 / sqrt(square); }

/* ---- the volume of rows + 1 rows: alpha[r] belongs to the first and row r + 2, gamma_rs to rows r + 2 and s + 2 ----
 */

/* matrix[at(r, s)], r > s, holds gamma_rs; it becomes M = L D L^T. least[r] is what pivot r must exceed. */
template <int rows>
static __device__ __forceinline__ real volume_by_pivots(const real (&alpha)[rows], real (&matrix)[at(rows, 0)],
                                                        real (&least)[rows]) {
    real poison = 0, volume = 1;
    MOVER_UNROLL
    for (int r = 0; r < rows; r++) {
        MOVER_UNROLL
        for (int s = 0; s < r; s++) {
            const real gamma = matrix[at(r, s)];
            matrix[at(r, s)] = (alpha[r] - gamma) + alpha[s] * (1 - alpha[r]);
            poison += 0 * gamma;
        }
        matrix[at(r, r)] = alpha[r] * (2 - alpha[r]);
        least[r] = ALPHA_NOISE * real(rows + 1) * alpha[r];
        poison += 0 * alpha[r];
    }
    const int order = matrix_factor<rows>(matrix, least);
    MOVER_UNROLL
    for (int r = 0; r < rows; r++) volume *= sqrt(matrix[at(r, r)]);
    return (order > 0 ? real(0) : volume) + poison;
}

/* weight times the derivatives of the volume, from what volume_by_pivots left in matrix and returned: grad_alpha[r]
 * and, in matrix[at(r, s)], that of gamma_rs. 0 where the volume is. */
template <int rows>
static __device__ __forceinline__ void gradient_by_pivots(const real (&alpha)[rows], real (&matrix)[at(rows, 0)],
                                                          real volume, real weight, real (&grad_alpha)[rows]) {
    matrix_invert_lower<rows>(matrix);
    matrix_inverse<rows>(matrix);
    MOVER_UNROLL
    for (int entry = 0; entry < at(rows, 0); entry++)
        matrix[entry] = volume == 0 ? real(0) : -(weight * volume) * matrix[entry];
    MOVER_UNROLL
    for (int r = 0; r < rows; r++) {
        grad_alpha[r] = 0;
        MOVER_UNROLL
        for (int s = 0; s < rows; s++) grad_alpha[r] -= matrix[r > s ? at(r, s) : at(s, r)] * (1 - alpha[s]);
    }
}

/* The volume by the closed form for two and three rows, by pivots for more. matrix[at(r, s)], r > s, holds gamma_rs and
 * becomes what alpha_volume_gradient needs. */
template <int rows>
static __device__ __forceinline__ real alpha_volume(const real (&alpha)[rows], real (&matrix)[at(rows, 0)]) {
    if constexpr (rows == 1) {
        return sqrt(pair_square(alpha[0]));
    } else if constexpr (rows == 2) {
        real t;
        return sqrt(triple_square(alpha[0], alpha[1], matrix[at(1, 0)], &t));
    } else {
        real least[rows];
        return volume_by_pivots<rows>(alpha, matrix, least);
    }
}

/* weight times the derivatives, as gradient_by_pivots returns them. */
template <int rows>
static __device__ __forceinline__ void alpha_volume_gradient(const real (&alpha)[rows], real (&matrix)[at(rows, 0)],
                                                             real volume, real weight, real (&grad_alpha)[rows]) {
    if constexpr (rows == 1) {
        grad_alpha[0] = weight * inverse_volume(pair_square(alpha[0])) * (1 - alpha[0]);
    } else if constexpr (rows == 2) {
        const real p = alpha[0], q = alpha[1];
        real t;
        const real scale = weight * inverse_volume(triple_square(p, q, matrix[at(1, 0)], &t));
        grad_alpha[0] = scale * ((1 - p) * (q * (2 - q)) - t * (1 - q));
        grad_alpha[1] = scale * ((1 - q) * (p * (2 - p)) - t * (1 - p));
        matrix[at(1, 0)] = scale * t;
    } else {
        gradient_by_pivots<rows>(alpha, matrix, volume, weight, grad_alpha);
    }
}

/* ---- scores: an anchor and a group of one to seven members --------------------------------------------------------
 *
 * Members count from 0; alpha_r belongs to the anchor and member r, gamma_rs to members r and s. One member, and the
 * volume with two: the closed forms, the anchor being the vertex. Else member 0 is the vertex:
 *
 *     M_rs = gamma_r0 + gamma_s0 - gamma_rs - gamma_r0 gamma_s0 = L D L^T,   r, s >= 1      once for a group
 *     u_r  = gamma_r0 + alpha_0 - alpha_r - gamma_r0 alpha_0
 *     dist^2 = alpha_0 (2 - alpha_0) - |D^-1/2 L^-1 u|^2,   span = dist,   Vol = dist Vol(members)
 *
 * c = M^-1 u and c_0 = (1 - alpha_0) - sum_r c_r (1 - gamma_r0) are the coefficients of the projection; with them
 * ddist = (sum_r c_r dalpha_r - sum_{r>s} c_r c_s dgamma_rs) / dist. A member that depends on those before it to
 * working precision is dropped: it adds nothing to the span and has the coefficient 0.
 *
 * A member that is missing stands behind those present, with alpha = gamma = 1, those of a row orthogonal to all: it
 * changes no bit of score and gradient, and its own derivatives are 0. */

/* The place of gamma_rs, r > s, among the pairs of members. An array of them has one entry more: one member has none.
 */
static __host__ __device__ __forceinline__ constexpr int pair_at(int r, int s) { return r * (r - 1) / 2 + s; }

/* What depends on the members alone, r, s >= 1. */
template <int members> struct score_group {
    real first[members];                 /* gamma_r0 */
    real inverse[members];               /* 1 / d_r, 0 where member r is dropped */
    real lower[pair_at(members, 0) + 1]; /* L below its diagonal, at pair_at(r, s) */
    real volume;                         /* of the members; 0 where one is dropped, NaN where a gamma is not finite */
};

template <int members>
static __device__ __forceinline__ score_group<members> group_factor(const real (&gamma)[pair_at(members, 0) + 1]) {
    score_group<members> group;
    group.volume = 1;
    if constexpr (members > 1) {
        constexpr int rows = members - 1;
        real first[rows], least[rows], matrix[at(rows, 0)];
        MOVER_UNROLL
        for (int r = 0; r < rows; r++) {
            first[r] = group.first[r + 1] = gamma[pair_at(r + 1, 0)];
            MOVER_UNROLL
            for (int s = 0; s < r; s++) matrix[at(r, s)] = gamma[pair_at(r + 1, s + 1)];
        }
        group.volume = volume_by_pivots<rows>(first, matrix, least);
        MOVER_UNROLL
        for (int r = 0; r < rows; r++) {
            const real pivot = matrix[at(r, r)];
            group.inverse[r + 1] = pivot <= least[r] ? real(0) : 1 / pivot;
            MOVER_UNROLL
            for (int s = 0; s < r; s++) group.lower[pair_at(r + 1, s + 1)] = matrix[at(r, s)];
        }
    }
    return group;
}

/* dVol(members)/dgamma_rs, at slope[pair_at(r, s)]; 0 where that volume is. */
template <int members>
static __device__ __forceinline__ void group_slope(const real (&gamma)[pair_at(members, 0) + 1],
                                                   real (&slope)[pair_at(members, 0) + 1]) {
    if constexpr (members > 1) {
        constexpr int rows = members - 1;
        real first[rows], least[rows], grad_first[rows], matrix[at(rows, 0)];
        MOVER_UNROLL
        for (int r = 0; r < rows; r++) {
            first[r] = gamma[pair_at(r + 1, 0)];
            MOVER_UNROLL
            for (int s = 0; s < r; s++) matrix[at(r, s)] = gamma[pair_at(r + 1, s + 1)];
        }
        const real volume = volume_by_pivots<rows>(first, matrix, least);
        gradient_by_pivots<rows>(first, matrix, volume, real(1), grad_first);
        MOVER_UNROLL
        for (int r = 0; r < rows; r++) {
            slope[pair_at(r + 1, 0)] = grad_first[r];
            MOVER_UNROLL
            for (int s = 0; s < r; s++) slope[pair_at(r + 1, s + 1)] = matrix[at(r, s)];
        }
    }
}

/* A group in memory: group_numbers(members) numbers, `stride` apart, so that neighbouring threads can keep neighbouring
 * groups side by side. */
static __host__ __device__ __forceinline__ constexpr int group_numbers(int members) {
    return 2 * (members - 1) + pair_at(members - 1, 0) + 1;
}

template <int members>
static __device__ __forceinline__ void group_store(const score_group<members> &group, real *to, int64_t stride) {
    *to = group.volume;
    MOVER_UNROLL
    for (int r = 1; r < members; r++) {
        *(to += stride) = group.first[r];
        *(to += stride) = group.inverse[r];
        MOVER_UNROLL
        for (int s = 1; s < r; s++) *(to += stride) = group.lower[pair_at(r, s)];
    }
}

template <int members>
static __device__ __forceinline__ score_group<members> group_load(const real *from, int64_t stride) {
    score_group<members> group;
    group.volume = *from;
    MOVER_UNROLL
    for (int r = 1; r < members; r++) {
        group.first[r] = *(from += stride);
        group.inverse[r] = *(from += stride);
        MOVER_UNROLL
        for (int s = 1; s < r; s++) group.lower[pair_at(r, s)] = *(from += stride);
    }
    return group;
}

/* dist^2 of an anchor from the span of two members; *c is the coefficient of the second. */
static __device__ __forceinline__ real span_square(real alpha, real beta, real gamma, real inverse, real *c) {
    const real u = (gamma - beta) + alpha * (1 - gamma), share = u * inverse;
    const real square = alpha * (2 - alpha) - u * share + 0 * (alpha + beta + gamma);
    const real noise = ALPHA_NOISE * (2 * alpha) + 2 * ALPHA_NOISE * (gamma + alpha) * fabs(share);
    *c = share;
    return square <= noise ? real(0) : square;
}

/* dist^2 from the span of three and more, or 0 where that is rounding, or NaN where an alpha or gamma is not finite;
 * u = L^-1 u. */
template <int members>
static __device__ __forceinline__ real span_by_pivots(const score_group<members> &group, const real (&alpha)[members],
                                                      real (&u)[members]) {
    real square = alpha[0] * (2 - alpha[0]), noise = ALPHA_NOISE * real(members + 1) * alpha[0];
    real poison = 0 * alpha[0] + 0 * group.volume;
    MOVER_UNROLL
    for (int r = 1; r < members; r++) {
        u[r] = (group.first[r] - alpha[r]) + alpha[0] * (1 - group.first[r]);
        MOVER_UNROLL
        for (int s = 1; s < r; s++) u[r] -= group.lower[pair_at(r, s)] * u[s];
        const real share = u[r] * group.inverse[r];
        square -= u[r] * share;
        noise += 2 * ALPHA_NOISE * (group.first[r] + alpha[0]) * fabs(share);
        poison += 0 * alpha[r];
    }
    return (square <= noise ? real(0) : square) + poison;
}

/* The volume (or, where `volume` is false, the span) of an anchor and a group. */
template <int members, bool volume>
static __device__ __forceinline__ real score(const score_group<members> &group, const real (&alpha)[members]) {
    if constexpr (members == 1) {
        return sqrt(pair_square(alpha[0]));
    } else if constexpr (members == 2 && volume) {
        real t;
        return sqrt(triple_square(alpha[0], alpha[1], group.first[1], &t));
    } else if constexpr (members == 2) {
        real c;
        return sqrt(span_square(alpha[0], alpha[1], group.first[1], group.inverse[1], &c));
    } else {
        real u[members];
        const real distance = sqrt(span_by_pivots<members>(group, alpha, u));
        return volume ? distance * group.volume : distance;
    }
}

/* grad times the derivatives of the score: derivative[r] with respect to alpha_r; gamma_sum[pair_at(r, s)] grows by
 * that with respect to gamma_rs. The volume with three and more members has a further share there, grad dist
 * dVol(members)/dgamma: slope_sum grows by grad dist, to be multiplied by group_slope once the sum is made, where that
 * is not 0. */
template <int members, bool volume>
static __device__ __forceinline__ void score_gradient(const score_group<members> &group, const real (&alpha)[members],
                                                      real grad, real (&derivative)[members],
                                                      real (&gamma_sum)[pair_at(members, 0) + 1], real *slope_sum) {
    if constexpr (members == 1) {
        derivative[0] = grad * inverse_volume(pair_square(alpha[0])) * (1 - alpha[0]);
    } else if constexpr (members == 2 && volume) {
        const real p = alpha[0], q = alpha[1];
        real t;
        const real weight = grad * inverse_volume(triple_square(p, q, group.first[1], &t));
        derivative[0] = weight * ((1 - p) * (q * (2 - q)) - t * (1 - q));
        derivative[1] = weight * ((1 - q) * (p * (2 - p)) - t * (1 - p));
        gamma_sum[0] += weight * t;
    } else if constexpr (members == 2) {
        real c;
        const real weight =
            grad * inverse_volume(span_square(alpha[0], alpha[1], group.first[1], group.inverse[1], &c));
        derivative[0] = weight * ((1 - alpha[0]) - c * (1 - group.first[1]));
        derivative[1] = weight * c;
        gamma_sum[0] -= derivative[0] * c;
    } else {
        real u[members], c[members];
        const real square = span_by_pivots<members>(group, alpha, u);
        const real weight = grad * inverse_volume(square) * (volume ? group.volume : real(1));
        if (volume) *slope_sum += grad * sqrt(square);
        c[0] = 1 - alpha[0];
        MOVER_UNROLL
        for (int r = members - 1; r >= 1; r--) {
            c[r] = u[r] * group.inverse[r];
            MOVER_UNROLL
            for (int s = r + 1; s < members; s++) c[r] -= group.lower[pair_at(s, r)] * c[s];
            c[0] -= c[r] * (1 - group.first[r]);
        }
        MOVER_UNROLL
        for (int r = 0; r < members; r++) {
            derivative[r] = weight == 0 ? real(0) : weight * c[r];
            MOVER_UNROLL
            for (int s = 0; s < r; s++) gamma_sum[pair_at(r, s)] -= weight == 0 ? real(0) : derivative[r] * c[s];
        }
    }
}

#endif
