/*
 * warp.h: operations of a warp. Lanes meet at them; every lane of the mask that has not returned must come, by the
 * same line and with the same mask. Only __syncwarp orders memory.
 */
#ifndef CUEMU_WARP_H
#define CUEMU_WARP_H

#include "block.h"

#include <type_traits>

namespace cuemu {

/* Lanes in `lanes` have met; the operation reads their inputs and fills their outputs. */
struct warp_call {
    unsigned lanes;
    const void *input[32];
    void *output[32];
    const thread_position *thread[32];
    const char *file;
    int line;
};
typedef void (*warp_operation)(warp_call &call);

void meet_in_warp(const char *name, unsigned mask, const void *input, void *output, warp_operation operation,
                  bool orders_memory, const char *file, int line);
/* Reports that `lane` reads `source`, which takes no part. */
void report_absent_lane(const warp_call &call, int lane, int source);

static inline bool takes_part(unsigned lanes, int lane) { return lanes >> lane & 1; }

/* ---- shuffles: each lane names its source ---- */

template <class T> struct shuffle_input {
    T value;
    int source;
};

template <class T> void shuffle_lanes(warp_call &call) {
    for (int lane = 0; lane < 32; lane++) {
        if (!takes_part(call.lanes, lane)) continue;
        const int source = static_cast<const shuffle_input<T> *>(call.input[lane])->source;
        if (takes_part(call.lanes, source)) {
            *static_cast<T *>(call.output[lane]) = static_cast<const shuffle_input<T> *>(call.input[source])->value;
        } else {
            std::memset(call.output[lane], 0xff, sizeof(T));
            report_absent_lane(call, lane, source);
        }
    }
}

template <class T> T shuffle(const char *name, unsigned mask, T value, int source, const char *file, int line) {
    static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8), "CUDA shuffles no such type");
    const shuffle_input<T> input = {value, source};
    T output;
    meet_in_warp(name, mask, &input, &output, &shuffle_lanes<T>, false, file, line);
    return output;
}

static inline int own_lane() { return static_cast<int>(current->lane); }

/* The first lane of the caller's segment of `width` lanes. */
static inline int segment(int width, const char *file, int line) {
    if (width < 1 || width > 32 || (width & (width - 1))) trap("a shuffle whose width is no power of two", file, line);
    return own_lane() & ~(width - 1);
}

/* ---- votes and sums ---- */

static inline void ballot_lanes(warp_call &call) {
    unsigned ballot = 0;
    for (int lane = 0; lane < 32; lane++)
        if (takes_part(call.lanes, lane) && *static_cast<const int *>(call.input[lane])) ballot |= 1u << lane;
    for (int lane = 0; lane < 32; lane++)
        if (takes_part(call.lanes, lane)) *static_cast<unsigned *>(call.output[lane]) = ballot;
}

static inline unsigned ballot(const char *name, unsigned mask, int predicate, const char *file, int line) {
    unsigned output;
    meet_in_warp(name, mask, &predicate, &output, &ballot_lanes, false, file, line);
    return output;
}

static inline void no_operation(warp_call &) {}

template <class T, T (*combine)(T, T)> void reduce_lanes(warp_call &call) {
    const int first = __builtin_ctz(call.lanes);
    T result = *static_cast<const T *>(call.input[first]);
    for (int lane = first + 1; lane < 32; lane++)
        if (takes_part(call.lanes, lane)) result = combine(result, *static_cast<const T *>(call.input[lane]));
    for (int lane = first; lane < 32; lane++)
        if (takes_part(call.lanes, lane)) *static_cast<T *>(call.output[lane]) = result;
}

template <class T> T add_of(T a, T b) { return a + b; }
template <class T> T min_of(T a, T b) { return b < a ? b : a; }
template <class T> T max_of(T a, T b) { return a < b ? b : a; }
template <class T> T and_of(T a, T b) { return a & b; }
template <class T> T or_of(T a, T b) { return a | b; }
template <class T> T xor_of(T a, T b) { return a ^ b; }

} // namespace cuemu

template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUEMU_PLACE) {
    const int from = cuemu::segment(width, file, line) + (source & (width - 1));
    return cuemu::shuffle("__shfl_sync", mask, value, from, file, line);
}
/* A source beyond the segment is the lane itself; XOR may reach into segments before. */
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, CUEMU_PLACE) {
    const int lane = cuemu::own_lane(), from = lane ^ bits;
    return cuemu::shuffle("__shfl_xor_sync", mask, value,
                          from < cuemu::segment(width, file, line) + width ? from : lane, file, line);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUEMU_PLACE) {
    const int lane = cuemu::own_lane(), from = lane + static_cast<int>(delta);
    return cuemu::shuffle("__shfl_down_sync", mask, value,
                          from < cuemu::segment(width, file, line) + width ? from : lane, file, line);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUEMU_PLACE) {
    const int lane = cuemu::own_lane(), from = lane - static_cast<int>(delta);
    return cuemu::shuffle("__shfl_up_sync", mask, value, from >= cuemu::segment(width, file, line) ? from : lane, file,
                          line);
}

static inline void __syncwarp(unsigned mask = 0xffffffffu, CUEMU_PLACE) {
    cuemu::meet_in_warp("__syncwarp", mask, nullptr, nullptr, &cuemu::no_operation, true, file, line);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, CUEMU_PLACE) {
    return cuemu::ballot("__ballot_sync", mask, predicate, file, line);
}
static inline int __any_sync(unsigned mask, int predicate, CUEMU_PLACE) {
    return cuemu::ballot("__any_sync", mask, predicate, file, line) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, CUEMU_PLACE) {
    return cuemu::ballot("__all_sync", mask, !predicate, file, line) == 0;
}

#define CUEMU_REDUCTION(name, combine)                                                                                 \
    template <class T> T name(unsigned mask, T value, CUEMU_PLACE) {                                                   \
        static_assert(std::is_integral<T>::value && sizeof(T) == 4, "CUDA reduces integers of 32 bits");               \
        T output;                                                                                                      \
        cuemu::meet_in_warp(#name, mask, &value, &output, &cuemu::reduce_lanes<T, &cuemu::combine<T>>, false, file,    \
                            line);                                                                                     \
        return output;                                                                                                 \
    }
CUEMU_REDUCTION(__reduce_add_sync, add_of)
CUEMU_REDUCTION(__reduce_min_sync, min_of)
CUEMU_REDUCTION(__reduce_max_sync, max_of)
CUEMU_REDUCTION(__reduce_and_sync, and_of)
CUEMU_REDUCTION(__reduce_or_sync, or_of)
CUEMU_REDUCTION(__reduce_xor_sync, xor_of)
#undef CUEMU_REDUCTION

#endif
