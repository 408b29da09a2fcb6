/*
 * volume.cu: the volume of the parallelotope spanned by the k rows of V.
 *
 *     w_1 = v_1, w_i = v_i - v_1,   G = W W^T = L D L^T
 *     forward    Vol_0 = prod_j sqrt(d_j),   Vol = sqrt(Vol_0^2 + eps^2)
 *     backward   dVol/dw = (Vol_0^2 / Vol) G^-1 w,   dVol/dv_i = dVol/dw_i,   dVol/dv_1 = dVol/dw_1 - sum_i dVol/dw_i
 *
 * All in double. The subtraction leaves the determinant as it is, and rows that nearly agree their digits. A pivot d_j
 * not above 64 k 2^-53 |w_j|^2 is rounding: Vol_0 = 0 and the gradient is 0. Where a pivot is much smaller than
 * |w_j|^2 (rows nearly in one plane), W is orthogonalised and its pivots are taken again.
 *
 * A warp has 32 / width groups, `width` lanes each, more of them the longer the rows are. Its lanes share the columns
 * of a group; their sums meet in a butterfly, which leaves the same bits in all of them, and each factorises the Gram
 * matrix in its registers. The order of the sums depends on d alone: a group has the same bits in every batch.
 */
#include "real.h"

#include "small_matrix.cuh"

#include "../src/backend.h"
#include "device.h"

enum { THREADS = 128, COLUMNS = 8 /* that a lane has, at least, before a group gets more lanes */ };

/* d_j / |w_j|^2 below which a group is orthogonalised. */
#define MOST_LOSS 0x1p-20
#define ROUNDING (32 * DBL_EPSILON)

static int width_of(int64_t d) {
    int width = 8;
    while (width < 32 && width * COLUMNS < d) width *= 2;
    return width;
}

/* Column t of W. */
template <int k>
static __device__ __forceinline__ void load_column(const real *v, int64_t d, int64_t t, double (&w)[k]) {
    MOVER_UNROLL
    for (int r = 0; r < k; r++) w[r] = (double)v[r * d + t];
    MOVER_UNROLL
    for (int r = 1; r < k; r++) w[r] -= w[0];
}

template <int k> static __device__ __forceinline__ void add_gram(const double (&w)[k], double (&gram)[at(k, 0)]) {
    MOVER_UNROLL
    for (int r = 0; r < k; r++) {
        MOVER_UNROLL
        for (int s = 0; s <= r; s++) gram[at(r, s)] += w[r] * w[s];
    }
}

/* The sums over the lanes of a group, in all of them. */
template <int entries> static __device__ __forceinline__ void sum_lanes(double (&x)[entries], int width) {
    MOVER_NO_UNROLL
    for (int offset = width / 2; offset > 0; offset /= 2) {
        MOVER_UNROLL
        for (int entry = 0; entry < entries; entry++) {
            const double other = __shfl_xor_sync(0xffffffffu, x[entry], offset);
            x[entry] += other;
        }
    }
}

/* The Gram matrix of W becomes its LDL^T. Returns prod sqrt(d_j), or 0 where a pivot is rounding, or NaN where a vector
 * is not finite. *lost: no pivot is rounding, but one is much smaller than its |w_j|^2. */
template <int k> static __device__ __forceinline__ double factor(double (&gram)[at(k, 0)], bool *lost) {
    double least[k], poison = 0, product = 1;
    MOVER_UNROLL
    for (int j = 0; j < k; j++) {
        least[j] = ROUNDING * k * gram[at(j, j)];
        poison += 0 * gram[at(j, j)];
    }
    const int order = matrix_factor<k>(gram, least);
    *lost = false;
    MOVER_UNROLL
    for (int j = 0; j < k; j++) {
        *lost = *lost || ROUNDING * k * gram[at(j, j)] < MOST_LOSS * least[j];
        product *= sqrt(gram[at(j, j)]);
    }
    *lost = *lost && order == 0;
    return (order > 0 ? 0.0 : product) + poison;
}

