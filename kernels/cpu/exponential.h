/*
 * exponential.h: exp(x) for x <= 700 (double) or 80 (float), as arithmetic that a compiler vectorises.
 *
 *     exp(x) = 2^k p(r),   k = round(x / ln 2),   r = x - k ln 2 in [-ln 2 / 2, ln 2 / 2]
 *
 * p is the minimax polynomial of degree 6 (float, error 2e-9) or the Taylor polynomial of degree 13 (double, error
 * 4e-18). Below -80 (double) or -64 (float) the result is 0: the tails of a plan never become denormal numbers, on
 * which a CPU is slow, nor do their products with masses and scales. Included after real.h.
 */
#ifndef MOVER_CPU_EXPONENTIAL_H
#define MOVER_CPU_EXPONENTIAL_H

#include <stdint.h>
#include <string.h>

#if MOVER_REAL_BITS == 32
static const float EXPONENTIAL_LEAST = -65;
static const float EXPONENT_LEAST = -93; /* about -64 / ln 2 */

MOVER_INLINE float exponential(float x) {
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, kept in the low bits */
    const float above = x > EXPONENTIAL_LEAST ? x : EXPONENTIAL_LEAST, clamped = above < 80 ? above : 80;
    const float shifted = clamped * 1.44269504f + shift;
    const float k = shifted - shift;
    const float r = (clamped - k * 0.693359375f) + k * 2.12194440e-4f;
    float p = 0.00138368461f;
    p = p * r + 0.00837481580f;
    p = p * r + 0.0416682256f;
    p = p * r + 0.166664202f;
    p = p * r + 0.499999921f;
    p = p * r + 1.00000004f;
    p = p * r + 1.0f;
    uint32_t exponent, bits;
    memcpy(&exponent, &shifted, sizeof exponent);
    memcpy(&bits, &p, sizeof bits);
    bits += exponent << 23;
    memcpy(&p, &bits, sizeof p);
    return k > EXPONENT_LEAST ? p : 0;
}
#else
static const double EXPONENTIAL_LEAST = -81;
static const double EXPONENT_LEAST = -116; /* about -80 / ln 2 */

MOVER_INLINE double exponential(double x) {
    const double shift = 6755399441055744.0; /* 1.5 * 2^52 */
    const double above = x > EXPONENTIAL_LEAST ? x : EXPONENTIAL_LEAST, clamped = above < 700 ? above : 700;
    const double shifted = clamped * 1.4426950408889634 + shift;
    const double k = shifted - shift;
    const double r = (clamped - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    uint64_t exponent, bits;
    memcpy(&exponent, &shifted, sizeof exponent);
    memcpy(&bits, &p, sizeof bits);
    bits += exponent << 52;
    memcpy(&p, &bits, sizeof p);
    return k > EXPONENT_LEAST ? p : 0;
}
#endif

#endif
