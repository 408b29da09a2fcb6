/*
 * real.h: one source, two precisions.
 *
 * Every file of kernels/cpu is compiled twice, with MOVER_REAL_BITS 32 and 64. `real` is the scalar type and
 * R(name) the name with its suffix, _f32 or _f64.
 */
#ifndef MOVER_CPU_REAL_H
#define MOVER_CPU_REAL_H

#include <float.h>
#include <math.h>

#if MOVER_REAL_BITS == 32
typedef float real;
#define R(name) name##_f32
#define REAL_EPSILON FLT_EPSILON
#define REAL_MAX FLT_MAX
#define REAL_DTYPE MOVER_FLOAT32
#define real_sqrt sqrtf
#define real_fabs fabsf
#define real_log logf
#elif MOVER_REAL_BITS == 64
typedef double real;
#define R(name) name##_f64
#define REAL_EPSILON DBL_EPSILON
#define REAL_MAX DBL_MAX
#define REAL_DTYPE MOVER_FLOAT64
#define real_sqrt sqrt
#define real_fabs fabs
#define real_log log
#else
#error "compile with MOVER_REAL_BITS=32 or 64"
#endif

/* Compiled once for each instruction set and chosen when the library is loaded. Hot loops carry it; what they inline
 * must be MOVER_INLINE. */
#if defined(MOVER_TARGET_CLONES)
#define MOVER_HOT __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MOVER_HOT
#endif

/* Inlined whatever its size: left out of line, it would be compiled for the lowest instruction set only. */
#define MOVER_INLINE static inline __attribute__((always_inline))

/* A loop whose iterations are independent but for the sums named in it. */
#define MOVER_PRAGMA(text) _Pragma(#text)
#define MOVER_SIMD MOVER_PRAGMA(omp simd)
#define MOVER_SIMD_SUM(...) MOVER_PRAGMA(omp simd reduction(+ : __VA_ARGS__))

#endif
