/*
 * tensor.h: the tensor unit: TF32 and the product of fragments that a warp holds.
 */
#ifndef CUEMU_TENSOR_H
#define CUEMU_TENSOR_H

#include "arithmetic.h"
#include "warp.h"

namespace cuemu {

/* cvt.rna.tf32.f32: 10 bits of mantissa, to nearest, ties away from zero; infinities and NaN as they are. */
static inline float round_to_tf32(float x) {
    const unsigned bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return x;
    return __uint_as_float((bits + 0x1000u) & 0xffffe000u);
}

/* What the unit reads of a factor: the upper 19 bits. */
static inline float truncate_to_tf32(float x) {
    const unsigned bits = __float_as_uint(x);
    if (x != x) return x;
    return __uint_as_float(bits & 0xffffe000u);
}

/* 2^exponent, for normal numbers. */
static inline double power_of_two(int exponent) {
    return same_bits<double>(static_cast<long long>(exponent + 1023) << 52);
}

/* The sum of a float and 8 products of TF32 numbers. Terms are aligned to the largest, cut to one bit more than a float
 * has, added, and the sum is cut to a float: nothing is rounded to nearest, which is the worst to expect of a unit. */
static inline float add_aligned(float sum, const float (&a)[8], const float (&b)[8]) {
    double terms[9], largest = 0;
    for (int k = 0; k < 8; k++) terms[k] = static_cast<double>(a[k]) * static_cast<double>(b[k]);
    terms[8] = sum;
    for (const double term : terms) largest = fabs(term) > largest || term != term ? fabs(term) : largest;
    if (!(largest <= 1e37) || largest < 1e-37) {
        for (int k = 0; k < 8; k++) sum += a[k] * b[k];
        return sum;
    }
    const int exponent = static_cast<int>(__double_as_longlong(largest) >> 52) - 1023;
    const double unit = power_of_two(exponent - 24);
    long long units = 0;
    for (const double term : terms) units += static_cast<long long>(term / unit);
    const double cut = static_cast<double>(units) * unit;
    return static_cast<float>(__longlong_as_double(__double_as_longlong(cut) & ~((1ll << 29) - 1)));
}

struct mma_input {
    float a[4], b[2], d[4];
};

static inline void multiply_fragments(warp_call &call) {
    float a[16][8], b[8][8], d[16][8]; /* b by columns */
    for (int lane = 0; lane < 32; lane++) {
        const mma_input &in = *static_cast<const mma_input *>(call.input[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {
            a[g + i % 2 * 8][t + i / 2 * 4] = truncate_to_tf32(in.a[i]);
            d[g + i / 2 * 8][2 * t + i % 2] = in.d[i];
        }
        for (int i = 0; i < 2; i++) b[g][t + i * 4] = truncate_to_tf32(in.b[i]);
    }
    for (int lane = 0; lane < 32; lane++) {
        float *out = static_cast<float *>(call.output[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {
            const int row = g + i / 2 * 8, column = 2 * t + i % 2;
            out[i] = add_aligned(d[row][column], a[row], b[column]);
        }
    }
}

/* mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32: d += a b, fragments as in portable.h. */
static inline void mma_m16n8k8_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2], const char *file,
                                    int line) {
    const mma_input input = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {d[0], d[1], d[2], d[3]}};
    meet_in_warp("mma.m16n8k8.tf32", 0xffffffffu, &input, d, &multiply_fragments, false, file, line);
}

} // namespace cuemu

#endif
