/*
 * volume.c: the volume of the parallelotope spanned by the k rows of V.
 *
 *     w_1 = v_1, w_i = v_i - v_1,   G = W W^T = L D L^T
 *     forward    Vol_0 = prod_j sqrt(d_j),   Vol = sqrt(Vol_0^2 + eps^2)
 *     backward   dVol/dw = (Vol_0^2 / Vol) G^-1 w,   dVol/dv_i = dVol/dw_i,   dVol/dv_1 = dVol/dw_1 - sum_i dVol/dw_i
 *
 * All in double. The subtraction leaves the determinant as it is, and rows that nearly agree their digits. A pivot d_j
 * not above 64 k 2^-53 |w_j|^2 is rounding: Vol_0 = 0 and the gradient is 0. Where a pivot is much smaller than
 * |w_j|^2 (rows nearly in one plane), W is orthogonalised and its pivots are taken again.
 *
 * The unit of work is a block of LANES groups: their Gram matrices are made one by one, factorised together.
 */
#include "real.h"

#include "../src/backend.h"

#include <string.h>

typedef double scalar;
#include "small_matrix.h"

enum { TILE = 128 };

/* d_j / |w_j|^2 below which a group is orthogonalised. */
static const double MOST_LOSS = 0x1p-20;

typedef struct volume_call {
    int64_t batch, k, d;
    double eps;
    const real *v, *grad_volume;
    real *volume, *grad_v;
} volume_call;

/* Columns [t, t + count) of W. */
MOVER_INLINE void load_tile(const real *v, int k, int64_t d, int64_t t, int64_t count, double w[MOVER_MAX_K][TILE]) {
    for (int64_t q = 0; q < count; q++) w[0][q] = (double)v[t + q];
    for (int r = 1; r < k; r++) {
        const real *row = v + r * d + t;
        MOVER_SIMD
        for (int64_t q = 0; q < count; q++) w[r][q] = (double)row[q] - w[0][q];
    }
}

MOVER_INLINE void add_gram(int k, double w[MOVER_MAX_K][TILE], int64_t count, int lane, lane_block gram) {
    for (int r = 0; r < k; r++)
        for (int s = 0; s <= r; s++) {
            double sum = 0;
            MOVER_SIMD_SUM(sum)
            for (int64_t q = 0; q < count; q++) sum += w[r][q] * w[s][q];
            gram[at(r, s)][lane] += sum;
        }
}

/* The Gram matrix of W for one group, into its lane. */
MOVER_HOT static void gram_of_differences(const real *v, int k, int64_t d, int lane, lane_block gram) {
    double w[MOVER_MAX_K][TILE];
    for (int entry = 0; entry < at(k, 0); entry++) gram[entry][lane] = 0;
    for (int64_t t = 0; t < d; t += TILE) {
        const int64_t count = mover_min(TILE, d - t);
        load_tile(v, k, d, t, count, w);
        add_gram(k, w, count, lane, gram);
    }
}

/* gram becomes its LDL^T; product = prod sqrt(d_j), or 0 where a pivot is rounding, or NaN where a vector is not
 * finite. loss is the least d_j / |w_j|^2, or 1 where the product is 0: what was lost by cancellation. */
MOVER_HOT static void factor_block(int k, lane_block gram, lane_row product, lane_row loss) {
    lane_rows least;
    lane_row order, poison;
    const double rounding = 32 * DBL_EPSILON * k;
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) poison[lane] = 0;
    for (int j = 0; j < k; j++) {
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) {
            least[j][lane] = rounding * gram[at(j, j)][lane];
            poison[lane] += 0 * gram[at(j, j)][lane];
        }
    }
    lane_factor(k, gram, least, order);
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) product[lane] = loss[lane] = 1;
    for (int j = 0; j < k; j++) {
        MOVER_SIMD
        for (int lane = 0; lane < LANES; lane++) {
            const double ratio = rounding * gram[at(j, j)][lane] / least[j][lane];
            loss[lane] = ratio < loss[lane] ? ratio : loss[lane];
            product[lane] *= sqrt(gram[at(j, j)][lane]);
        }
    }
    MOVER_SIMD
    for (int lane = 0; lane < LANES; lane++) {
        loss[lane] = order[lane] > 0 ? 1 : loss[lane];
        product[lane] = (order[lane] > 0 ? 0 : product[lane]) + poison[lane];
    }
}

/* The product again, for a group that lost digits: the rows of X W, X = L^-1, are nearly orthogonal and have the same
 * determinant; H, their Gram matrix, loses nothing. Where inverse is not NULL its lane becomes G^-1 = X^T H^-1 X. */
MOVER_HOT static double orthogonalise(const real *v, int k, int64_t d, int lane, lane_block factored,
                                      lane_block inverse) {
    double w[MOVER_MAX_K][TILE], x[MOVER_MAX_K][MOVER_MAX_K];
    lane_block h, h_inverse;
    lane_rows least;
    lane_row order;
    for (int r = 0; r < k; r++) {
        for (int s = 0; s < r; s++) {
            x[r][s] = 0;
            for (int p = s; p < r; p++) x[r][s] -= factored[at(r, p)][lane] * x[p][s];
        }
        x[r][r] = 1;
        for (int other = 0; other < LANES; other++) least[r][other] = 0;
    }
    for (int entry = 0; entry < at(k, 0); entry++)
        for (int other = 0; other < LANES; other++) h[entry][other] = 0;
    for (int64_t t = 0; t < d; t += TILE) {
        const int64_t count = mover_min(TILE, d - t);
        load_tile(v, k, d, t, count, w);
        for (int r = k - 1; r > 0; r--)
            for (int s = 0; s < r; s++) {
                MOVER_SIMD
                for (int64_t q = 0; q < count; q++) w[r][q] += x[r][s] * w[s][q];
            }
        add_gram(k, w, count, 0, h);
    }
    lane_factor(k, h, least, order);
    double product = 1;
    for (int j = 0; j < k; j++) product *= order[0] > 0 ? 0 : sqrt(h[at(j, j)][0]);
    if (!inverse || product == 0) return product;
    lane_inverse(k, h, h_inverse);
    for (int r = 0; r < k; r++)
        for (int s = 0; s <= r; s++) {
            double sum = 0;
            for (int p = r; p < k; p++)
                for (int q = s; q < k; q++) sum += x[p][r] * h_inverse[p > q ? at(p, q) : at(q, p)][0] * x[q][s];
            inverse[at(r, s)][lane] = sum;
        }
    return product;
}

