/*
 * arithmetic.h: functions of CUDA that C++ does not have.
 */
#ifndef CUEMU_ARITHMETIC_H
#define CUEMU_ARITHMETIC_H

#include "language.h"

#include <math.h>

namespace cuemu {

/* An approximate result: off by up to config.ulp last digits, the same for the same value and seed. */
float approximate(float exact);

/* ex2.approx.ftz.f32 */
static inline float exp2_approximate(float x) {
    const float y = approximate(exp2f(x));
    return y < 1.17549435e-38f ? 0.0f : y;
}

template <class To, class From> To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "types differ in size");
    To to;
    std::memcpy(&to, &from, sizeof(To));
    return to;
}

} // namespace cuemu

/* ---- minimum and maximum; NaN loses against a number ---- */

#define CUEMU_MIN_MAX(type)                                                                                            \
    static inline type min(type a, type b) { return b < a ? b : a; }                                                   \
    static inline type max(type a, type b) { return a < b ? b : a; }
CUEMU_MIN_MAX(int)
CUEMU_MIN_MAX(unsigned)
CUEMU_MIN_MAX(long)
CUEMU_MIN_MAX(unsigned long)
CUEMU_MIN_MAX(long long)
CUEMU_MIN_MAX(unsigned long long)
#undef CUEMU_MIN_MAX
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

/* ---- approximate functions; macros, because libm has functions of these names ---- */

#define __expf(x) ::cuemu::approximate(expf(x))
#define __exp2f(x) ::cuemu::approximate(exp2f(x))
#define __logf(x) ::cuemu::approximate(logf(x))
#define __log2f(x) ::cuemu::approximate(log2f(x))
#define __powf(x, y) ::cuemu::approximate(powf(x, y))
static inline float __fdividef(float a, float b) { return cuemu::approximate(a / b); }
static inline float rsqrtf(float x) { return cuemu::approximate(1.0f / sqrtf(x)); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }

/* ---- correctly rounded, and never contracted ---- */

static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline double __drcp_rn(double x) { return 1.0 / x; }
static inline double __dsqrt_rn(double x) { return sqrt(x); }

/* ---- bits ---- */

static inline int __float_as_int(float x) { return cuemu::same_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return cuemu::same_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return cuemu::same_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return cuemu::same_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return cuemu::same_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return cuemu::same_bits<double>(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }

/* ---- loads and stores with a hint for the caches ---- */

template <class T> T __ldg(const T *address) { return *address; }
template <class T> T __ldcs(const T *address) { return *address; }
template <class T> T __ldcg(const T *address) { return *address; }
template <class T> T __ldca(const T *address) { return *address; }
template <class T> void __stcs(T *address, typename cuemu::same<T>::type value) { *address = value; }
template <class T> void __stcg(T *address, typename cuemu::same<T>::type value) { *address = value; }

#endif
