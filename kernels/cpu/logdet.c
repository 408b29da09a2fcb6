/*
 * logdet.c: log-determinants of symmetric positive definite matrices.
 *
 *     forward    logdet = sum_j log d_j,  G = L D L^T
 *     backward   grad_gram = grad_logdet G^-1
 *
 * In double whatever the type. Up to order MOVER_MAX_K a block of LANES matrices is factorised at once, one matrix per
 * lane; larger ones are taken one by one, by Cholesky in scratch memory. A matrix with a pivot that is not above the
 * smallest normal number is not positive definite: logdet -inf, gradient 0 and info > 0. One that is not finite has
 * logdet and gradient NaN and info 0.
 */
#include "real.h"

#include "../src/backend.h"

typedef double scalar;
#include "small_matrix.h"

/* Large matrices share this many pieces of scratch memory, a fixed number whatever the threads. */
enum { MOST_SLOTS = 64 };

typedef struct logdet_call {
    int64_t batch, k, slots;
    const real *gram, *grad_logdet;
    real *logdet, *grad_gram;
    int32_t *info;
    double *scratch; /* (slots, k + 1, k) */
} logdet_call;

/* ---- small matrices, in lanes -------------------------------------------------------------------------------------
 */

/* Lanes to spare repeat the first matrix. poison is 0, or NaN where an entry is not finite. */
MOVER_INLINE void lane_load(const real *gram, int k, int64_t count, lane_block a, lane_rows least, lane_row poison) {
    int offset[LANES];
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) {
        poison[lane] = 0;
        offset[lane] = (lane < count ? lane : 0) * (k * k);
    }
    for (int i = 0; i < k; i++) {
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) least[i][lane] = DBL_MIN;
        for (int j = 0; j <= i; j++) {
            const real *entry = gram + i * k + j;
            double *to = a[at(i, j)];
            for (int lane = 0; lane < LANES; lane++) to[lane] = (double)entry[offset[lane]];
            MOVER_SIMD
            for (int lane = 0; lane < LANES; lane++) poison[lane] += 0 * to[lane];
        }
    }
}

/* x = mantissa 2^exponent with a mantissa in [1, 2), for normal x > 0. */
MOVER_INLINE void split(double x, double *mantissa, double *exponent) {
    union {
        double value;
        uint64_t bits;
    } whole = {x}, low, high;
    low.bits = (whole.bits & 0x000fffffffffffffU) | 0x3ff0000000000000U;
    high.bits = (whole.bits >> 52) | 0x4330000000000000U; /* the double 2^52 + biased exponent */
    *mantissa = low.value;
    *exponent = high.value - (0x1p52 + 1023);
}

/* log(mantissa 2^exponent) for mantissas in [1, 2^MOVER_MAX_K): brought into [sqrt(1/2), sqrt(2)), then
 * log m = 2 artanh s with s = (m - 1) / (m + 1), |s| < 0.172, by its series. */
MOVER_INLINE double log_of(double mantissa, double exponent) {
    const double root = 0x1.6a09e667f3bcdp+0; /* sqrt(2) */
    double m, e;
    split(mantissa, &m, &e);
    e += exponent + (m > root ? 1 : 0);
    m *= m > root ? 0.5 : 1;
    const double s = (m - 1) / (m + 1), q = s * s;
    double series = 1.0 / 23;
    series = series * q + 1.0 / 21;
    series = series * q + 1.0 / 19;
    series = series * q + 1.0 / 17;
    series = series * q + 1.0 / 15;
    series = series * q + 1.0 / 13;
    series = series * q + 1.0 / 11;
    series = series * q + 1.0 / 9;
    series = series * q + 1.0 / 7;
    series = series * q + 1.0 / 5;
    series = series * q + 1.0 / 3;
    const double rest = 2 * s + 2 * s * q * series;
    /* log 2 in two parts, the first with zeros at its end: its product with e is exact. */
    return e * 0x1.62e42feep-1 + (e * 0x1.a39ef35793c76p-33 + rest);
}

