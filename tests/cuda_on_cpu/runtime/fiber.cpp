/*
 * fiber.cpp: stacks, and the switch between the scheduler and a fiber.
 *
 * On x86-64 a switch saves the six registers that a called function must keep and the stack pointer; elsewhere it is
 * swapcontext(). A page that nobody may touch lies below every stack. Tops of stacks are staggered, so that the busy
 * ends of hundreds of stacks do not compete for the same lines of the caches.
 */
#include "emulator.h"

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

#if !defined(__x86_64__) && !defined(CUEMU_UCONTEXT)
#define CUEMU_UCONTEXT
#endif
#if defined(CUEMU_UCONTEXT)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuemu {

static char *stacks;
static size_t stack_count, stack_stride;
static fiber scheduler;
static fiber *running;

#if defined(__SANITIZE_ADDRESS__)
static const void *scheduler_stack;
static size_t scheduler_stack_bytes;
#endif

/* ---- the switch ---- */

#if defined(CUEMU_UCONTEXT)

static ucontext_t *context_of(fiber &f) {
    if (!f.fallback_context) f.fallback_context = new ucontext_t;
    return static_cast<ucontext_t *>(f.fallback_context);
}

static void switch_machine(fiber &from, fiber &to) { swapcontext(context_of(from), context_of(to)); }

static void prepare_machine(fiber &f, void (*entry)()) {
    ucontext_t *context = context_of(f);
    getcontext(context);
    context->uc_stack.ss_sp = f.stack;
    context->uc_stack.ss_size = f.stack_bytes;
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
}

#else

extern "C" void cuemu_switch(void **save, void *load);
asm(R"(
.text
.p2align 4
.hidden cuemu_switch
.globl cuemu_switch
.type cuemu_switch, @function
cuemu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuemu_switch, . - cuemu_switch
)");

static void switch_machine(fiber &from, fiber &to) { cuemu_switch(&from.stack_pointer, to.stack_pointer); }

/* What cuemu_switch pops: six registers, then where to go on. Functions expect a stack that is 8 off 16 bytes. */
static void prepare_machine(fiber &f, void (*entry)()) {
    void **top = reinterpret_cast<void **>(f.stack + f.stack_bytes) - 1;
    *top = nullptr;
    *--top = reinterpret_cast<void *>(entry);
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    f.stack_pointer = top;
}

#endif

/* ---- stacks ---- */

static size_t stack_size() {
#if defined(__SANITIZE_ADDRESS__)
    return 4 * config.stack_bytes;
#else
    return config.stack_bytes;
#endif
}

void reserve_stacks(size_t count) {
    const size_t stride = (stack_size() + PAGE - 1) / PAGE * PAGE + PAGE;
    if (count <= stack_count && stride == stack_stride) return;
    if (stacks) munmap(stacks, stack_count * stack_stride);
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *memory = mmap(nullptr, count * stride, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) {
        perror("cuda_on_cpu: no memory for the stacks of threads");
        exit(2);
    }
    stacks = static_cast<char *>(memory);
    stack_count = count;
    stack_stride = stride;
    for (size_t i = 0; i < count; i++) mprotect(stacks + i * stride, PAGE, PROT_NONE);
}

void prepare_fiber(fiber &f, size_t index, void (*entry)()) {
    f.stack = stacks + index * stack_stride + PAGE;
    f.stack_bytes = stack_stride - PAGE - index % 31 * 128;
    f.sanitizer_state = nullptr;
    prepare_machine(f, entry);
}

bool on_any_stack(uintptr_t address) {
    return address - reinterpret_cast<uintptr_t>(stacks) < stack_count * stack_stride;
}

void forget_fibers() { CUEMU_UNPOISON(stacks, stack_count * stack_stride); }

/* ---- entering and leaving; AddressSanitizer has to know which stack is in use ---- */

void enter_fiber(fiber &f) {
    running = &f;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&scheduler.sanitizer_state, f.stack, f.stack_bytes);
#endif
    switch_machine(scheduler, f);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(scheduler.sanitizer_state, nullptr, nullptr);
#endif
    running = nullptr;
}

void arrive_in_fiber() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(running->sanitizer_state, &scheduler_stack, &scheduler_stack_bytes);
#endif
}

void leave_fiber(bool for_good) {
    fiber &f = *running;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(for_good ? nullptr : &f.sanitizer_state, scheduler_stack, scheduler_stack_bytes);
#else
    (void)for_good;
#endif
    switch_machine(f, scheduler);
    arrive_in_fiber();
}

} // namespace cuemu
