/*
 * hooks.cpp: what code compiled with -fsanitize=thread calls at every access. libtsan, which has functions of the same
 * names, is not linked.
 */
#include "emulator.h"

using namespace cuemu;

static inline void hook(void *address, size_t bytes, bool write, const void *caller) {
    if (current) race_access({reinterpret_cast<uintptr_t>(address), bytes, write, false, code_offset(caller)});
}

static inline void aligned_hook(void *address, size_t bytes, bool write, const void *caller) {
    if (!current) return;
    const cuemu::access a = {reinterpret_cast<uintptr_t>(address), bytes, write, false, code_offset(caller)};
    if (a.address % bytes) race_misaligned(a);
    race_access(a);
}

#define CUEMU_HERE __builtin_return_address(0)
#define CUEMU_HOOKS(bytes)                                                                                             \
    void __tsan_read##bytes(void *p) { aligned_hook(p, bytes, false, CUEMU_HERE); }                                    \
    void __tsan_write##bytes(void *p) { aligned_hook(p, bytes, true, CUEMU_HERE); }                                    \
    void __tsan_unaligned_read##bytes(void *p) { hook(p, bytes, false, CUEMU_HERE); }                                  \
    void __tsan_unaligned_write##bytes(void *p) { hook(p, bytes, true, CUEMU_HERE); }                                  \
    void __tsan_volatile_read##bytes(void *p) { aligned_hook(p, bytes, false, CUEMU_HERE); }                           \
    void __tsan_volatile_write##bytes(void *p) { aligned_hook(p, bytes, true, CUEMU_HERE); }
extern "C" {
CUEMU_HOOKS(1)
CUEMU_HOOKS(2)
CUEMU_HOOKS(4)
CUEMU_HOOKS(8)
CUEMU_HOOKS(16)
void __tsan_read_range(void *p, unsigned long bytes) { hook(p, bytes, false, CUEMU_HERE); }
void __tsan_write_range(void *p, unsigned long bytes) { hook(p, bytes, true, CUEMU_HERE); }
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
