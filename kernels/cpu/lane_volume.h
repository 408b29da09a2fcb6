/*
 * lane_volume.h: the volume of four to eight unit rows from alpha = 1 - cos of each pair, LANES groups at once.
 *
 *     M_rs = alpha_r + alpha_s - gamma_rs - alpha_r alpha_s,   M_rr = alpha_r (2 - alpha_r)
 *     M = L D L^T,   Vol = prod sqrt(d_r)
 *     dVol/dalpha_r = Vol sum_s M^-1_rs (1 - alpha_s),   dVol/dgamma_rs = -Vol M^-1_rs
 *
 * alpha_r belongs to the first row and row r + 2, gamma_rs to rows r + 2 and s + 2; rows = k - 1 is the order of M.
 *
 * Included after real.h, after alpha_volume.h and small_matrix.h, with real as the scalar of the latter.
 */
#ifndef MOVER_CPU_LANE_VOLUME_H
#define MOVER_CPU_LANE_VOLUME_H

/* On entry matrix[at(r, s)], r > s, holds gamma_rs; it becomes M = L D L^T. volume is 0 where M is singular to working
 * precision and NaN where an alpha or gamma is not finite. */
MOVER_INLINE void lane_volume(int rows, lane_rows alpha, lane_block matrix, lane_row volume) {
    lane_rows least;
    lane_row order, poison;
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) poison[lane] = 0;
    for (int r = 0; r < rows; r++) {
        for (int s = 0; s < r; s++) {
            real *entry = matrix[at(r, s)];
            MOVER_SIMD
            for (int lane = 0; lane < LANES; lane++) {
                const real p = alpha[r][lane], q = alpha[s][lane], gamma = entry[lane];
                entry[lane] = (p - gamma) + q * (1 - p);
                poison[lane] += 0 * gamma;
            }
        }
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) {
            matrix[at(r, r)][lane] = alpha[r][lane] * (2 - alpha[r][lane]);
            least[r][lane] = ALPHA_NOISE * (real)(rows + 1) * alpha[r][lane];
            poison[lane] += 0 * alpha[r][lane];
        }
    }
    lane_factor(rows, matrix, least, order);
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) volume[lane] = 1;
    for (int r = 0; r < rows; r++) {
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) volume[lane] *= real_sqrt(matrix[at(r, r)][lane]);
    }
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) volume[lane] = (order[lane] > 0 ? 0 : volume[lane]) + poison[lane];
}

/* weight times the derivatives of the volume, from what lane_volume left in matrix (overwritten) and volume:
 * grad_alpha[r] and, at at(r, s), grad_gamma. 0 where the volume is. */
MOVER_INLINE void lane_volume_gradient(int rows, lane_rows alpha, lane_block matrix, lane_row volume, lane_row weight,
                                       lane_rows grad_alpha, lane_block grad_gamma) {
    lane_inverse(rows, matrix, grad_gamma);
    for (int entry = 0; entry < at(rows, 0); entry++) {
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++)
            grad_gamma[entry][lane] = volume[lane] == 0 ? 0 : -(weight[lane] * volume[lane]) * grad_gamma[entry][lane];
    }
    for (int r = 0; r < rows; r++) {
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) grad_alpha[r][lane] = 0;
        for (int s = 0; s < rows; s++) {
            const real *entry = grad_gamma[r > s ? at(r, s) : at(s, r)];
            MOVER_SIMD
            for (int lane = 0; lane < LANES; lane++) grad_alpha[r][lane] -= entry[lane] * (1 - alpha[s][lane]);
        }
    }
}

#endif
