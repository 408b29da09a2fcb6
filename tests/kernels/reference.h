/*
 * reference.h: what the library must return, by the plainest loops, in 113-bit arithmetic where the compiler has it.
 *
 * Nothing here shares code, a formula's arrangement or a precision with the library.
 */
#ifndef MOVER_TESTS_REFERENCE_H
#define MOVER_TESTS_REFERENCE_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace reference {

#if defined(__SIZEOF_FLOAT128__)
__extension__ typedef __float128 quad;
#else
typedef long double quad;
#endif

/* Determinant by Gaussian elimination with pivoting. a (k, k), row-major. */
inline quad determinant(std::vector<quad> a, int64_t k) {
    quad det = 1;
    for (int64_t j = 0; j < k; j++) {
        int64_t best = j;
        for (int64_t i = j; i < k; i++) {
            const quad here = a[i * k + j] < 0 ? -a[i * k + j] : a[i * k + j];
            const quad there = a[best * k + j] < 0 ? -a[best * k + j] : a[best * k + j];
            if (here > there) best = i;
        }
        if (a[best * k + j] == 0) return 0;
        if (best != j) {
            for (int64_t p = 0; p < k; p++) std::swap(a[j * k + p], a[best * k + p]);
            det = -det;
        }
        det *= a[j * k + j];
        for (int64_t i = j + 1; i < k; i++) {
            const quad factor = a[i * k + j] / a[j * k + j];
            for (int64_t p = j; p < k; p++) a[i * k + p] -= factor * a[j * k + p];
        }
    }
    return det;
}

/* gram[r,s] = <v_r, v_s>, v (k, d). */
template <class T> std::vector<quad> gram(const T *v, int64_t k, int64_t d) {
    std::vector<quad> out(static_cast<size_t>(k * k));
    for (int64_t r = 0; r < k; r++)
        for (int64_t s = 0; s < k; s++) {
            quad sum = 0;
            for (int64_t t = 0; t < d; t++) sum += static_cast<quad>(v[r * d + t]) * static_cast<quad>(v[s * d + t]);
            out[static_cast<size_t>(r * k + s)] = sum;
        }
    return out;
}

inline double root(quad square) {
    return square > 0 ? static_cast<double>(sqrtl(static_cast<long double>(square))) : 0;
}

/* sqrt(det(V V^T) + eps^2), v (k, d). */
template <class T> double volume(const T *v, int64_t k, int64_t d, double eps = 0) {
    const quad det = determinant(gram(v, k, d), k);
    return root((det > 0 ? det : 0) + static_cast<quad>(eps) * static_cast<quad>(eps));
}

/* Volume of unit rows from their pairwise 1 - alpha, alpha (k, k). */
inline double volume_of_alphas(const std::vector<quad> &alpha, int64_t k) {
    std::vector<quad> cosine(alpha.size());
    for (size_t q = 0; q < alpha.size(); q++) cosine[q] = 1 - alpha[q];
    return root(determinant(cosine, k));
}

/* alpha[r,s] = |v_r - v_s|^2 / 2 for rows at any addresses. */
template <class T> std::vector<quad> alphas(const std::vector<const T *> &rows, int64_t d) {
    const size_t k = rows.size();
    std::vector<quad> out(k * k);
    for (size_t r = 0; r < k; r++)
        for (size_t s = 0; s < k; s++) {
            quad sum = 0;
            for (int64_t t = 0; t < d; t++) {
                const quad difference = static_cast<quad>(rows[r][t]) - static_cast<quad>(rows[s][t]);
                sum += difference * difference;
            }
            out[r * k + s] = sum / 2;
        }
    return out;
}

/* |x_i - y_j|^2 / 2 (n, m), rows of width d. */
template <class T> std::vector<double> anchor_alphas(const T *x, const T *y, int64_t n, int64_t m, int64_t d) {
    std::vector<double> out;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            quad sum = 0;
            for (int64_t t = 0; t < d; t++) {
                const quad difference = static_cast<quad>(x[i * d + t]) - static_cast<quad>(y[j * d + t]);
                sum += difference * difference;
            }
            out.push_back(static_cast<double>(sum / 2));
        }
    return out;
}

/* scores (n, m): anchor (n, d), others (m, k-1, d). */
template <class T>
std::vector<double> volume_scores(const T *anchor, const T *others, int64_t n, int64_t m, int64_t k, int64_t d) {
    std::vector<double> out;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            std::vector<const T *> rows = {anchor + i * d};
            for (int64_t r = 0; r < k - 1; r++) rows.push_back(others + (j * (k - 1) + r) * d);
            out.push_back(volume_of_alphas(alphas(rows, d), k));
        }
    return out;
}

/* sum_{i,j,l} p12 p13 p23 Vol(i, j, l) from squared distances; weights may be NULL. */
template <class T>
double expected_volume(const T *c12, const T *c13, const T *c23, const T *p12, const T *p13, const T *p23, int64_t n1,
                       int64_t n2, int64_t n3) {
    long double sum = 0;
    for (int64_t i = 0; i < n1; i++)
        for (int64_t j = 0; j < n2; j++)
            for (int64_t l = 0; l < n3; l++) {
                const quad x = static_cast<quad>(c12[i * n2 + j]) / 2, y = static_cast<quad>(c13[i * n3 + l]) / 2,
                           z = static_cast<quad>(c23[j * n3 + l]) / 2;
                long double weight = 1;
                if (p12) weight *= static_cast<long double>(p12[i * n2 + j]);
                if (p13) weight *= static_cast<long double>(p13[i * n3 + l]);
                if (p23) weight *= static_cast<long double>(p23[j * n3 + l]);
                sum += weight * static_cast<long double>(volume_of_alphas({0, x, y, x, 0, z, y, z, 0}, 3));
            }
    return static_cast<double>(sum);
}

} // namespace reference

#endif