MOVER_HOT static void forward_block(const real *gram, int k, int64_t count, real *logdet, int32_t *info) {
    lane_block a;
    lane_rows least;
    lane_row order, poison, mantissa, exponent;
    lane_load(gram, k, count, a, least, poison);
    lane_factor(k, a, least, order);
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) {
        mantissa[lane] = 1;
        exponent[lane] = 0;
    }
    for (int j = 0; j < k; j++) {
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) {
            double m, e;
            split(a[at(j, j)][lane], &m, &e);
            mantissa[lane] *= m;
            exponent[lane] += e;
        }
    }
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) {
        const double value = order[lane] > 0 ? -HUGE_VAL : log_of(mantissa[lane], exponent[lane]);
        mantissa[lane] = poison[lane] == 0 ? value : poison[lane];
        order[lane] = poison[lane] == 0 ? order[lane] : 0;
    }
    for (int64_t lane = 0; lane < count; lane++) {
        logdet[lane] = (real)mantissa[lane];
        info[lane] = (int32_t)order[lane];
    }
}

MOVER_HOT static void backward_block(const real *gram, int k, int64_t count, const real *grad_logdet, real *grad_gram) {
    lane_block a, inverse;
    lane_rows least;
    lane_row order, poison;
    lane_load(gram, k, count, a, least, poison);
    lane_factor(k, a, least, order);
    lane_inverse(k, a, inverse);
    for (int i = 0; i < k; i++)
        for (int j = 0; j <= i; j++) {
            const double *entry = inverse[at(i, j)];
            for (int64_t lane = 0; lane < count; lane++) {
                const double grad = order[lane] > 0 ? 0 : (double)grad_logdet[lane] * entry[lane];
                real *to = grad_gram + lane * k * k;
                to[i * k + j] = to[j * k + i] = (real)(poison[lane] == 0 ? grad : poison[lane]);
            }
        }
}

static void forward_blocks(int64_t begin, int64_t end, void *ctx) {
    const logdet_call *call = ctx;
    for (int64_t block = begin; block < end; block++) {
        const int64_t b = block * LANES, count = mover_min(LANES, call->batch - b);
        forward_block(call->gram + b * call->k * call->k, (int)call->k, count, call->logdet + b, call->info + b);
    }
}

static void backward_blocks(int64_t begin, int64_t end, void *ctx) {
    const logdet_call *call = ctx;
    for (int64_t block = begin; block < end; block++) {
        const int64_t b = block * LANES, count = mover_min(LANES, call->batch - b);
        const int64_t offset = b * call->k * call->k;
        backward_block(call->gram + offset, (int)call->k, count, call->grad_logdet + b, call->grad_gram + offset);
    }
}

/* ---- large matrices, one by one -----------------------------------------------------------------------------------
 */

MOVER_HOT static double dot(const double *x, const double *y, int64_t count) {
    double sum = 0;
    MOVER_SIMD_SUM(sum)
    for (int64_t p = 0; p < count; p++) sum += x[p] * y[p];
    return sum;
}

MOVER_HOT static void add_row(double weight, const double *x, double *sum, int64_t count) {
    MOVER_SIMD
    for (int64_t p = 0; p < count; p++) sum[p] += weight * x[p];
}

/* The Cholesky factor of `gram` in the lower triangle of l (k, k). Returns the order of the first leading minor that
 * is not positive, or 0; *logdet is NaN where an entry is not finite. */
static int32_t cholesky(const real *gram, int64_t k, double *l, double *logdet) {
    double poison = 0;
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j <= i; j++) poison += 0 * (double)gram[i * k + j];
    *logdet = poison;
    if (poison != 0) return 0; /* NaN */
    for (int64_t i = 0; i < k; i++) {
        double *row = l + i * k;
        for (int64_t j = 0; j < i; j++) row[j] = ((double)gram[i * k + j] - dot(row, l + j * k, j)) / l[j * k + j];
        const double pivot = (double)gram[i * k + i] - dot(row, row, i);
        if (pivot <= DBL_MIN) {
            *logdet = -HUGE_VAL;
            return (int32_t)(i + 1);
        }
        *logdet += log(pivot);
        row[i] = sqrt(pivot);
    }
    return 0;
}

