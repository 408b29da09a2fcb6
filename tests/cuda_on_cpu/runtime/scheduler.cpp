/*
 * scheduler.cpp: runs the blocks of a launch.
 *
 * A thread runs until it waits for others, see meet.cpp. Between two barriers threads run in the order of the schedule,
 * so that code that needs a barrier it does not have goes wrong under one order or another.
 *
 * Blocks run one after the other, those of a cooperative launch together, and under the random schedule a few at a
 * time.
 */
#include "emulator.h"

#include <algorithm>
#include <cstring>

namespace cuemu {

constexpr uint32_t BLOCKS_AT_A_TIME = 3;
constexpr size_t MOST_THREADS = 16384; /* that run at a time */

thread_position *current;

running_now now;

static random_numbers numbers(1);

random_numbers &this_random() { return numbers; }

std::string place_text(const place &p) {
    const char *slash = strrchr(p.file, '/');
    return text("%s:%d", slash ? slash + 1 : p.file, p.line);
}

std::string describe(const thread &t) {
    const uint3 &b = t.block->index, &i = t.index;
    return text("%s, block (%u,%u,%u), thread (%u,%u,%u)", now.launch->name.c_str(), b.x, b.y, b.z, i.x, i.y, i.z);
}

launch_run::launch_run(const launch_request &r) : request(r), name(r.name) {}
launch_run::~launch_run() { request.release(request.arguments); }

void abandon_launch() {
    now.launch->failed = true;
    now.thread->state = FINISHED;
    leave_fiber(true);
    __builtin_unreachable();
}

/* ---- a thread from its start to its end ---- */

static void finish_thread(thread &t, block_run &block) {
    land_copies(t);
    t.state = FINISHED;
    block.live--;
    now.launch->live--;
    wait_no_longer_for(t, block);
}

static void thread_main() {
    arrive_in_fiber();
    const launch_request &request = now.launch->request;
    request.run(request.arguments);
    finish_thread(this_thread(), this_block());
    leave_fiber(true);
    __builtin_unreachable();
}

static void begin_thread(thread &t, const block_run &block, unsigned number, size_t stack) {
    const dim3 &size = block.size;
    t.number = number;
    t.warp = number / 32;
    t.lane = number % 32;
    t.index = {number % size.x, number / size.x % size.y, number / (size.x * size.y)};
    t.block = &block;
    t.state = READY;
    t.copies.clear();
    t.copy_group = 0;
    prepare_fiber(t.machine, stack, thread_main);
}

/* ---- a block ---- */

static void order_threads(block_run &block) {
    const int count = static_cast<int>(block.threads.size());
    block.order.resize(static_cast<size_t>(count));
    for (int i = 0; i < count; i++) block.order[static_cast<size_t>(i)] = config.order == REVERSE ? count - 1 - i : i;
    if (config.order == RANDOM)
        for (int i = count; i > 1; i--)
            std::swap(block.order[static_cast<size_t>(i - 1)], block.order[numbers.below(static_cast<unsigned>(i))]);
}

static void begin_block(block_run &block, uint32_t number, size_t first_stack) {
    launch_run &launch = *now.launch;
    block.launch = &launch;
    block.number = number;
    block.size = launch.request.block;
    block.grid = launch.request.grid;
    block.index = {number % block.grid.x, number / block.grid.x % block.grid.y, number / block.grid.x / block.grid.y};
    const unsigned count = block.size.x * block.size.y * block.size.z;
    block.threads.resize(count);
    for (unsigned i = 0; i < count; i++) begin_thread(block.threads[i], block, i, first_stack + i);
    for (unsigned w = 0; w < 32; w++) {
        const unsigned lanes = count > 32 * w ? std::min(32u, count - 32 * w) : 0;
        block.warps[w] = {lanes == 32 ? ~0u : (1u << lanes) - 1, 0};
    }
    block.live = static_cast<int>(count);
    block.arrived = 0;
    launch.live += count;
    order_threads(block);
    begin_shared(block.shared);
    race_begin_block(block);
}

/* Lets each ready thread among order[begin, end) run once. Whether there was one. */
static bool run_threads(block_run &block, size_t begin, size_t end) {
    bool any = false;
    for (size_t i = begin; i < end && !now.launch->failed; i++) {
        thread &t = block.threads[static_cast<size_t>(block.order[i])];
        if (t.state != READY) continue;
        if (any && config.order == RANDOM && numbers.below(4) == 0) continue; /* lags behind */
        any = true;
        now.thread = &t;
        current = &t;
        enter_fiber(t.machine);
        current = nullptr;
    }
    return any;
}

/* Runs the block until all its threads wait for something outside, or have ended. In order, one warp goes as far as it
 * can before the next: their stacks stay in the caches. Whether a thread ran. */
static bool run_block(block_run &block) {
    now.block = &block;
    bool any = false;
    if (config.order == RANDOM) {
        any = run_threads(block, 0, block.order.size());
        order_threads(block);
        return any;
    }
    for (size_t begin = 0; begin < block.order.size(); begin += 32)
        while (!now.launch->failed && run_threads(block, begin, std::min(begin + 32, block.order.size()))) any = true;
    return any;
}

static void report_deadlock() {
    std::string sentence = "no thread of " + now.launch->name + " can run:";
    const thread *last = nullptr;
    int shown = 0;
    for (const block_run &block : now.slots) {
        if (!block.launch) continue;
        for (const thread &t : block.threads) {
            if (t.state == FINISHED || (last && last->state == t.state && same_place(last->where, t.where))) continue;
            const char *what = t.state == AT_WARP            ? t.operation_name
                               : t.state == AT_BLOCK_BARRIER ? "the barrier of its block"
                                                             : "the barrier of the grid";
            if (shown++ < 4)
                sentence += text(" thread %u of block %u waits in %s at ", t.number, block.number, what) +
                            place_text(t.where) + ";";
            last = &t;
        }
    }
    report(DEADLOCK, sentence);
    now.launch->failed = true;
}

/* ---- a launch ---- */

static uint32_t nth_block(const std::vector<uint32_t> &permutation, uint32_t n, uint32_t blocks) {
    return config.order == FORWARD ? n : config.order == REVERSE ? blocks - 1 - n : permutation[n];
}

void run_blocks(launch_run &launch) {
    static uint32_t launches = 0;
    launch.serial = ++launches;
    now.launch = &launch;
    numbers = random_numbers(config.seed * 1000003 + launch.serial);
    const size_t threads = launch.request.block.x * launch.request.block.y * launch.request.block.z;
    uint32_t together = launch.request.cooperative ? launch.blocks : config.order == RANDOM ? BLOCKS_AT_A_TIME : 1;
    together = std::min(together, launch.blocks);
    if (together * threads > MOST_THREADS) {
        report(LAUNCH,
               launch.name + text(": %zu threads at a time are more than the emulator runs", together * threads));
        return;
    }
    std::vector<uint32_t> permutation;
    if (config.order == RANDOM) {
        permutation.resize(launch.blocks);
        for (uint32_t i = 0; i < launch.blocks; i++) permutation[i] = i;
        for (uint32_t i = launch.blocks; i > 1; i--) std::swap(permutation[i - 1], permutation[numbers.below(i)]);
    }
    launch.threads = static_cast<long>(launch.blocks * threads);
    reserve_stacks(together * threads);
    if (now.slots.size() < together) now.slots.resize(together);
    for (block_run &block : now.slots) block.launch = nullptr;
    race_begin_launch(launch);

    uint32_t begun = 0;
    const auto begin_next = [&](uint32_t slot) {
        if (begun < launch.blocks)
            begin_block(now.slots[slot], nth_block(permutation, begun++, launch.blocks), slot * threads);
    };
    for (uint32_t slot = 0; slot < together; slot++) begin_next(slot);
    while (launch.live > 0 && !launch.failed) {
        bool any = false;
        for (uint32_t slot = 0; slot < together && !launch.failed; slot++) {
            block_run &block = now.slots[slot];
            if (!block.launch) continue;
            any |= run_block(block);
            if (block.live > 0) continue;
            end_shared(block);
            block.launch = nullptr;
            begin_next(slot);
        }
        if (!any) report_deadlock();
    }
    if (launch.failed) forget_fibers();
    race_end_launch();
    now.launch = nullptr;
}

} // namespace cuemu