/* Lanes to spare repeat the first group. */
static void load_block(const volume_call *call, int64_t b, int64_t count, lane_block gram) {
    const int k = (int)call->k;
    for (int lane = 0; lane < LANES; lane++) {
        if (lane < count) {
            gram_of_differences(call->v + (b + lane) * k * call->d, k, call->d, lane, gram);
            continue;
        }
        for (int entry = 0; entry < at(k, 0); entry++) gram[entry][lane] = gram[entry][0];
    }
}

static void forward_block(const volume_call *call, int64_t b, int64_t count) {
    lane_block gram;
    lane_row product, loss;
    const int k = (int)call->k;
    load_block(call, b, count, gram);
    factor_block(k, gram, product, loss);
    for (int lane = 0; lane < count; lane++) {
        if (loss[lane] < MOST_LOSS)
            product[lane] = orthogonalise(call->v + (b + lane) * k * call->d, k, call->d, lane, gram, NULL);
        call->volume[b + lane] = (real)(call->eps > 0 ? hypot(product[lane], call->eps) : product[lane]);
    }
}

/* grad_v = factor * (rows of G^-1 W, and for the first row their difference); inverse is G^-1, zero or NaN. */
MOVER_HOT static void gradient_rows(const real *v, int k, int64_t d, double factor, int lane, lane_block inverse,
                                    real *grad_v) {
    double w[MOVER_MAX_K][TILE], sum[TILE], weight[MOVER_MAX_K][MOVER_MAX_K];
    for (int r = 0; r < k; r++)
        for (int s = 0; s < k; s++)
            weight[r][s] = factor == 0 ? 0 : factor * inverse[r > s ? at(r, s) : at(s, r)][lane];
    for (int r = 1; r < k; r++)
        for (int s = 0; s < k; s++) weight[0][s] -= weight[r][s];
    for (int64_t t = 0; t < d; t += TILE) {
        const int64_t count = mover_min(TILE, d - t);
        load_tile(v, k, d, t, count, w);
        for (int r = 0; r < k; r++) {
            for (int64_t q = 0; q < count; q++) sum[q] = 0;
            for (int s = 0; s < k; s++) {
                const double share = weight[r][s];
                MOVER_SIMD
                for (int64_t q = 0; q < count; q++) sum[q] += share * w[s][q];
            }
            for (int64_t q = 0; q < count; q++) grad_v[r * d + t + q] = (real)sum[q];
        }
    }
}

MOVER_HOT static void backward_block(const volume_call *call, int64_t b, int64_t count) {
    lane_block gram, factored, inverse;
    lane_row product, loss;
    const int k = (int)call->k;
    load_block(call, b, count, gram);
    factor_block(k, gram, product, loss);
    memcpy(factored, gram, sizeof gram);
    lane_inverse(k, gram, inverse);
    for (int lane = 0; lane < count; lane++) {
        const int64_t offset = (b + lane) * k * call->d;
        if (loss[lane] < MOST_LOSS)
            product[lane] = orthogonalise(call->v + offset, k, call->d, lane, factored, inverse);
        const double value = product[lane], volume = call->eps > 0 ? hypot(value, call->eps) : value;
        /* volume 0: the gradient is 0 whatever arrives */
        const double factor = value == 0 ? 0 : (double)call->grad_volume[b + lane] * (value / volume) * value;
        gradient_rows(call->v + offset, k, call->d, factor, lane, inverse, call->grad_v + offset);
    }
}

static void forward_blocks(int64_t begin, int64_t end, void *ctx) {
    const volume_call *call = ctx;
    for (int64_t block = begin; block < end; block++)
        forward_block(call, block * LANES, mover_min(LANES, call->batch - block * LANES));
}

MOVER_HOT static void backward_blocks(int64_t begin, int64_t end, void *ctx) {
    const volume_call *call = ctx;
    for (int64_t block = begin; block < end; block++)
        backward_block(call, block * LANES, mover_min(LANES, call->batch - block * LANES));
}

static mover_status run(const mover_volume_desc *desc, volume_call *call, mover_body body, const mover_exec *exec) {
    call->batch = desc->batch;
    call->k = desc->k;
    call->d = desc->d;
    call->eps = desc->eps;
    const int64_t work = LANES * desc->k * desc->k * (desc->d / 8 + desc->k);
    return mover_run(exec, 0, mover_ceil_div(desc->batch, LANES), mover_grain(work), body, call);
}

mover_status R(mover_cpu_volume_forward)(const mover_volume_desc *desc, const real *v, real *volume,
                                         const mover_exec *exec) {
    volume_call call = {.v = v, .volume = volume};
    return run(desc, &call, forward_blocks, exec);
}

mover_status R(mover_cpu_volume_backward)(const mover_volume_desc *desc, const real *v, const real *grad_volume,
                                          real *grad_v, const mover_exec *exec) {
    volume_call call = {.v = v, .grad_volume = grad_volume, .grad_v = grad_v};
    return run(desc, &call, backward_blocks, exec);
}