/* l (k, k) lower triangular becomes its inverse X, row by row: x_i = (e_i - sum_{p<i} l_ip x_p) / l_ii. */
static void invert_triangle(int64_t k, double *l, double *row) {
    for (int64_t i = 0; i < k; i++) {
        const double inverse = 1 / l[i * k + i];
        for (int64_t j = 0; j < i; j++) row[j] = 0;
        for (int64_t p = 0; p < i; p++) add_row(-l[i * k + p] * inverse, l + p * k, row, p + 1);
        for (int64_t j = 0; j < i; j++) l[i * k + j] = row[j];
        l[i * k + i] = inverse;
    }
}

static void forward_slots(int64_t begin, int64_t end, void *ctx) {
    const logdet_call *call = ctx;
    const int64_t k = call->k;
    for (int64_t slot = begin; slot < end; slot++)
        for (int64_t b = slot; b < call->batch; b += call->slots) {
            double logdet;
            call->info[b] = cholesky(call->gram + b * k * k, k, call->scratch + slot * (k + 1) * k, &logdet);
            call->logdet[b] = (real)logdet;
        }
}

static void backward_one(const logdet_call *call, int64_t b, double *l) {
    const int64_t k = call->k;
    const double grad = (double)call->grad_logdet[b];
    real *to = call->grad_gram + b * k * k;
    double *row = l + k * k, logdet;
    const int32_t info = cholesky(call->gram + b * k * k, k, l, &logdet);
    if (info > 0 || isnan(logdet)) {
        for (int64_t q = 0; q < k * k; q++) to[q] = info > 0 ? 0 : (real)logdet;
        return;
    }
    invert_triangle(k, l, row);
    /* G^-1 = X^T X: row i up to the diagonal is sum_{p>=i} x_pi x_p. */
    for (int64_t i = 0; i < k; i++) {
        for (int64_t j = 0; j <= i; j++) row[j] = 0;
        for (int64_t p = i; p < k; p++) add_row(l[p * k + i], l + p * k, row, i + 1);
        for (int64_t j = 0; j <= i; j++) to[i * k + j] = to[j * k + i] = (real)(grad * row[j]);
    }
}

static void backward_slots(int64_t begin, int64_t end, void *ctx) {
    const logdet_call *call = ctx;
    for (int64_t slot = begin; slot < end; slot++)
        for (int64_t b = slot; b < call->batch; b += call->slots)
            backward_one(call, b, call->scratch + slot * (call->k + 1) * call->k);
}

/* -------------------------------------------------------------------------------------------------------------------
 */

static double *take_scratch(const mover_logdet_desc *desc, mover_arena *arena) {
    if (desc->k <= MOVER_MAX_K) return NULL;
    return mover_take(arena, mover_min(desc->batch, MOST_SLOTS) * (desc->k + 1), desc->k, sizeof(double));
}

void R(mover_cpu_logdet_layout)(const mover_logdet_desc *desc, mover_arena *arena) { (void)take_scratch(desc, arena); }

static mover_status run(const mover_logdet_desc *desc, logdet_call *call, mover_body small, mover_body large,
                        void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    call->batch = desc->batch;
    call->k = desc->k;
    call->slots = mover_min(desc->batch, MOST_SLOTS);
    call->scratch = take_scratch(desc, &arena);
    if (desc->k > MOVER_MAX_K) return mover_run(exec, 0, call->slots, 1, large, call);
    return mover_run(exec, 0, mover_ceil_div(desc->batch, LANES), mover_grain(desc->k * desc->k * desc->k), small,
                     call);
}

mover_status R(mover_cpu_logdet_forward)(const mover_logdet_desc *desc, const real *gram, real *logdet, int32_t *info,
                                         void *workspace, const mover_exec *exec) {
    logdet_call call = {.gram = gram, .logdet = logdet, .info = info};
    return run(desc, &call, forward_blocks, forward_slots, workspace, exec);
}

mover_status R(mover_cpu_logdet_backward)(const mover_logdet_desc *desc, const real *gram, const real *grad_logdet,
                                          real *grad_gram, void *workspace, const mover_exec *exec) {
    logdet_call call = {.gram = gram, .grad_logdet = grad_logdet, .grad_gram = grad_gram};
    return run(desc, &call, backward_blocks, backward_slots, workspace, exec);
}
