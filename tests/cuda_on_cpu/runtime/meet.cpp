/*
 * meet.cpp: where threads wait for each other: barriers of a block and of the grid, operations of a warp.
 *
 * Who comes last checks that all wait for the same, at the same line, and releases them.
 */
#include "emulator.h"

#include <cstring>

namespace cuemu {

static bool same_text(const char *a, const char *b) { return a == b || !strcmp(a, b); }
bool same_place(const place &a, const place &b) { return a.line == b.line && same_text(a.file, b.file); }

/* Waits until the scheduler says READY. The last to come would always be the first to go on; only in order may it. */
static void go_on() {
    if (config.order != FORWARD || this_thread().state != READY) leave_fiber(false);
}

/* ---- the barrier of a block ---- */

static const thread *find_thread(const block_run &block, thread_state state) {
    for (const thread &t : block.threads)
        if (t.state == state) return &t;
    return nullptr;
}

/* All live threads of the block wait at its barrier. */
static void release_block(block_run &block) {
    const thread &first = *find_thread(block, AT_BLOCK_BARRIER);
    int true_predicates = 0;
    for (const thread &t : block.threads) {
        if (t.state != AT_BLOCK_BARRIER) {
            report(BARRIER,
                   "barrier at " + place_text(first.where) + " although a thread has returned: " + describe(t));
            abandon_launch();
        }
        if (!same_place(t.where, first.where) || t.barrier != first.barrier) {
            report(BARRIER, describe(first) + " waits at " + place_text(first.where) + ", " + describe(t) + " at " +
                                place_text(t.where));
            abandon_launch();
        }
        true_predicates += t.predicate != 0;
    }
    const int all = true_predicates == static_cast<int>(block.threads.size());
    for (thread &t : block.threads) {
        t.barrier_result = t.barrier == BARRIER_COUNT ? true_predicates
                           : t.barrier == BARRIER_AND ? all
                                                      : true_predicates > 0;
        t.state = READY;
    }
    block.arrived = 0;
    race_block_barrier(block);
}

int block_barrier(barrier_kind kind, int predicate, const char *file, int line) {
    thread &t = this_thread();
    block_run &block = this_block();
    t.state = AT_BLOCK_BARRIER;
    t.barrier = kind;
    t.predicate = predicate;
    t.where = {file, line};
    if (++block.arrived == block.live) release_block(block);
    go_on();
    return t.barrier_result;
}

/* ---- the barrier of a grid ---- */

static const thread *find_at_grid_barrier() {
    const thread *found = nullptr;
    for (const block_run &block : now.slots)
        if (block.launch && !found) found = find_thread(block, AT_GRID_BARRIER);
    return found;
}

/* All live threads of the launch wait at its barrier. */
static void release_grid() {
    const thread &first = *find_at_grid_barrier();
    const long returned = now.launch->threads - now.launch->live;
    if (returned > 0) {
        report(BARRIER, now.launch->name + text(": grid barrier although %ld threads have returned, at ", returned) +
                            place_text(first.where));
        abandon_launch();
    }
    for (const block_run &block : now.slots) {
        if (!block.launch) continue;
        for (const thread &t : block.threads)
            if (!same_place(t.where, first.where)) {
                report(BARRIER, describe(first) + " waits for the grid at " + place_text(first.where) + ", " +
                                    describe(t) + " at " + place_text(t.where));
                abandon_launch();
            }
    }
    for (block_run &block : now.slots)
        if (block.launch)
            for (thread &t : block.threads) t.state = READY;
    now.launch->at_grid_barrier = 0;
    race_grid_barrier();
}

void grid_barrier(const char *file, int line) {
    thread &t = this_thread();
    t.where = {file, line};
    if (!now.launch->request.cooperative) {
        report(BARRIER,
               "grid barrier at " + place_text(t.where) + " in a launch that is not cooperative: " + describe(t));
        abandon_launch();
    }
    t.state = AT_GRID_BARRIER;
    if (++now.launch->at_grid_barrier == now.launch->live) release_grid();
    go_on();
}

/* ---- operations of a warp ---- */

static bool same_operation(const thread &a, const thread &b) {
    return a.mask == b.mask && a.operation == b.operation && same_text(a.operation_name, b.operation_name) &&
           same_place(a.where, b.where);
}

[[noreturn]] static void disagree(const thread &a, const thread &b) {
    const std::string mine = text("%s, mask %08x at ", a.operation_name, a.mask) + place_text(a.where);
    if (b.state == AT_WARP)
        report(WARP, describe(a) + " is in " + mine +
                         text(", lane %u in %s, mask %08x at ", b.lane, b.operation_name, b.mask) +
                         place_text(b.where));
    else
        report(WARP,
               describe(a) + " is in " + mine + text(", lane %u at the barrier at ", b.lane) + place_text(b.where));
    abandon_launch();
}

/* Carries out the operation that `t` is in, if every lane that it names and that has not returned is there. */
static bool try_warp(block_run &block, thread &t) {
    warp_state &warp = block.warps[t.warp];
    thread *lanes = &block.threads[t.warp * 32];
    const unsigned needed = t.mask & warp.alive, there = needed & warp.waiting;
    /* Until all are there, one of them is enough to compare with. */
    const unsigned others = there & ~(1u << t.lane);
    for (unsigned rest = others; rest; rest = there == needed ? rest & (rest - 1) : 0)
        if (!same_operation(t, lanes[__builtin_ctz(rest)])) disagree(t, lanes[__builtin_ctz(rest)]);
    if (there != needed) return false;
    warp_call call;
    call.lanes = needed;
    call.file = t.where.file;
    call.line = t.where.line;
    for (unsigned rest = needed; rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        call.input[lane] = lanes[lane].input;
        call.output[lane] = lanes[lane].output;
        call.thread[lane] = &lanes[lane];
    }
    thread_position *const self = current;
    current = nullptr; /* what the operation reads and writes is no access of the kernel */
    t.operation(call);
    current = self;
    if (t.orders_memory) race_warp_barrier(block, t.warp, needed);
    for (unsigned rest = needed; rest; rest &= rest - 1) lanes[__builtin_ctz(rest)].state = READY;
    warp.waiting &= ~needed;
    return true;
}

void meet_in_warp(const char *name, unsigned mask, const void *input, void *output, warp_operation operation,
                  bool orders_memory, const char *file, int line) {
    thread &t = this_thread();
    block_run &block = this_block();
    t.state = AT_WARP;
    t.where = {file, line};
    t.operation_name = name;
    t.mask = mask;
    t.operation = operation;
    t.input = input;
    t.output = output;
    t.orders_memory = orders_memory;
    block.warps[t.warp].waiting |= 1u << t.lane;
    if (!takes_part(mask, static_cast<int>(t.lane))) {
        report(WARP, describe(t) + text(" calls %s with mask %08x, which it is not part of, at ", name, mask) +
                         place_text(t.where));
        abandon_launch();
    }
    try_warp(block, t);
    go_on();
}

void report_absent_lane(const warp_call &call, int lane, int source) {
    report(WARP, describe(static_cast<const thread &>(*call.thread[lane])) +
                     text(" reads lane %d, which takes no part, at ", source) + place_text({call.file, call.line}));
}

void fence() { race_fence(this_thread()); }

void trap(const char *what, const char *file, int line) {
    report(BOUNDS, std::string(what) + " at " + place_text({file, line}) + " by " + describe(this_thread()));
    abandon_launch();
}

/* ---- threads that end ---- */

void wait_no_longer_for(const thread &t, block_run &block) {
    warp_state &warp = block.warps[t.warp];
    warp.alive &= ~(1u << t.lane);
    if (block.arrived && block.arrived == block.live) release_block(block);
    if (now.launch->at_grid_barrier && now.launch->at_grid_barrier == now.launch->live) release_grid();
    for (unsigned rest = warp.waiting; rest; rest &= rest - 1) {
        thread &other = block.threads[t.warp * 32 + static_cast<unsigned>(__builtin_ctz(rest))];
        if (takes_part(other.mask, static_cast<int>(t.lane)) && try_warp(block, other)) break;
    }
}

} // namespace cuemu
