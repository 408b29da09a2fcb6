/*
 * real.h: one source, two precisions.
 *
 * Every .cu file is compiled twice, with MOVER_REAL_BITS 32 and 64. `real` is the scalar type and R(name) the name with
 * its suffix, _f32 or _f64.
 */
#ifndef MOVER_CUDA_REAL_H
#define MOVER_CUDA_REAL_H

#include <float.h>
#include <math.h>

#if MOVER_REAL_BITS == 32
typedef float real;
typedef float4 real_vector; /* 16 bytes */
#define R(name) name##_f32
#define REAL_EPSILON FLT_EPSILON
#define REAL_MAX FLT_MAX
#define REAL_DTYPE MOVER_FLOAT32
#elif MOVER_REAL_BITS == 64
typedef double real;
typedef double2 real_vector;
#define R(name) name##_f64
#define REAL_EPSILON DBL_EPSILON
#define REAL_MAX DBL_MAX
#define REAL_DTYPE MOVER_FLOAT64
#else
#error "compile with MOVER_REAL_BITS=32 or 64"
#endif

enum { REALS_PER_VECTOR = 16 / (int)sizeof(real) };

#endif
