/*
 * small_matrix.h: LDL^T of many small symmetric matrices at once.
 *
 * A block holds LANES matrices of order k <= MOVER_MAX_K, entry by entry: a[at(i, j)][lane] with i >= j is entry (i, j)
 * of matrix `lane`. The loops over lanes are the vectorised ones and always have the same length: a matrix gets the
 * same bits in every lane, whatever its neighbours are. Lanes to spare may hold anything.
 *
 * Included after real.h and after a typedef of `scalar`, the type of the entries.
 */
#ifndef MOVER_CPU_SMALL_MATRIX_H
#define MOVER_CPU_SMALL_MATRIX_H

#include "mover/mover.h"

enum { LANES = 128 / sizeof(scalar), ENTRIES = MOVER_MAX_K * (MOVER_MAX_K + 1) / 2 };

typedef scalar lane_row[LANES] __attribute__((aligned(64)));
typedef lane_row lane_block[ENTRIES];
typedef lane_row lane_rows[MOVER_MAX_K];

MOVER_INLINE int at(int i, int j) { return i * (i + 1) / 2 + j; }

/* A = L D L^T in place: D on the diagonal, the unit lower triangular L below it. order[lane] is 0, or j + 1 for the
 * first pivot j that is not above least[j][lane]; what follows that pivot means nothing but is made without dividing
 * by it. A pivot of NaN counts as above. */
MOVER_INLINE void lane_factor(int k, lane_block a, lane_rows least, lane_row order) {
    lane_rows column;
    lane_row inverse;
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) order[lane] = 0;
    for (int j = 0; j < k; j++) {
        const scalar *pivot = a[at(j, j)];
        const scalar number = (scalar)(j + 1);
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) {
            const scalar first = order[lane] == 0 ? number : order[lane];
            order[lane] = pivot[lane] <= least[j][lane] ? first : order[lane];
            inverse[lane] = pivot[lane] <= least[j][lane] ? 0 : 1 / pivot[lane];
        }
        for (int i = j + 1; i < k; i++) {
            scalar *below = a[at(i, j)];
            MOVER_SIMD
            for (int lane = 0; lane < LANES; lane++) {
                column[i][lane] = below[lane];
                below[lane] *= inverse[lane];
            }
            for (int p = j + 1; p <= i; p++) {
                scalar *entry = a[at(i, p)];
                MOVER_SIMD
                for (int lane = 0; lane < LANES; lane++) entry[lane] -= below[lane] * column[p][lane];
            }
        }
    }
}

/* The inverse of A from lane_factor's result, which is overwritten. */
MOVER_INLINE void lane_inverse(int k, lane_block a, lane_block inverse) {
    /* a becomes W = L^-1, row by row: w_ij = -(l_ij + sum_{j<p<i} l_ip w_pj). Row i still holds L while it is made. */
    for (int i = 1; i < k; i++)
        for (int j = 0; j < i; j++) {
            scalar *w = a[at(i, j)];
            for (int p = j + 1; p < i; p++) {
                const scalar *l = a[at(i, p)], *above = a[at(p, j)];
                MOVER_SIMD
                for (int lane = 0; lane < LANES; lane++) w[lane] += l[lane] * above[lane];
            }
            MOVER_SIMD
            for (int lane = 0; lane < LANES; lane++) w[lane] = -w[lane];
        }
    /* inverse_ij = sum_{p>=i} w_pi w_pj / d_p, with w_pp = 1. */
    for (int p = 0; p < k; p++) {
        lane_row scale, scaled;
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) scale[lane] = 1 / a[at(p, p)][lane];
        for (int i = 0; i < p; i++) {
            MOVER_SIMD
            for (int lane = 0; lane < LANES; lane++) scaled[lane] = scale[lane] * a[at(p, i)][lane];
            for (int j = 0; j <= i; j++) {
                scalar *entry = inverse[at(i, j)];
                const scalar *w = a[at(p, j)];
                MOVER_SIMD
                for (int lane = 0; lane < LANES; lane++) entry[lane] += scaled[lane] * w[lane];
            }
            MOVER_SIMD
            for (int lane = 0; lane < LANES; lane++) inverse[at(p, i)][lane] = scaled[lane];
        }
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) inverse[at(p, p)][lane] = scale[lane];
    }
}

#endif
