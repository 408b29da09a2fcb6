/*
 * gram.c: Gram matrices.
 *
 *     forward    gram[b,r,s]  = sum_t v[b,r,t] v[b,s,t]
 *     backward   grad_v[b,r,:] = sum_s (grad_gram[b,r,s] + grad_gram[b,s,r]) v[b,s,:]
 *
 * Products and sums are in double. The unit of work is one row r of one matrix b: it owns the entries (r, s) and
 * (s, r) with s <= r forward, and one row of grad_v backward.
 */
#include "real.h"

#include "../src/backend.h"

enum { TILE = 256 };

typedef struct gram_call {
    int64_t k, d;
    const real *v, *grad_gram;
    real *gram, *grad_v;
} gram_call;

MOVER_HOT static double dot(const real *x, const real *y, int64_t d) {
    double sum = 0;
    MOVER_SIMD_SUM(sum)
    for (int64_t t = 0; t < d; t++) sum += (double)x[t] * (double)y[t];
    return sum;
}

static void forward_rows(int64_t begin, int64_t end, void *ctx) {
    const gram_call *call = ctx;
    const int64_t k = call->k, d = call->d;
    for (int64_t row = begin; row < end; row++) {
        const int64_t b = row / k, r = row % k;
        const real *v = call->v + b * k * d;
        real *gram = call->gram + b * k * k;
        for (int64_t s = 0; s <= r; s++) {
            const real entry = (real)dot(v + r * d, v + s * d, d);
            gram[r * k + s] = entry;
            gram[s * k + r] = entry;
        }
    }
}

mover_status R(mover_cpu_gram_forward)(const mover_gram_desc *desc, const real *v, real *gram, const mover_exec *exec) {
    gram_call call = {.k = desc->k, .d = desc->d, .v = v, .gram = gram};
    return mover_run(exec, 0, desc->batch * desc->k, mover_grain(desc->k * desc->d / 8), forward_rows, &call);
}

MOVER_HOT static void add_row(double weight, const real *x, double *sum, int64_t count) {
    MOVER_SIMD
    for (int64_t t = 0; t < count; t++) sum[t] += weight * (double)x[t];
}

static void backward_rows(int64_t begin, int64_t end, void *ctx) {
    const gram_call *call = ctx;
    const int64_t k = call->k, d = call->d;
    double sum[TILE];
    for (int64_t row = begin; row < end; row++) {
        const int64_t b = row / k, r = row % k;
        const real *v = call->v + b * k * d, *grad = call->grad_gram + b * k * k;
        for (int64_t t = 0; t < d; t += TILE) {
            const int64_t count = mover_min(TILE, d - t);
            for (int64_t q = 0; q < count; q++) sum[q] = 0;
            for (int64_t s = 0; s < k; s++)
                add_row((double)grad[r * k + s] + (double)grad[s * k + r], v + s * d + t, sum, count);
            for (int64_t q = 0; q < count; q++) call->grad_v[row * d + t + q] = (real)sum[q];
        }
    }
}

mover_status R(mover_cpu_gram_backward)(const mover_gram_desc *desc, const real *v, const real *grad_gram, real *grad_v,
                                        const mover_exec *exec) {
    gram_call call = {.k = desc->k, .d = desc->d, .v = v, .grad_gram = grad_gram, .grad_v = grad_v};
    return mover_run(exec, 0, desc->batch * desc->k, mover_grain(desc->k * desc->d / 8), backward_rows, &call);
}
