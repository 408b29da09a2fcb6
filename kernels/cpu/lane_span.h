/*
 * lane_span.h: the distance of an anchor from the span of two to seven unit rows, from alphas, LANES groups at once.
 *
 * The first of the others is the vertex. With gamma between the others, alpha_r between the anchor and the r-th:
 *
 *     M_rs = gamma_1r + gamma_1s - gamma_rs - gamma_1r gamma_1s = L D L^T    of the others alone, factored once
 *     u_r  = gamma_1r + alpha_1 - alpha_r - gamma_1r alpha_1                 of the anchor
 *     dist^2 = alpha_1 (2 - alpha_1) - |D^-1/2 L^-1 u|^2,   Vol = dist * Vol(others)
 *
 * c = M^-1 u and c_1 = (1 - alpha_1) - sum_r c_r (1 - gamma_1r) are the coefficients of the projection; with them
 * d dist = (sum_r c_r dalpha_r - sum_{r>s} c_r c_s dgamma_rs) / dist. One of the others that depends on those before it
 * to working precision is dropped: it adds nothing to the span and has the coefficient 0.
 *
 * Included after lane_volume.h.
 */
#ifndef MOVER_CPU_LANE_SPAN_H
#define MOVER_CPU_LANE_SPAN_H

/* What depends on the others alone; entries r, s count from the second of them. */
typedef struct lane_others {
    lane_rows first;   /* gamma_1r */
    lane_rows inverse; /* 1 / d_r, 0 where r is dropped */
    lane_block lower;  /* L below its diagonal */
    lane_row volume;   /* of the others; 0 where one is dropped, NaN where a gamma is not finite */
} lane_others;

/* In place: others->first and others->lower, which holds gamma_rs at at(r, s), are given. */
MOVER_INLINE void lane_others_factor(int rows, lane_others *others) {
    lane_volume(rows, others->first, others->lower, others->volume);
    for (int r = 0; r < rows; r++) {
        const real *pivot = others->lower[at(r, r)];
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) {
            const real least = ALPHA_NOISE * (real)(rows + 1) * others->first[r][lane];
            others->inverse[r][lane] = pivot[lane] <= least ? 0 : 1 / pivot[lane];
        }
    }
}

/* alpha[0] belongs to the vertex, alpha[r + 1] to r. u becomes L^-1 u; square is dist^2, or 0 where that is rounding,
 * or NaN where an alpha or gamma is not finite. */
MOVER_INLINE void lane_distance(int rows, const lane_others *others, lane_rows alpha, lane_rows u, lane_row square) {
    lane_row noise, poison;
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) {
        square[lane] = alpha[0][lane] * (2 - alpha[0][lane]);
        noise[lane] = ALPHA_NOISE * (real)(rows + 2) * alpha[0][lane];
        poison[lane] = 0 * alpha[0][lane] + 0 * others->volume[lane];
    }
    for (int r = 0; r < rows; r++) {
        const real *first = others->first[r], *inverse = others->inverse[r], *next = alpha[r + 1];
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++)
            u[r][lane] = (first[lane] - next[lane]) + alpha[0][lane] * (1 - first[lane]);
        for (int s = 0; s < r; s++) {
            const real *lower = others->lower[at(r, s)];
            MOVER_SIMD
            for (int lane = 0; lane < LANES; lane++) u[r][lane] -= lower[lane] * u[s][lane];
        }
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) {
            const real share = u[r][lane] * inverse[lane];
            square[lane] -= u[r][lane] * share;
            noise[lane] += 2 * ALPHA_NOISE * (first[lane] + alpha[0][lane]) * real_fabs(share);
            poison[lane] += 0 * next[lane];
        }
    }
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++)
        square[lane] = (square[lane] <= noise[lane] ? 0 : square[lane]) + poison[lane];
}

/* The coefficients of the projection, c[0] that of the vertex, from what lane_distance left in u. */
MOVER_INLINE void lane_coefficients(int rows, const lane_others *others, lane_rows alpha, lane_rows u, lane_rows c) {
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) c[0][lane] = 1 - alpha[0][lane];
    for (int r = rows - 1; r >= 0; r--) {
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) c[r + 1][lane] = u[r][lane] * others->inverse[r][lane];
        for (int s = r + 1; s < rows; s++) {
            const real *lower = others->lower[at(s, r)];
            MOVER_SIMD
            for (int lane = 0; lane < LANES; lane++) c[r + 1][lane] -= lower[lane] * c[s + 1][lane];
        }
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) c[0][lane] -= c[r + 1][lane] * (1 - others->first[r][lane]);
    }
}

#endif
