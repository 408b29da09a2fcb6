/*
 * small_matrix.cuh: LDL^T of a small symmetric matrix in the registers of one thread.
 *
 * Entry (i, j), i >= j, of a matrix of order k is a[at(i, j)]. k is a template argument and every loop is unrolled: no
 * index is left to run time, so the arrays never leave the registers. The inverse takes the place of its matrix: a
 * second array would not fit beside it.
 */
#ifndef MOVER_CUDA_SMALL_MATRIX_H
#define MOVER_CUDA_SMALL_MATRIX_H

#include "portable.h"

static __host__ __device__ __forceinline__ constexpr int at(int i, int j) { return i * (i + 1) / 2 + j; }

/* A = L D L^T in place: D on the diagonal, the unit lower triangular L below it. Returns 0, or j + 1 for the first
 * pivot j that is not above least[j]; what follows that pivot means nothing but is made without dividing by it. A pivot
 * of NaN counts as above. */
template <int k, class T> static __device__ __forceinline__ int matrix_factor(T (&a)[at(k, 0)], const T (&least)[k]) {
    T column[k];
    int order = 0;
    MOVER_UNROLL
    for (int j = 0; j < k; j++) {
        const bool above = !(a[at(j, j)] <= least[j]);
        const T inverse = above ? 1 / a[at(j, j)] : T(0);
        order = above || order > 0 ? order : j + 1;
        MOVER_UNROLL
        for (int i = j + 1; i < k; i++) {
            column[i] = a[at(i, j)];
            a[at(i, j)] *= inverse;
            MOVER_UNROLL
            for (int p = j + 1; p <= i; p++) a[at(i, p)] -= a[at(i, j)] * column[p];
        }
    }
    return order;
}

/* What matrix_factor left becomes W = L^-1 below the diagonal: w_ij = -(l_ij + sum_{j<p<i} l_ip w_pj). Row i still
 * holds L while it is made. */
template <int k, class T> static __device__ __forceinline__ void matrix_invert_lower(T (&a)[at(k, 0)]) {
    MOVER_UNROLL
    for (int i = 1; i < k; i++) {
        MOVER_UNROLL
        for (int j = 0; j < i; j++) {
            MOVER_UNROLL
            for (int p = j + 1; p < i; p++) a[at(i, j)] += a[at(i, p)] * a[at(p, j)];
            a[at(i, j)] = -a[at(i, j)];
        }
    }
}

/* What matrix_invert_lower left becomes A^-1 = W^T D^-1 W: entry (i, j) is sum_{p>=i} w_pi w_pj / d_p, with w_pp = 1.
 * Rows are finished from the first on: what row i is made of lies in rows from i on. */
template <int k, class T> static __device__ __forceinline__ void matrix_inverse(T (&a)[at(k, 0)]) {
    MOVER_UNROLL
    for (int i = 0; i < k; i++) a[at(i, i)] = 1 / a[at(i, i)];
    MOVER_UNROLL
    for (int i = 0; i < k; i++) {
        T scaled[k];
        MOVER_UNROLL
        for (int p = i + 1; p < k; p++) scaled[p] = a[at(p, i)] * a[at(p, p)];
        MOVER_UNROLL
        for (int j = 0; j < i; j++) {
            a[at(i, j)] *= a[at(i, i)];
            MOVER_UNROLL
            for (int p = i + 1; p < k; p++) a[at(i, j)] += scaled[p] * a[at(p, j)];
        }
        MOVER_UNROLL
        for (int p = i + 1; p < k; p++) a[at(i, i)] += scaled[p] * a[at(p, i)];
    }
}

#endif