/* The product again, for a group that lost digits: the rows of X W, X = L^-1, are nearly orthogonal and have the same
 * determinant; H, their Gram matrix, loses nothing. With H = L' D' L'^T, x, which holds X below D, becomes L'^-1 X and
 * D', from which G^-1 is made. Groups that did not lose any go along without a change. */
template <int k>
static __device__ __forceinline__ double orthogonalise(const real *v, int64_t d, int lane, int width, bool lost,
                                                       double product, double (&x)[at(k, 0)]) {
    double h[at(k, 0)] = {};
    const double least[k] = {};
    for (int64_t t = lane; t < d; t += width) {
        double w[k];
        load_column<k>(v, d, t, w);
        MOVER_UNROLL
        for (int r = k - 1; r > 0; r--) {
            MOVER_UNROLL
            for (int s = 0; s < r; s++) w[r] += x[at(r, s)] * w[s];
        }
        add_gram<k>(w, h);
    }
    sum_lanes(h, width);
    double again = matrix_factor<k>(h, least) > 0 ? 0 : 1;
    MOVER_UNROLL
    for (int j = 0; j < k; j++) again *= again == 0 ? 0 : sqrt(h[at(j, j)]);
    matrix_invert_lower<k>(h);
    MOVER_UNROLL
    for (int r = k - 1; r >= 0; r--) {
        MOVER_UNROLL
        for (int s = 0; s < r; s++) {
            double sum = h[at(r, s)] + x[at(r, s)];
            MOVER_UNROLL
            for (int p = s + 1; p < r; p++) sum += h[at(r, p)] * x[at(p, s)];
            x[at(r, s)] = lost ? sum : x[at(r, s)];
        }
        x[at(r, r)] = lost ? h[at(r, r)] : x[at(r, r)];
    }
    return lost ? again : product;
}

/* The product of a group, all its lanes together; x becomes L^-1 below D. */
template <int k>
static __device__ __forceinline__ double product_of(const real *v, int64_t d, int lane, int width,
                                                    double (&x)[at(k, 0)]) {
    bool lost;
    MOVER_UNROLL
    for (int entry = 0; entry < at(k, 0); entry++) x[entry] = 0;
    for (int64_t t = lane; t < d; t += width) {
        double w[k];
        load_column<k>(v, d, t, w);
        add_gram<k>(w, x);
    }
    sum_lanes(x, width);
    double product = factor<k>(x, &lost);
    matrix_invert_lower<k>(x);
    const int some = __any_sync(0xffffffffu, lost);
    if (some) product = orthogonalise<k>(v, d, lane, width, lost, product, x);
    return product;
}

static __device__ __forceinline__ double with_eps(double product, double eps) {
    return eps > 0 ? hypot(product, eps) : product;
}

/* A group is read once, or twice where it is orthogonalised. A block has THREADS / width groups, no shared memory.
 * Four and five vectors: left to itself, ptxas saves registers for some devices until it spills one. */
template <int k>
static __global__ void __launch_bounds__(THREADS, k == 4 || k == 5 ? 1 : 0)
    volume_forward(int64_t batch, int64_t d, int width, double eps, const real *__restrict__ v,
                   real *__restrict__ volume) {
    const int lane = (int)threadIdx.x & (width - 1), many = THREADS / width;
    for (int64_t first = (int64_t)blockIdx.x * many; first < batch; first += (int64_t)gridDim.x * many) {
        const int64_t mine = first + threadIdx.x / width, b = mine < batch ? mine : batch - 1;
        double x[at(k, 0)];
        const double product = product_of<k>(v + b * k * d, d, lane, width, x);
        if (mine < batch && lane == 0) volume[b] = (real)with_eps(product, eps);
    }
}

