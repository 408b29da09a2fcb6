/*
 * atomic.h: atomic operations on 4 and 8 bytes. Threads are fibers of one thread of the host: that nothing comes
 * between is given; the race detector is told that the access is atomic.
 */
#ifndef CUEMU_ATOMIC_H
#define CUEMU_ATOMIC_H

#include "language.h"

namespace cuemu {

void atomic_access(const volatile void *address, size_t bytes, const void *caller);

} // namespace cuemu

/* Not inlined, so that the caller of the function is the line of the kernel. */
#define CUEMU_ATOMIC(name, result)                                                                                     \
    template <class T>                                                                                                 \
    __attribute__((noinline, no_sanitize("thread"))) T name(T *address, typename cuemu::same<T>::type value) {         \
        static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomic operations are on 4 or 8 bytes");                      \
        cuemu::atomic_access(address, sizeof(T), __builtin_return_address(0));                                         \
        const T old = *address;                                                                                        \
        *address = result;                                                                                             \
        return old;                                                                                                    \
    }
CUEMU_ATOMIC(atomicAdd, old + value)
CUEMU_ATOMIC(atomicSub, old - value)
CUEMU_ATOMIC(atomicExch, value)
CUEMU_ATOMIC(atomicMin, value < old ? value : old)
CUEMU_ATOMIC(atomicMax, old < value ? value : old)
CUEMU_ATOMIC(atomicAnd, old &value)
CUEMU_ATOMIC(atomicOr, old | value)
CUEMU_ATOMIC(atomicXor, old ^ value)
CUEMU_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
#undef CUEMU_ATOMIC

template <class T>
__attribute__((noinline, no_sanitize("thread"))) T atomicCAS(T *address, typename cuemu::same<T>::type expected,
                                                             typename cuemu::same<T>::type value) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomic operations are on 4 or 8 bytes");
    cuemu::atomic_access(address, sizeof(T), __builtin_return_address(0));
    const T old = *address;
    if (!std::memcmp(&old, &expected, sizeof(T))) *address = value;
    return old;
}

#endif
