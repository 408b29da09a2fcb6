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

struct mma_input {
    float a[4], b[2], d[4];
};

static inline void multiply_fragments(warp_call &call) {
    float a[16][8], b[8][8], d[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const mma_input &in = *static_cast<const mma_input *>(call.input[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {
            a[g + i % 2 * 8][t + i / 2 * 4] = truncate_to_tf32(in.a[i]);
            d[g + i / 2 * 8][2 * t + i % 2] = in.d[i];
        }
        for (int i = 0; i < 2; i++) b[t + i * 4][g] = truncate_to_tf32(in.b[i]);
    }
    for (int row = 0; row < 16; row++)
        for (int column = 0; column < 8; column++) {
            float sum = d[row][column];
            for (int k = 0; k < 8; k++) sum += a[row][k] * b[k][column];
            d[row][column] = sum;
        }
    for (int lane = 0; lane < 32; lane++) {
        float *out = static_cast<float *>(call.output[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) out[i] = d[g + i / 2 * 8][2 * t + i % 2];
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