/* As forward, then the rows again, from the cache, and one write of each element of the gradient. Five vectors:
 * unasked, ptxas would keep to 96 registers and spill one. */
template <int k>
static __global__ void __launch_bounds__(THREADS, k == 5 ? 1 : 0)
    volume_backward(int64_t batch, int64_t d, int width, double eps, const real *__restrict__ v,
                    const real *__restrict__ grad_volume, real *__restrict__ grad_v) {
    const int lane = (int)threadIdx.x & (width - 1), many = THREADS / width;
    for (int64_t first = (int64_t)blockIdx.x * many; first < batch; first += (int64_t)gridDim.x * many) {
        const int64_t mine = first + threadIdx.x / width, b = mine < batch ? mine : batch - 1;
        const real *rows = v + b * k * d;
        real *grad = grad_v + b * k * d;
        double weight[at(k, 0)];
        const double product = product_of<k>(rows, d, lane, width, weight);
        /* volume 0: the gradient is 0 whatever arrives */
        const double scale = product == 0 ? 0 : (double)grad_volume[b] * (product / with_eps(product, eps)) * product;
        matrix_inverse<k>(weight);
        MOVER_UNROLL
        for (int entry = 0; entry < at(k, 0); entry++) weight[entry] = scale == 0 ? 0 : scale * weight[entry];
        if (mine >= batch) continue;
        for (int64_t t = lane; t < d; t += width) {
            double w[k], of_first = 0;
            load_column<k>(rows, d, t, w);
            MOVER_UNROLL
            for (int r = k - 1; r >= 0; r--) {
                double sum = 0;
                MOVER_UNROLL
                for (int s = 0; s < k; s++) sum += weight[r > s ? at(r, s) : at(s, r)] * w[s];
                of_first = r > 0 ? of_first - sum : of_first + sum;
                grad[r * d + t] = (real)(r > 0 ? sum : of_first);
            }
        }
    }
}

/* ---- launches ----------------------------------------------------------------------------------------------------
 */

typedef struct volume_call {
    int64_t batch, d;
    double eps;
    const real *v, *grad_volume;
    real *volume, *grad_v; /* one of them is NULL */
} volume_call;

template <int k> static cudaError_t launch(const volume_call *call, cudaStream_t stream) {
    const int width = width_of(call->d);
    const unsigned blocks = mover_blocks(mover_ceil_div(call->batch, THREADS / width), MOVER_MOST_BLOCKS);
    if (call->volume)
        return MOVER_LAUNCH(volume_forward<k>, blocks, THREADS, 0, stream, call->batch, call->d, width, call->eps,
                            call->v, call->volume);
    return MOVER_LAUNCH(volume_backward<k>, blocks, THREADS, 0, stream, call->batch, call->d, width, call->eps, call->v,
                        call->grad_volume, call->grad_v);
}

static cudaError_t launch_any(int64_t k, const volume_call *call, cudaStream_t stream) {
    static cudaError_t (*const launches[])(const volume_call *, cudaStream_t) = {
        launch<1>, launch<2>, launch<3>, launch<4>, launch<5>, launch<6>, launch<7>, launch<8>};
    return launches[k - 1](call, stream);
}

mover_status R(mover_cuda_volume_forward)(const mover_volume_desc *desc, const real *v, real *volume,
                                          const mover_exec *exec) {
    const volume_call call = {desc->batch, desc->d, desc->eps, v, NULL, volume, NULL};
    return mover_cuda_check("mover_volume_forward", launch_any(desc->k, &call, mover_stream(exec)));
}

mover_status R(mover_cuda_volume_backward)(const mover_volume_desc *desc, const real *v, const real *grad_volume,
                                           real *grad_v, const mover_exec *exec) {
    const volume_call call = {desc->batch, desc->d, desc->eps, v, grad_volume, NULL, grad_v};
    return mover_cuda_check("mover_volume_backward", launch_any(desc->k, &call, mover_stream(exec)));
}
