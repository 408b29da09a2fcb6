/*
 * language.h: keywords, vector types and built-in variables of CUDA C++.
 */
#ifndef CUEMU_LANGUAGE_H
#define CUEMU_LANGUAGE_H

#include <cstddef>
#include <cstdint>
#include <cstring>

/* There is no __shared__: shared memory is declared by the macros of portable.h, which ask for it by name. */
#define __global__
#define __device__
#define __host__
#define __constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#ifndef __restrict__
#define __restrict__ __restrict
#endif

#define CUEMU_VECTORS(type, name, align2, align4)                                                                      \
    struct name##1 {                                                                                                   \
        type x;                                                                                                        \
    };                                                                                                                 \
    struct __align__(align2) name##2 {                                                                                 \
        type x, y;                                                                                                     \
    };                                                                                                                 \
    struct name##3 {                                                                                                   \
        type x, y, z;                                                                                                  \
    };                                                                                                                 \
    struct __align__(align4) name##4 {                                                                                 \
        type x, y, z, w;                                                                                               \
    };                                                                                                                 \
    static inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                            \
    static inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                                 \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
CUEMU_VECTORS(float, float, 8, 16)
CUEMU_VECTORS(double, double, 16, 16)
CUEMU_VECTORS(int, int, 8, 16)
CUEMU_VECTORS(unsigned, uint, 8, 16)
CUEMU_VECTORS(long long, longlong, 16, 16)
CUEMU_VECTORS(unsigned long long, ulonglong, 16, 16)
CUEMU_VECTORS(unsigned char, uchar, 2, 4)
CUEMU_VECTORS(unsigned short, ushort, 4, 8)
#undef CUEMU_VECTORS

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace cuemu {

struct block_position {
    uint3 index;
    dim3 size, grid;
};
struct thread_position {
    uint3 index;
    unsigned number, warp, lane; /* number = 32 warp + lane, within the block */
    const block_position *block;
};

/* The thread of the device that runs now; NULL in host code. */
extern thread_position *current;

/* Keeps a parameter out of template deduction: it converts as an ordinary argument does. */
template <class T> struct same { typedef T type; };

} // namespace cuemu

#define threadIdx (::cuemu::current->index)
#define blockIdx (::cuemu::current->block->index)
#define blockDim (::cuemu::current->block->size)
#define gridDim (::cuemu::current->block->grid)
#define warpSize 32

/* The last two parameters of what has to know the line that calls it. */
#define CUEMU_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

#endif
